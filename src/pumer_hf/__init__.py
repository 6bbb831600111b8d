"""PuMer for Hugging Face: vision-language transformers that prune and merge their tokens.

`import pumer_hf` registers the models with transformers' Auto classes. The names below load their modules on first
use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
    ViltProcessor,
)

from .models.encoders.meter import (
    PuMerMeterConfig,
    PuMerMeterForImageAndTextRetrieval,
    PuMerMeterForImagesAndTextClassification,
    PuMerMeterForQuestionAnswering,
    PuMerMeterForVisualEntailment,
    PuMerMeterModel,
    PuMerMeterProcessor,
)
from .models.encoders.vilt import (
    PuMerViltConfig,
    PuMerViltForImageAndTextRetrieval,
    PuMerViltForImagesAndTextClassification,
    PuMerViltForQuestionAnswering,
    PuMerViltForVisualEntailment,
    PuMerViltModel,
)
from .pipeline import PuMerVqaPipeline, register

if TYPE_CHECKING:
    from .configuration import PuMerConfig, preset
    from .convert import convert_checkpoint
    from .encoding import EncodingRecord
    from .hub.card import PuMerCard
    from .hub.push import push_folder
    from .inputs import Encoder, encode_example
    from .training.arguments import DistillationTrainingArguments
    from .training.callbacks import ReductionWarmupCallback, TokenReductionCallback
    from .training.trainer import DistillationTrainer
    from .unread import unread_words

__version__ = "0.1.0"

_LAZY = {
    "PuMerConfig": "configuration",
    "preset": "configuration",
    "convert_checkpoint": "convert",
    "Encoder": "inputs",
    "EncodingRecord": "encoding",
    "encode_example": "inputs",
    "PuMerCard": "hub.card",
    "push_folder": "hub.push",
    "DistillationTrainingArguments": "training.arguments",
    "ReductionWarmupCallback": "training.callbacks",
    "TokenReductionCallback": "training.callbacks",
    "DistillationTrainer": "training.trainer",
    "unread_words": "unread",
}

__all__ = [
    "DistillationTrainer",
    "DistillationTrainingArguments",
    "Encoder",
    "EncodingRecord",
    "PuMerCard",
    "PuMerConfig",
    "PuMerMeterConfig",
    "PuMerMeterForImageAndTextRetrieval",
    "PuMerMeterForImagesAndTextClassification",
    "PuMerMeterForQuestionAnswering",
    "PuMerMeterForVisualEntailment",
    "PuMerMeterModel",
    "PuMerMeterProcessor",
    "PuMerViltConfig",
    "PuMerViltForImageAndTextRetrieval",
    "PuMerViltForImagesAndTextClassification",
    "PuMerViltForQuestionAnswering",
    "PuMerViltForVisualEntailment",
    "PuMerViltModel",
    "PuMerVqaPipeline",
    "ReductionWarmupCallback",
    "TokenReductionCallback",
    "convert_checkpoint",
    "encode_example",
    "preset",
    "push_folder",
    "unread_words",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


# `AutoModelForSequenceClassification` takes the head that the checkpoint names in `architectures`.
_METER_HEADS = (
    PuMerMeterForVisualEntailment,
    PuMerMeterForImagesAndTextClassification,
    PuMerMeterForImageAndTextRetrieval,
)
_VILT_HEADS = (
    PuMerViltForVisualEntailment,
    PuMerViltForImagesAndTextClassification,
    PuMerViltForImageAndTextRetrieval,
)

for _config, _model, _answering, _heads, _processor in (
    (PuMerMeterConfig, PuMerMeterModel, PuMerMeterForQuestionAnswering, _METER_HEADS, PuMerMeterProcessor),
    (PuMerViltConfig, PuMerViltModel, PuMerViltForQuestionAnswering, _VILT_HEADS, ViltProcessor),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoModelForVisualQuestionAnswering.register(_config, _answering, exist_ok=True)
    AutoModelForSequenceClassification.register(_config, _heads, exist_ok=True)
    AutoProcessor.register(_config, _processor, exist_ok=True)

register()
