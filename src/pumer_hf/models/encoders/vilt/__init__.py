"""ViLT (https://arxiv.org/abs/2102.03334) with token reduction.

Parameter names are those of `transformers.ViltModel`, so any checkpoint that a stock ViLT class saved loads here. The
config, the processor and the output types are transformers'; embedding, attention, layer and encoder are our own, and
their docstrings say what differs and why. With `reduction=None` the logits are stock ViLT's.
"""

from .configuration import PuMerViltConfig
from .modeling import (
    PuMerViltForImageAndTextRetrieval,
    PuMerViltForImagesAndTextClassification,
    PuMerViltForQuestionAnswering,
    PuMerViltForVisualEntailment,
    PuMerViltModel,
    PuMerViltPreTrainedModel,
)

__all__ = [
    "PuMerViltConfig",
    "PuMerViltForImageAndTextRetrieval",
    "PuMerViltForImagesAndTextClassification",
    "PuMerViltForQuestionAnswering",
    "PuMerViltForVisualEntailment",
    "PuMerViltModel",
    "PuMerViltPreTrainedModel",
]
