"""The `evaluate` module of the official VQA accuracy."""

import datasets
import evaluate

from pumer_hf.metrics.vqa_accuracy import Version, vqa_accuracy


class VqaAccuracy(evaluate.Metric):
    """`compute(predictions, references, version="2021")`; see [`vqa_accuracy`]."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Official VQA accuracy in percent, version 2017 or 2021.",
            citation="https://arxiv.org/abs/1505.00468",
            inputs_description="predictions: an answer per question; references: the answers of its annotators",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
            ),
        )

    def _compute(
        self, predictions: list[str], references: list[list[str]], version: Version = "2021"
    ) -> dict[str, float]:
        return {"vqa_accuracy": vqa_accuracy(predictions, references, version)}
