"""PuMer for Hugging Face: vision-language transformers that prune and merge their tokens.

`import pumer_hf` registers the models with transformers' Auto classes. The names below load their modules on first
use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, AutoModel, AutoModelForVisualQuestionAnswering, AutoProcessor, ViltProcessor

from .models.meter import (
    PuMerMeterConfig,
    PuMerMeterForQuestionAnswering,
    PuMerMeterModel,
    PuMerMeterProcessor,
)
from .models.vilt import PuMerViltConfig, PuMerViltForQuestionAnswering, PuMerViltModel

if TYPE_CHECKING:
    from .configuration import PuMerConfig, preset
    from .convert import convert_checkpoint
    from .models.meter import (
        PuMerMeterForImageAndTextRetrieval,
        PuMerMeterForImagesAndTextClassification,
        PuMerMeterForVisualEntailment,
    )
    from .models.vilt import (
        PuMerViltForImageAndTextRetrieval,
        PuMerViltForImagesAndTextClassification,
        PuMerViltForVisualEntailment,
    )
    from .training.arguments import DistillationTrainingArguments
    from .training.callbacks import ReductionWarmupCallback, TokenReductionCallback
    from .training.trainer import DistillationTrainer

__version__ = "0.1.0"

_LAZY = {
    "PuMerConfig": "configuration",
    "preset": "configuration",
    "convert_checkpoint": "convert",
    "PuMerMeterForImageAndTextRetrieval": "models.meter",
    "PuMerMeterForImagesAndTextClassification": "models.meter",
    "PuMerMeterForVisualEntailment": "models.meter",
    "PuMerViltForImageAndTextRetrieval": "models.vilt",
    "PuMerViltForImagesAndTextClassification": "models.vilt",
    "PuMerViltForVisualEntailment": "models.vilt",
    "DistillationTrainingArguments": "training.arguments",
    "ReductionWarmupCallback": "training.callbacks",
    "TokenReductionCallback": "training.callbacks",
    "DistillationTrainer": "training.trainer",
}

__all__ = [
    "DistillationTrainer",
    "DistillationTrainingArguments",
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
    "ReductionWarmupCallback",
    "TokenReductionCallback",
    "convert_checkpoint",
    "preset",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


for _config, _model, _answering, _processor in (
    (PuMerMeterConfig, PuMerMeterModel, PuMerMeterForQuestionAnswering, PuMerMeterProcessor),
    (PuMerViltConfig, PuMerViltModel, PuMerViltForQuestionAnswering, ViltProcessor),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoModelForVisualQuestionAnswering.register(_config, _answering, exist_ok=True)
    AutoProcessor.register(_config, _processor, exist_ok=True)
