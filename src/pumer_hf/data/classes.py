"""What the tasks with a few fixed classes share: their labels, metrics and baselines."""

from collections.abc import Callable, Sequence

from datasets import Dataset
from transformers import EvalPrediction

from ..metrics.classification import accuracy_score
from ..metrics.vqa import text_baselines
from .task import Metrics, TaskData, check_rows


def check_labels(labels: Sequence[str] | None, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of an existing model, or `classes` if there is none.

    Raises `ValueError` if the model has other labels. Order and case may differ.
    """
    if labels is None:
        return tuple(classes)
    if sorted(label.lower() for label in labels) != sorted(name.lower() for name in classes):
        raise ValueError(f"the model has the labels {list(labels)}: the task needs {list(classes)} (config.id2label)")
    return tuple(labels)


def class_metrics(dataset: Dataset, labels: Sequence[str]) -> Metrics:
    """Return the function that computes `accuracy`, in percent."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits, targets = check_rows(prediction, len(dataset))
        return {"accuracy": accuracy_score(logits.argmax(-1), targets)}

    return compute


def class_baselines(text_column: str) -> Callable[[TaskData], dict[str, float]]:
    """Return the function that computes two baselines: the accuracy, in percent, of always giving one label.

    `majority` gives the most frequent label of all training rows, `text_only` the most frequent one for the same text.
    """

    def baselines(data: TaskData) -> dict[str, float]:
        def scored(dataset: Dataset) -> list[tuple[str, dict[str, float]]]:
            rows = zip(dataset[text_column], dataset["label"], strict=True)
            return [(text, {label.lower(): 1.0}) for text, label in rows]

        majority, text_only = text_baselines(scored(data.train), scored(data.test))
        return {"majority": majority, "text_only": text_only}

    return baselines
