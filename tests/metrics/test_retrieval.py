import itertools
from statistics import mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumer_hf.metrics.retrieval import normalize_caption, recall_at_k


def slow_recall(scores, owners, captions, k):
    """One query at a time, over every order of its equal scores."""
    num_texts, num_images = scores.shape
    right = [
        {owner for owner, other in zip(owners, captions, strict=True) if other == caption} for caption in captions
    ]

    def hits(values, is_right):
        orders = itertools.permutations(range(len(values)))
        sorted_orders = [
            order for order in orders if all(values[a] >= values[b] for a, b in itertools.pairwise(order))
        ]
        return mean(any(is_right(candidate) for candidate in order[:k]) for order in sorted_orders)

    images = [hits(scores[text], lambda image, text=text: image in right[text]) for text in range(num_texts)]
    texts = [hits(scores[:, image], lambda text, image=image: image in right[text]) for image in range(num_images)]
    return 100 * mean(images), 100 * mean(texts)


@settings(max_examples=25, deadline=None)
@given(
    num_images=st.integers(1, 4),
    extra=st.lists(st.integers(0, 3), max_size=2),
    levels=st.sampled_from([1, 2, 3, 1000]),
    texts=st.sampled_from([2, 3, 100]),
    seed=st.integers(0, 1000),
)
def test_recall_is_the_mean_over_all_orders_of_equal_scores(num_images, extra, levels, texts, seed):
    owners = [*range(num_images), *(image % num_images for image in extra)]
    rng = np.random.default_rng(seed)
    owners = rng.permutation(owners)
    captions = [f"caption {number}" for number in rng.integers(texts, size=len(owners))]
    scores = rng.integers(levels, size=(len(owners), num_images)).astype(float)
    recalls = recall_at_k(scores, owners, (1, 2, 3), captions)
    for k in (1, 2, 3):
        text_to_image, image_to_text = slow_recall(scores, owners, captions, k)
        assert recalls[f"text_to_image_recall@{k}"] == pytest.approx(text_to_image)
        assert recalls[f"image_to_text_recall@{k}"] == pytest.approx(image_to_text)


def test_an_example_by_hand():
    # captions 0 and 1 are of image 0, caption 2 of image 1
    scores = [[0.9, 0.1], [0.2, 0.3], [0.8, 0.7]]
    recalls = recall_at_k(scores, [0, 0, 1], cutoffs=(1, 2))
    assert recalls == pytest.approx(
        {
            "text_to_image_recall@1": 100 / 3,
            "text_to_image_recall@2": 100,
            "image_to_text_recall@1": 100,  # image 0 by caption 0, image 1 by caption 2
            "image_to_text_recall@2": 100,
            "mean_recall": (100 / 3 + 300) / 4,
        }
    )


def test_a_model_that_scores_all_pairs_alike_is_at_chance():
    recalls = recall_at_k(np.zeros((30, 15)), np.arange(30) // 2)
    assert recalls["text_to_image_recall@1"] == pytest.approx(100 / 15)
    assert recalls["text_to_image_recall@5"] == pytest.approx(100 / 3)
    assert recalls["image_to_text_recall@1"] == pytest.approx(100 * 2 / 30)
    assert recalls["image_to_text_recall@5"] == pytest.approx(
        100 * (1 - (28 * 27 * 26 * 25 * 24) / (30 * 29 * 28 * 27 * 26))
    )


def test_a_caption_that_two_images_have_is_right_for_both():
    # The model prefers image 1 for "a dog", which images 0 and 1 have, and its other captions are right.
    scores, owners = [[0.1, 0.9, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 0.9]], [0, 1, 2]
    captions = ["A dog", "a  dog ", "a cat"]
    assert recall_at_k(scores, owners, (1,), captions)["mean_recall"] == 100
    for distinct in (None, ["a dog", "a brown dog", "a cat"]):
        assert recall_at_k(scores, owners, (1,), distinct)["text_to_image_recall@1"] == pytest.approx(200 / 3)


def test_case_and_white_space_of_captions_do_not_count():
    assert normalize_caption(" A  Dog\n") == "a dog"


@pytest.mark.parametrize(
    ("scores", "owners", "message"),
    [
        (np.zeros((3, 2)), [0, 1], r"scores .*\(3, 2\), image_of_text \(2,\)"),
        (np.zeros(3), [0, 1, 1], r"scores .*\(3,\)"),
        (np.zeros((3, 3)), [0, 1, 1], "image 2 .*no caption"),
        (np.zeros((3, 2)), [0, 1, 2], "image 2 .*no column"),
        (np.full((2, 2), np.nan), [0, 1], "scores .*4 NaNs"),
    ],
)
def test_what_does_not_fit_is_named(scores, owners, message):
    with pytest.raises(ValueError, match=message):
        recall_at_k(scores, owners)


def test_as_many_captions_as_rows():
    with pytest.raises(ValueError, match="captions .*1 texts, scores 2 rows"):
        recall_at_k(np.zeros((2, 2)), [0, 1], captions=["a"])
