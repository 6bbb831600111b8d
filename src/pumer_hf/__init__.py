"""PuMer for Hugging Face: vision-language transformers that prune and merge their tokens.

`import pumer_hf` registers the models with transformers' Auto classes. The names below load their modules on first
use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from .models.families import DECODERS, FAMILIES, register_decoders, register_family
from .pipeline import PuMerVqaPipeline, register

if TYPE_CHECKING:
    from .configuration import PuMerConfig
    from .convert import convert_checkpoint
    from .data.task import Task
    from .data.tasks import register_task
    from .encoding import EncodingRecord
    from .hub.card import PuMerCard
    from .hub.push import push_folder
    from .inputs import Encoder, encode_example
    from .models.families import Family, preset
    from .models.reduced import reduced
    from .reducers import register_method
    from .training.answers import GivenReducer, answers_kept, choose_layer
    from .training.arguments import DistillationTrainingArguments
    from .training.callbacks import ElasticCallback, ReductionWarmupCallback, TokenReductionCallback
    from .training.scorer import ScorerTrainer, ScorerTrainingArguments, add_scorer
    from .training.trainer import DistillationTrainer
    from .unread import unread_words

__version__ = "0.2.0"

_LAZY = {
    "PuMerConfig": "configuration",
    "preset": "models.families",
    "reduced": "models.reduced",
    "Family": "models.families",
    "Task": "data.task",
    "register_method": "reducers",
    "register_task": "data.tasks",
    "convert_checkpoint": "convert",
    "Encoder": "inputs",
    "EncodingRecord": "encoding",
    "encode_example": "inputs",
    "PuMerCard": "hub.card",
    "push_folder": "hub.push",
    "DistillationTrainingArguments": "training.arguments",
    "GivenReducer": "training.answers",
    "answers_kept": "training.answers",
    "choose_layer": "training.answers",
    "ScorerTrainer": "training.scorer",
    "ScorerTrainingArguments": "training.scorer",
    "add_scorer": "training.scorer",
    "ElasticCallback": "training.callbacks",
    "ReductionWarmupCallback": "training.callbacks",
    "TokenReductionCallback": "training.callbacks",
    "DistillationTrainer": "training.trainer",
    "unread_words": "unread",
}

__all__ = [
    "DistillationTrainer",
    "DistillationTrainingArguments",
    "ElasticCallback",
    "Encoder",
    "EncodingRecord",
    "Family",
    "GivenReducer",
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
    "ScorerTrainer",
    "ScorerTrainingArguments",
    "Task",
    "TokenReductionCallback",
    "add_scorer",
    "answers_kept",
    "choose_layer",
    "convert_checkpoint",
    "encode_example",
    "preset",
    "push_folder",
    "reduced",
    "register_family",
    "register_method",
    "register_task",
    "unread_words",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    if name in _DECODER_CLASSES:
        return _DECODER_CLASSES[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, *_DECODER_CLASSES])


for _family in FAMILIES.values():
    register_family(_family)
register_decoders()
_DECODER_CLASSES = {kind.__name__: kind for row in DECODERS.values() for kind in (row.model_class, row.config_class)}
"""`PuMerLlavaForConditionalGeneration`, `PuMerLlavaConfig` and so on. Empty with an older transformers."""
register()
