import numpy as np
import pytest

from pumer_hf.metrics.classification import accuracy_score, consistency_score


def test_accuracy_is_in_percent():
    assert accuracy_score([0, 1, 2, 2], [0, 1, 1, 2]) == 75
    assert accuracy_score(np.array([0, 0]), np.array([1, 1])) == 0


def test_a_sentence_is_consistent_if_all_its_examples_are_right():
    # a: both right; b: one of two; c: one right; d: three, one wrong
    sentences = ["a", "b", "c", "b", "a", "d", "d", "d"]
    references = [1, 0, 1, 1, 0, 1, 0, 1]
    predictions = [1, 0, 1, 0, 0, 1, 0, 0]
    assert consistency_score(predictions, references, sentences) == 50
    assert accuracy_score(predictions, references) == 75


def test_consistency_does_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    predictions, references, sentences = [*rng.integers(2, size=(2, 60)).tolist(), rng.integers(20, size=60).tolist()]
    expected = consistency_score(predictions, references, sentences)
    assert 0 < expected < 100
    order = rng.permutation(60)
    shuffled = [[values[i] for i in order] for values in (predictions, references, sentences)]
    assert consistency_score(*shuffled) == expected


def test_consistency_is_at_most_accuracy_in_groups_of_one_size():
    assert consistency_score([1, 1, 0, 0], [1, 0, 1, 0], ["a", "a", "b", "b"]) == 0


def test_wrong_lengths_are_errors():
    with pytest.raises(ValueError, match="2 predictions .*1 references"):
        accuracy_score([1, 2], [1])
    with pytest.raises(ValueError, match="0 predictions"):
        accuracy_score([], [])
    with pytest.raises(ValueError, match="1 sentences .*2 predictions"):
        consistency_score([1, 2], [1, 2], ["a"])
