import itertools

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from pumer_hf.metrics.vqa import (
    AnswerVocabulary,
    accuracy_report,
    answer_scores,
    consensus,
    example_scores,
    language_baselines,
    normalize_answer,
    row_scores,
)


@pytest.mark.parametrize(("count", "score"), [(1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (5, 1.0), (9, 1.0), (10, 1.0)])
def test_ten_annotators(count, score):
    scores = answer_scores(["cup"] * count + [f"other {number}" for number in range(10 - count)])
    assert scores["cup"] == pytest.approx(score)
    assert scores.get("other 0", 0.3) == pytest.approx(0.3)
    assert len(scores) == 1 + 10 - count


@pytest.mark.parametrize(
    ("answers", "scores"),
    [
        (["cup"], {"cup": 1}),
        (["cup", "mug"], {"cup": 1 / 2, "mug": 1 / 2}),
        (["cup", "cup"], {"cup": 1}),
        (["cup", "mug", "cup"], {"cup": 2 / 3, "mug": 1 / 3}),
        (["cup", "mug", "jar"], {"cup": 1 / 3, "mug": 1 / 3, "jar": 1 / 3}),
        (["cup"] * 3, {"cup": 1}),
    ],
)
def test_one_to_three_annotators(answers, scores):
    assert answer_scores(answers) == pytest.approx(scores)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=4, max_size=12))
def test_four_annotators_or_more_are_averaged_over_all_choices_of_all_but_one(answers):
    choices = list(itertools.combinations(answers, len(answers) - 1))
    for answer, score in answer_scores(answers).items():
        assert score == pytest.approx(sum(min(1, choice.count(answer) / 3) for choice in choices) / len(choices))


def test_case_and_white_space_do_not_count():
    assert normalize_answer(" A Cup\n") == "a cup"
    assert answer_scores(["Cup", " cup", "CUP "]) == {"cup": 1}


def test_an_answer_counts_as_the_label_that_it_equals_exactly_or_else_normalised():
    vocabulary = AnswerVocabulary(["Yes", "2", "two", "t shirt", "yes"])
    answers = ["YES ", "Yes.", "two", "Two!", "2", "T-shirt", "shirt"]
    assert [vocabulary.index(answer) for answer in answers] == [0, 0, 2, 1, 1, 3, None]
    assert vocabulary.named(answers) == ["Yes", "Yes", "two", "2", "2", "t shirt", "shirt"]


def test_given_weights_of_equal_answers_are_added_up_to_one_at_most():
    scores = answer_scores(["Cup", "mug", " cup", "jar", "JAR"], [0.25, 0.3, 0.5, 0.6, 0.9])
    assert scores == {"cup": 0.75, "mug": 0.3, "jar": 1.0}
    with pytest.raises(ValueError):
        answer_scores(["cup", "mug"], [0.5])


def test_an_article_as_a_label_is_not_what_mere_punctuation_counts_as():
    assert AnswerVocabulary(["a", "yes"]).index("?") is None
    assert AnswerVocabulary(["a", " ", "yes"]).index("?") == 1  # a label for those who say nothing
    assert AnswerVocabulary(["t-shirt", "t shirt"]).index("t/shirt") == 0  # of several labels, the first


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["cup", "two", "2", "cup", "Two."], "2"),
        (["mug", "the cup", "mug", "cup"], "mug"),  # as many say either, and this is said first
        (["a", "?", "b"], ""),
    ],
)
def test_the_consensus_is_what_most_say_once_normalised(answers, expected):
    assert consensus(answers) == expected


def test_row_scores_are_the_targets_of_the_most_likely_answers():
    logits = np.array([[0.1, 2.0, -1.0], [3.0, 2.0, 1.0], [-3.0, -2.0, -1.0]])
    targets = np.array([[0.3, 0.6, 0.9], [1.0, 0.0, 0.3], [0.5, 0.5, 0.0]])
    assert row_scores(logits, targets).tolist() == [0.6, 1.0, 0.0]


def test_the_report_splits_accuracy_by_kind():
    logits = np.array([[1.0, 0.0]] * 4)
    targets = np.array([[1.0, 0.0], [0.3, 0.6], [0.0, 1.0], [0.6, 0.0]])
    dataset = Dataset.from_dict({"kind": ["count", "left_of", "count", "left_of"]})
    assert accuracy_report(logits, targets, dataset) == {
        "accuracy": pytest.approx(47.5),
        "questions": 4,
        "accuracy_by_kind": {"count": pytest.approx(50), "left_of": pytest.approx(45)},
    }


def test_the_report_has_the_accuracy_of_each_group_beside_the_kinds():
    logits, targets = np.array([[1.0, 0.0]] * 3), np.array([[1.0, 0.0], [0.5, 0.6], [0.0, 1.0]])
    dataset = Dataset.from_dict({"kind": ["a", "b", "b"], "groups": [["one place", "dense"], ["dense"], []]})
    assert accuracy_report(logits, targets, dataset)["accuracy_by_kind"] == {
        "a": pytest.approx(100),
        "b": pytest.approx(25),
        "dense": pytest.approx(75),
        "one place": pytest.approx(100),
    }


def test_the_report_without_kinds_is_accuracy_alone():
    report = accuracy_report(np.array([[1.0, 0.0]]), np.array([[0.3, 0.6]]), Dataset.from_dict({"question": ["a?"]}))
    assert report == {"accuracy": pytest.approx(30), "questions": 1}


def questions(*rows):
    return Dataset.from_dict({"question": [row[0] for row in rows], "answers": [row[1] for row in rows]})


def test_language_baselines_of_single_answers():
    train = questions(("a?", ["yes"]), ("a?", ["yes"]), ("b?", ["2"]), ("b?", ["2"]), ("b?", ["yes"]), ("c?", ["No"]))
    test = questions(("a?", ["yes"]), ("b?", ["2"]), ("c?", ["no"]), ("c?", ["yes"]), ("new?", ["yes"]))
    # majority: always "yes", right in rows 1, 4 and 5. By question: "yes", "2", "no", "no", and "yes" for the new one.
    assert language_baselines(train, test) == {"majority": pytest.approx(60), "question_only": pytest.approx(80)}


def test_language_baselines_weigh_answers_by_their_score():
    # "no" is an answer in four rows, but counts 2/3 + 1/2 + 1/3 + 1/3 = 11/6; "yes" counts 1/3 + 1 + 1 = 7/3 in three.
    # For "a?" it is 2/3 + 1/2 against 1/3.
    train = questions(
        ("a?", ["no", "no", "yes"]),
        ("a?", ["no", "so"]),
        ("b?", ["yes"]),
        ("b?", ["yes"]),
        ("c?", ["no", "1", "2"]),
        ("c?", ["no", "3", "4"]),
    )
    test = questions(("a?", ["no", "yes", "yes"]), ("b?", ["yes", "no"]))
    assert language_baselines(train, test) == {
        "majority": pytest.approx(100 * (2 / 3 + 1 / 2) / 2),
        "question_only": pytest.approx(100 * (1 / 3 + 1 / 2) / 2),
    }


def test_language_baselines_weigh_the_answers_to_a_question_by_their_score():
    # "no" is an answer to "a?" twice, but counts 1/3 + 1/3; "yes" counts 1.
    train = questions(("a?", ["no", "1", "2"]), ("a?", ["no", "3", "4"]), ("a?", ["yes"]), ("b?", ["no"]))
    assert language_baselines(train, questions(("a?", ["yes"]))) == {"majority": 0, "question_only": 100}


def test_language_baselines_count_answers_as_the_labels_of_the_model():
    train = questions(("a?", ["two"]), ("a?", ["2"]), ("a?", ["yes"]), ("b?", ["yes"]), ("b?", ["2."]))
    test = questions(("a?", ["Two"]), ("b?", ["2"]), ("b?", ["yes"]))
    assert language_baselines(train, test, ["2", "yes"]) == {
        "majority": pytest.approx(200 / 3),
        "question_only": pytest.approx(200 / 3),
    }
    # apart if the model has both as labels
    assert language_baselines(train, test, ["2", "two", "yes"])["majority"] == pytest.approx(100 / 3)


def test_language_baselines_take_the_weights_that_the_data_give():
    train = questions(("a?", ["yes", "no"]), ("b?", ["no", "red"])).add_column(
        "answer_weights", [[1.0, 0.3], [0.6, 0.9]]
    )
    test = questions(("a?", ["yes", "no"]), ("b?", ["red", "no"])).add_column(
        "answer_weights", [[0.5, 0.2], [0.7, 0.1]]
    )
    # overall "yes" has 1.0, "no" 0.9 and "red" 0.9; for "b?" it is "red"
    assert language_baselines(train, test) == {"majority": pytest.approx(25), "question_only": pytest.approx(60)}


def test_language_baselines_break_ties_by_alphabet():
    train = questions(("a?", ["yes"]), ("a?", ["no"]))
    test = questions(("a?", ["no"]), ("b?", ["no"]))
    assert language_baselines(train, test) == {"majority": 100, "question_only": 100}


def test_example_scores_of_soft_targets_and_of_classes():
    logits = np.array([[0.0, 2.0, -1.0], [1.0, 0.0, 0.5]])
    assert example_scores(logits, np.array([[0.3, 0.6, 1.0], [0.9, 0.0, 0.3]])).tolist() == [0.6, 0.9]
    assert example_scores(logits, np.array([1, 1])).tolist() == [1.0, 0.0]
