"""Recall@k of image and text retrieval."""

from collections.abc import Sequence

import numpy as np

CUTOFFS = (1, 5, 10)
DIRECTIONS = ("text_to_image", "image_to_text")
RECALLS = (*(f"{direction}_recall@{k}" for direction in DIRECTIONS for k in CUTOFFS), "mean_recall")
"""The names of the metrics that [`recall_at_k`] gives by default."""


def normalize_caption(caption: str) -> str:
    """Return a caption in lower case with single spaces. Captions are the same if these forms are."""
    return " ".join(caption.lower().split())


def recall_at_k(
    scores: np.ndarray | Sequence[Sequence[float]],
    image_of_text: Sequence[int],
    cutoffs: Sequence[int] = CUTOFFS,
    captions: Sequence[str] | None = None,
) -> dict[str, float]:
    """Return recall@k in both directions, in percent: how often a match is among the k best scores.

    Equal scores count as if they were in random order. If a caption's own image and one other share the best score,
    its recall@1 is a half. So a model whose scores are all equal is at chance.

    A caption that several images have ([`normalize_caption`]) matches each of them.

    Args:
        scores: float (num_texts, num_images), higher for a better match.
        image_of_text: int (num_texts,), the image that each caption belongs to. An image may have several captions.
        cutoffs: the values of k.
        captions: the texts (num_texts,). Without them, each caption matches its own image only.

    Returns:
        `text_to_image_recall@k` and `image_to_text_recall@k` for each k, and `mean_recall` over all of them.
    """
    scores, owners = np.asarray(scores, dtype=np.float64), np.asarray(image_of_text)
    _check(scores, owners, captions)
    matches = _matches(owners, scores.shape[1], captions)
    recalls = {}
    for direction, queries, right in zip(DIRECTIONS, (scores, scores.T), (matches, matches.T), strict=True):
        for k in cutoffs:
            recalls[f"{direction}_recall@{k}"] = 100 * float(hit_chances(queries, right, k).mean())
    return {**recalls, "mean_recall": sum(recalls.values()) / len(recalls)}


def hit_chances(scores: np.ndarray, matches: np.ndarray, k: int) -> np.ndarray:
    """Return the chance that a query has a match among its k best candidates. Equal scores are in random order.

    Args:
        scores: float (num_queries, num_candidates).
        matches: bool, of the same shape: which candidates match. Each query needs at least one.
        k: at least 1.

    Returns:
        float (num_queries,) in [0, 1]; 0 or 1 without ties.
    """
    best = np.where(matches, scores, -np.inf).max(axis=1, keepdims=True)
    places = k - (scores > best).sum(axis=1)  # left for the candidates that tie with the best match
    tied = scores == best
    right, wrong = (tied & matches).sum(axis=1), (tied & ~matches).sum(axis=1)
    miss = np.ones(len(scores))
    for drawn in range(min(k, scores.shape[1])):  # the chance that no match gets a place
        left = np.maximum(right + wrong - drawn, 1)
        miss *= np.where(drawn < places, np.maximum(wrong - drawn, 0) / left, 1.0)
    return 1 - miss


def _matches(owners: np.ndarray, num_images: int, captions: Sequence[str] | None) -> np.ndarray:
    """Return which caption matches which image: bool (num_texts, num_images)."""
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
