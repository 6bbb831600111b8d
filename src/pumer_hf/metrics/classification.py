"""Accuracy of classifiers, and the consistency of NLVR2."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

Values = Sequence[Any] | np.ndarray


def accuracy_score(predictions: Values, references: Values) -> float:
    """Return the percent of predictions that are right."""
    return 100 * float(_correct(predictions, references).mean())


def consistency_score(predictions: Values, references: Values, sentences: Sequence[Hashable]) -> float:
    """Return NLVR2's consistency: the percent of sentences that are judged correctly in all their examples.

    Args:
        predictions: the class of each example.
        references: the right class of each example.
        sentences: what identifies the sentence of each example.
    """
    correct = _correct(predictions, references)
    if len(sentences) != len(correct):
        raise ValueError(f"{len(sentences)} sentences for {len(correct)} predictions: give one per example")
    consistent: dict[Hashable, bool] = {}
    for sentence, is_right in zip(sentences, correct, strict=True):
        consistent[sentence] = consistent.get(sentence, True) and bool(is_right)
    return 100 * sum(consistent.values()) / len(consistent)


def _correct(predictions: Values, references: Values) -> np.ndarray:
    if len(predictions) != len(references) or not len(predictions):
        raise ValueError(
            f"{len(predictions)} predictions and {len(references)} references: give one of each per example"
        )
    return np.asarray(predictions) == np.asarray(references)
