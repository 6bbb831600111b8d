"""What the tasks with a few fixed classes share: their labels, metrics and baselines."""

from collections.abc import Callable, Sequence

from datasets import Dataset
from transformers import EvalPrediction

from ..metrics.classification import accuracy_score
from ..metrics.vqa import text_baselines
from .task import Metrics, TaskData, check_rows


def check_labels(labels: Sequence[str] | None, classes: Sequence[str]) -> tuple[str, ...]:
    """The labels of a model that exists already, or `classes`; they must be the same but for order and case."""
    if labels is None:
        return tuple(classes)
    if sorted(label.lower() for label in labels) != sorted(name.lower() for name in classes):
        raise ValueError(f"the model has the labels {list(labels)}: the task needs {list(classes)} (config.id2label)")
    return tuple(labels)


def class_metrics(dataset: Dataset, labels: Sequence[str]) -> Metrics:
    """`accuracy` in percent."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits, targets = check_rows(prediction, len(dataset))
        return {"accuracy": accuracy_score(logits.argmax(-1), targets)}

    return compute


def class_baselines(text_column: str) -> Callable[[TaskData], dict[str, float]]:
    """Accuracy, in percent, of always giving the most frequent label: of all (`majority`), of the same text
    (`text_only`).
    """

    def baselines(data: TaskData) -> dict[str, float]:
        def scored(dataset: Dataset) -> list[tuple[str, dict[str, float]]]:
            pairs = zip(dataset[text_column], dataset["label"], strict=True)
            return [(text, {label.lower(): 1.0}) for text, label in pairs]

        majority, text_only = text_baselines(scored(data.train), scored(data.test))
        return {"majority": majority, "text_only": text_only}

    return baselines
