"""Both model families and their task heads, by name."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..configuration import PuMerConfig
from .encoders import meter, vilt
from .encoders.base import PuMerPreTrainedModel


@dataclass(frozen=True)
class Family:
    """The classes of a backbone."""

    config_class: type[PuMerConfig]
    base_class: type[PuMerPreTrainedModel]
    heads: Mapping[str, type[PuMerPreTrainedModel]]
    """The models by the end of their names."""


FAMILIES = {
    "vilt": Family(
        vilt.PuMerViltConfig,
        vilt.PuMerViltModel,
        {
            "ForQuestionAnswering": vilt.PuMerViltForQuestionAnswering,
            "ForImagesAndTextClassification": vilt.PuMerViltForImagesAndTextClassification,
            "ForVisualEntailment": vilt.PuMerViltForVisualEntailment,
            "ForImageAndTextRetrieval": vilt.PuMerViltForImageAndTextRetrieval,
        },
    ),
    "meter": Family(
        meter.PuMerMeterConfig,
        meter.PuMerMeterModel,
        {
            "ForQuestionAnswering": meter.PuMerMeterForQuestionAnswering,
            "ForImagesAndTextClassification": meter.PuMerMeterForImagesAndTextClassification,
            "ForVisualEntailment": meter.PuMerMeterForVisualEntailment,
            "ForImageAndTextRetrieval": meter.PuMerMeterForImageAndTextRetrieval,
        },
    ),
}
