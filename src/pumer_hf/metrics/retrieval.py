"""Recall@k of image and text retrieval."""

from collections.abc import Sequence

import numpy as np

CUTOFFS = (1, 5, 10)
DIRECTIONS = ("text_to_image", "image_to_text")
RECALLS = (*(f"{direction}_recall@{k}" for direction in DIRECTIONS for k in CUTOFFS), "mean_recall")
"""The names of what [`recall_at_k`] gives by default."""


def normalize_caption(caption: str) -> str:
    """Captions are the same whatever their case and white space."""
    return " ".join(caption.lower().split())


def recall_at_k(
    scores: np.ndarray | Sequence[Sequence[float]],
    image_of_text: Sequence[int],
    cutoffs: Sequence[int] = CUTOFFS,
    captions: Sequence[str] | None = None,
) -> dict[str, float]:
    """Recall@k both ways, in percent: how often one of the k best scores is of a right pair.

    Equal scores count as if they were in random order: a caption whose image scores as high as one other, and higher
    than the rest, finds it with recall@1 of a half. So a model that scores all pairs alike is at chance.

    A caption that several images have, see [`normalize_caption`], is right for each of them.

    Args:
        scores: float (num_texts, num_images), higher for a better match.
        image_of_text: int (num_texts,), the image that each caption belongs to. An image may have several captions.
        cutoffs: the values of k.
        captions: the texts (num_texts,). Without them each caption is right for its image alone.

    Returns:
        `text_to_image_recall@k` and `image_to_text_recall@k` for each k, and `mean_recall` over all of them.
    """
    scores, owners = np.asarray(scores, dtype=np.float64), np.asarray(image_of_text)
    _check(scores, owners, captions)
    matches = _matches(owners, scores.shape[1], captions)
    recalls = {}
    for direction, rows, right in zip(DIRECTIONS, (scores, scores.T), (matches, matches.T), strict=True):
        for k in cutoffs:
            recalls[f"{direction}_recall@{k}"] = 100 * float(hit_chances(rows, right, k).mean())
    return {**recalls, "mean_recall": sum(recalls.values()) / len(recalls)}


def hit_chances(scores: np.ndarray, matches: np.ndarray, k: int) -> np.ndarray:
    """The chance of each query to have a match among its k best candidates, those with equal scores in random order.

    Args:
        scores: float (num_queries, num_candidates).
        matches: bool, of the same shape: which candidates are right. Each query needs one.
        k: at least 1.

    Returns:
        float (num_queries,) in [0, 1]; 0 or 1 without ties.
    """
    best = np.where(matches, scores, -np.inf).max(axis=1, keepdims=True)
    places = k - (scores > best).sum(axis=1)  # left for those that tie with the best match
    tied = scores == best
    right, wrong = (tied & matches).sum(axis=1), (tied & ~matches).sum(axis=1)
    miss = np.ones(len(scores))
    for drawn in range(min(k, scores.shape[1])):  # as many as there are places, without a match
        left = np.maximum(right + wrong - drawn, 1)
        miss *= np.where(drawn < places, np.maximum(wrong - drawn, 0) / left, 1.0)
    return 1 - miss


def _matches(owners: np.ndarray, num_images: int, captions: Sequence[str] | None) -> np.ndarray:
    """Which pairs are right: bool (num_texts, num_images)."""
    names = np.arange(len(owners)) if captions is None else np.array([normalize_caption(text) for text in captions])
    distinct, number = np.unique(names, return_inverse=True)
    right = np.zeros((len(distinct), num_images), dtype=bool)
    right[number, owners] = True
    return right[number]


def _check(scores: np.ndarray, owners: np.ndarray, captions: Sequence[str] | None) -> None:
    if scores.ndim != 2 or owners.shape != scores.shape[:1]:
        raise ValueError(
            f"scores has shape {scores.shape}, image_of_text {owners.shape}: they must be (num_texts, num_images) and "
            "(num_texts,)"
        )
    if captions is not None and len(captions) != len(owners):
        raise ValueError(f"captions has {len(captions)} texts, scores {len(owners)} rows: give one for each row")
    missing = set(range(scores.shape[1])) ^ set(owners.tolist())
    if missing:
        raise ValueError(
            f"image_of_text: image {min(missing)} has no caption or no column in scores; each of the "
            f"{scores.shape[1]} images must have at least one"
        )
    if np.isnan(scores).any():
        raise ValueError(f"scores has {np.isnan(scores).sum()} NaNs: they cannot be ranked")
