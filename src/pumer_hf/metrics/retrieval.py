"""Recall@k of image and text retrieval."""

from collections.abc import Sequence

import numpy as np

CUTOFFS = (1, 5, 10)


def recall_at_k(
    scores: np.ndarray | Sequence[Sequence[float]], image_of_text: Sequence[int], cutoffs: Sequence[int] = CUTOFFS
) -> dict[str, float]:
    """Recall@k both ways, in percent.

    A caption finds its image if fewer than k other images score at least as high. An image finds a caption of its own
    if fewer than k captions of other images score at least as high as the best of its own. So ties count as wrong: a
    model that scores all pairs alike finds nothing.

    Args:
        scores: float (num_texts, num_images), higher for a better match.
        image_of_text: int (num_texts,), the image that each caption belongs to. An image may have several captions.
        cutoffs: the values of k.

    Returns:
        `text_to_image_recall@k` and `image_to_text_recall@k` for each k, and `mean_recall` over all of them.
    """
    scores, owners = np.asarray(scores, dtype=np.float64), np.asarray(image_of_text)
    if scores.ndim != 2 or owners.shape != scores.shape[:1]:
        raise ValueError(
            f"scores has shape {scores.shape}, image_of_text {owners.shape}: they must be (num_texts, num_images) and "
            "(num_texts,)"
        )
    missing = set(range(scores.shape[1])) ^ set(owners.tolist())
    if missing:
        raise ValueError(
            f"image_of_text: image {min(missing)} has no caption or no column in scores; each of the "
            f"{scores.shape[1]} images must have at least one"
        )
    if np.isnan(scores).any():
        raise ValueError(f"scores has {np.isnan(scores).sum()} NaNs: they cannot be ranked")
    ranks = {"text_to_image": _image_ranks(scores, owners), "image_to_text": _text_ranks(scores, owners)}
    recalls = {
        f"{direction}_recall@{k}": 100 * float((found < k).mean())
        for direction, found in ranks.items()
        for k in cutoffs
    }
    return {**recalls, "mean_recall": sum(recalls.values()) / len(recalls)}


def _image_ranks(scores: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """For each caption, how many images come before its own: int (num_texts,)."""
    own = np.take_along_axis(scores, owners[:, None], axis=1)
    return (scores >= own).sum(axis=1) - 1


def _text_ranks(scores: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """For each image, how many captions of others come before the best of its own: int (num_images,)."""
    is_own = owners[:, None] == np.arange(scores.shape[1])
    best = np.where(is_own, scores, -np.inf).max(axis=0)
    return ((scores >= best) & ~is_own).sum(axis=0)
