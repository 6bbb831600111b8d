import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumer_hf.metrics.retrieval import recall_at_k


def slow_recall(scores, owners, k):
    """By sorting, one query at a time. Among equal scores the right one comes last."""
    num_texts, num_images = scores.shape
    found_images = 0
    for text in range(num_texts):
        order = sorted(range(num_images), key=lambda image: (-scores[text, image], image == owners[text]))
        found_images += owners[text] in order[:k]
    found_texts = 0
    for image in range(num_images):
        order = sorted(range(num_texts), key=lambda text: (-scores[text, image], owners[text] == image))
        found_texts += any(owners[text] == image for text in order[:k])
    return 100 * found_images / num_texts, 100 * found_texts / num_images


@settings(max_examples=60, deadline=None)
@given(
    num_images=st.integers(1, 12),
    extra=st.lists(st.integers(0, 11), max_size=20),
    levels=st.sampled_from([2, 5, 1000]),
    seed=st.integers(0, 1000),
)
def test_recall_is_that_of_sorting(num_images, extra, levels, seed):
    owners = [*range(num_images), *(image % num_images for image in extra)]
    rng = np.random.default_rng(seed)
    owners = rng.permutation(owners)
    scores = rng.integers(levels, size=(len(owners), num_images)).astype(float)
    recalls = recall_at_k(scores, owners)
    for k in (1, 5, 10):
        text_to_image, image_to_text = slow_recall(scores, owners, k)
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


def test_a_model_that_scores_all_pairs_alike_finds_nothing():
    recalls = recall_at_k(np.zeros((30, 15)), np.arange(30) // 2)
    assert set(recalls.values()) == {0.0}


@pytest.mark.parametrize(
    ("scores", "owners", "message"),
    [
        (np.zeros((3, 2)), [0, 1], r"scores has shape \(3, 2\), image_of_text \(2,\)"),
        (np.zeros(3), [0, 1, 1], r"scores has shape \(3,\)"),
        (np.zeros((3, 3)), [0, 1, 1], "image 2 has no caption"),
        (np.zeros((3, 2)), [0, 1, 2], "image 2 has no caption or no column"),
        (np.full((2, 2), np.nan), [0, 1], "scores has 4 NaNs"),
    ],
)
def test_what_does_not_fit_is_named(scores, owners, message):
    with pytest.raises(ValueError, match=message):
        recall_at_k(scores, owners)
