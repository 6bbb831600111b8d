"""The `evaluate` module of recall@1, 5 and 10, in both directions."""

import datasets
import evaluate

from pumer_hf.metrics.retrieval import recall_at_k


class RetrievalRecall(evaluate.Metric):
    """`compute(predictions, references, captions=None)` with one entry per caption; see [`recall_at_k`]."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Recall@1, 5 and 10 of text-to-image and image-to-text retrieval, in percent.",
            citation="",
            inputs_description="predictions: each caption's scores with all images; references: number of its image; "
            "captions: their texts; several images may share one",
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self, predictions: list[list[float]], references: list[int], captions: list[str] | None = None
    ) -> dict[str, float]:
        return recall_at_k(predictions, references, captions=captions)
