"""The accuracy of visual question answering, and baselines that see no image."""

from collections import Counter
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
from datasets import Dataset

from .vqa_accuracy import normalize


def normalize_answer(answer: str) -> str:
    """Return an answer in lower case without surrounding white space. Answers are equal if these forms are."""
    return answer.strip().lower()


class AnswerVocabulary:
    """The labels of a model, and the label that an answer counts as.

    An answer counts as the label that it equals apart from case and surrounding white space. If there is none, it
    counts as the first label that it equals after the official normalisation ([`normalize`]): "two" counts as "2",
    unless "two" is a label itself.
    """

    def __init__(self, labels: Sequence[str]):
        self.labels = tuple(labels)
        self._exact: dict[str, int] = {}
        self._normalized: dict[str, int] = {}
        for number, label in enumerate(self.labels):
            self._exact.setdefault(normalize_answer(label), number)
            if normalize(label) or not label.strip():  # "?" and the article "a" both become "", but are not the same
                self._normalized.setdefault(normalize(label), number)

    def index(self, answer: str) -> int | None:
        """The number of the label that an answer counts as; None if there is none."""
        number = self._exact.get(normalize_answer(answer))
        return self._normalized.get(normalize(answer)) if number is None else number

    def named(self, answers: Sequence[str]) -> list[str]:
        """The label that each answer counts as, or the answer itself if there is none."""
        numbers = [self.index(answer) for answer in answers]
        return [
            answer if number is None else self.labels[number] for answer, number in zip(answers, numbers, strict=True)
        ]


def consensus(answers: Sequence[str]) -> str:
    """Return the most frequent normalised answer of the annotators of a question; of several, the one given first."""
    counts: Counter[str] = Counter()
    for answer, number in Counter(answers).items():
        counts[normalize(answer)] += number
    return counts.most_common(1)[0][0]


def answer_scores(answers: Sequence[str], weights: Sequence[float] | None = None) -> dict[str, float]:
    """Return the soft target of each answer: its VQA accuracy, in [0, 1].

    Each annotator is left out once, and the results are averaged. An answer counts fully if three of the others gave
    it (https://arxiv.org/abs/1505.00468). With ten annotators, one, two, three and more answers score 0.3, 0.6, 0.9
    and 1. With fewer than four annotators, the score is the fraction that gave the answer.

    Args:
        answers: one per annotator.
        weights: the targets of `answers`, in [0, 1], if the data give them instead of an answer per annotator.
    """
    if weights is not None:
        given: dict[str, float] = {}
        for answer, weight in zip(map(normalize_answer, answers), weights, strict=True):
            given[answer] = min(given.get(answer, 0.0) + weight, 1.0)
        return given
    number = len(answers)
    scores = {}
    for answer, count in Counter(map(normalize_answer, answers)).items():
        if number < 4:
            scores[answer] = count / number
        else:
            without_one_of_them = count * min(1.0, (count - 1) / 3)
            without_another = (number - count) * min(1.0, count / 3)
            scores[answer] = (without_one_of_them + without_another) / number
    return scores


def row_scores(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the score of each row, float (N,) in [0, 1]. Logits and soft targets are (N, num_labels).

    If logits are equal, the first counts. This is rare, as the heads return float32.
    """
    return np.take_along_axis(targets, logits.argmax(-1)[:, None], axis=1)[:, 0]


def example_scores(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the score of each example, float (N,) in [0, 1].

    For soft targets float (N, num_labels), see [`row_scores`]. For classes int (N,), a right prediction scores 1.
    """
    return row_scores(logits, labels) if labels.ndim == 2 else (logits.argmax(-1) == labels).astype(float)


def accuracy_report(logits: np.ndarray, targets: np.ndarray, dataset: Dataset) -> dict[str, Any]:
    """Return the accuracy of logits, as [`score_report`] does.

    Args:
        logits: float (N, C).
        targets: soft targets float (N, C), or classes int (N,).
        dataset: the N rows.
    """
    return score_report(example_scores(logits, targets), dataset)


def score_report(scores: np.ndarray, dataset: Dataset) -> dict[str, Any]:
    """Return `accuracy` in percent, the number of `questions`, and `accuracy_by_kind` if there is a column `kind`.

    If there is a column `groups` too, a list of names per row, `accuracy_by_kind` has the accuracy of each group.

    Args:
        scores: float (N,) in [0, 1], the score of each row.
        dataset: the N rows.
    """
    report: dict[str, Any] = {"accuracy": 100 * float(scores.mean()), "questions": len(scores)}
    members = members_of(dataset)
    if members:
        report["accuracy_by_kind"] = {name: 100 * float(scores[rows].mean()) for name, rows in members.items()}
    return report


def members_of(dataset: Dataset) -> dict[str, np.ndarray]:
    """Return the rows of each kind and of each group, bool (N,), by name. It is empty without a column `kind`."""
    if "kind" not in dataset.column_names:
        return {}
    kinds = np.array(dataset["kind"])
    members = {str(kind): kinds == kind for kind in np.unique(kinds)}
    if "groups" in dataset.column_names:
        groups = dataset["groups"][:]
        names = sorted({name for row in groups for name in row})
        members |= {name: np.array([name in row for row in groups]) for name in names}
    return members


def token_report(image_tokens: np.ndarray, dataset: Dataset) -> dict[str, Any]:
    """Return the mean of `image_tokens`, and `image_tokens_by_kind` if there is a column `kind`.

    Args:
        image_tokens: number (N,), how many image tokens each row keeps.
        dataset: the N rows.
    """
    report: dict[str, Any] = {"image_tokens": float(image_tokens.mean())}
    members = members_of(dataset)
    if members:
        report["image_tokens_by_kind"] = {name: float(image_tokens[rows].mean()) for name, rows in members.items()}
    return report


def language_baselines(train: Dataset, test: Dataset, labels: Sequence[str] = ()) -> dict[str, float]:
    """Return the accuracy on `test`, in percent, of two baselines that see no image.

    Args:
        train: rows with `question` and `answers`.
        test: the same.
        labels: the labels of the model. Answers that count as the same label are the same ([`AnswerVocabulary`]).

    Returns:
        `majority` always gives the most frequent training answer. `question_only` gives the most frequent training
        answer to the same question, or the majority answer if the question is new.
    """
    vocabulary = AnswerVocabulary(labels)

    def scored(dataset: Dataset) -> list[tuple[str, dict[str, float]]]:
        weights = dataset["answer_weights"] if "answer_weights" in dataset.column_names else repeat(None, len(dataset))
        rows = zip(dataset["question"], dataset["answers"], weights, strict=True)
        return [(question, answer_scores(vocabulary.named(answers), given)) for question, answers, given in rows]

    majority, question_only = text_baselines(scored(train), scored(test))
    return {"majority": majority, "question_only": question_only}


def text_baselines(
    train: Sequence[tuple[str, dict[str, float]]], test: Sequence[tuple[str, dict[str, float]]]
) -> tuple[float, float]:
    """Return two scores on `test`, in percent: of the best training answer, and of the best one for the same text.

    Each row is a text and the scores of its answers.
    """
    overall: Counter[str] = Counter()
    by_text: dict[str, Counter[str]] = {}
    for text, scores in train:
        overall.update(scores)
        by_text.setdefault(text, Counter()).update(scores)
    majority = _top(overall)
    always = sum(scores.get(majority, 0.0) for _, scores in test)
    same_text = sum(scores.get(_top(by_text.get(text, overall)), 0.0) for text, scores in test)
    return 100 * always / len(test), 100 * same_text / len(test)


def _top(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer))
