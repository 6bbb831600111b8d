"""The `evaluate` module of plain accuracy, in percent."""

import datasets
import evaluate

from pumer_hf.metrics.classification import accuracy_score


class Accuracy(evaluate.Metric):
    """`compute(predictions, references)` of class indices; see [`accuracy_score`]."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Percent of predictions that are right.",
            citation="",
            inputs_description="predictions, references: class indices",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": accuracy_score(predictions, references)}
