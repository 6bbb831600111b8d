"""The `evaluate` module of NLVR2: accuracy and consistency, in percent."""

import datasets
import evaluate

from pumer_hf.metrics.classification import accuracy_score, consistency_score


class Nlvr2(evaluate.Metric):
    """`compute(predictions, references)`; see [`accuracy_score`] and [`consistency_score`]."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, and consistency: percent of sentences judged correctly in all examples.",
            citation="https://arxiv.org/abs/1811.00491",
            inputs_description="predictions: 0 or 1; references: {'label': 0 or 1, 'sentence': its sentence}",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("int64"),
                    "references": {"label": datasets.Value("int64"), "sentence": datasets.Value("string")},
                }
            ),
        )

    def _compute(self, predictions: list[int], references: list[dict]) -> dict[str, float]:
        labels = [reference["label"] for reference in references]
        sentences = [reference["sentence"] for reference in references]
        return {
            "accuracy": accuracy_score(predictions, labels),
            "consistency": consistency_score(predictions, labels, sentences),
        }
