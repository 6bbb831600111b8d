"""METER (https://arxiv.org/abs/2111.02387) with token reduction.

CLIP and RoBERTa, both from transformers, encode image and text. Blocks of cross-layers follow. A block has one layer
for the text and one for the image, and each attends to the other.
"""

from .configuration import PuMerMeterConfig
from .modeling import (
    PuMerMeterForImageAndTextRetrieval,
    PuMerMeterForImagesAndTextClassification,
    PuMerMeterForQuestionAnswering,
    PuMerMeterForVisualEntailment,
    PuMerMeterModel,
    PuMerMeterPreTrainedModel,
)
from .processing import PuMerMeterProcessor

__all__ = [
    "PuMerMeterConfig",
    "PuMerMeterForImageAndTextRetrieval",
    "PuMerMeterForImagesAndTextClassification",
    "PuMerMeterForQuestionAnswering",
    "PuMerMeterForVisualEntailment",
    "PuMerMeterModel",
    "PuMerMeterPreTrainedModel",
    "PuMerMeterProcessor",
]
