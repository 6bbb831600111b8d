"""The table of the model families. It has a row for each family, and is the only place that lists them.

`import pumer_hf` registers the rows of the table. [`register_family`] adds a family of another package.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import transformers
from packaging.version import Version
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    ViltConfig,
)
from transformers import ViltProcessor as StockViltProcessor

from .. import remote_code
from ..configuration import PuMerConfig
from ..reducers import ReductionConfig
from ..reducers.pumer import PuMerReductionConfig
from .decoders.family import DecoderFamily
from .encoders import meter, vilt
from .encoders.base import PuMerPreTrainedModel
from .encoders.meter.processing import new_meter_processor
from .encoders.vilt.configuration import as_size
from .encoders.vilt.processing import new_vilt_processor


@dataclass(frozen=True)
class Family:
    """A model family: its classes, and what the rest of the package has to know about it.

    The checkpoints of its authors are described in `convert.layouts`, a row for each format.
    """

    name: str
    """The name in recipes, flags and file names: `"vilt"`."""
    title: str
    """What people call it: `"ViLT"`."""
    config_class: type[PuMerConfig]
    base_class: type[PuMerPreTrainedModel]
    """The model without a head."""
    heads: Mapping[str, type[PuMerPreTrainedModel]]
    """The model with each head, by the name of the head's task. If an Auto class has several heads, it takes the first
    of them for a config that names none."""
    processor_class: type[ProcessorMixin]
    new_processor: Callable[[Any, Sequence[str], int, float, float], ProcessorMixin]
    """Makes the processor of a model from scratch, and adapts the config to it. Arguments: the config, the texts that
    the vocabulary is made from, tokens per text, and the mean and the standard deviation of the pixels."""
    patch_size: Callable[[Any], tuple[int, int]]
    """The height and the width of a patch in pixels, from a config."""
    presets: Mapping[str, ReductionConfig]
    """The schedule that the paper uses for each task (PuMer, Table 6)."""
    tokenizer: str
    """The tokenizer of its published checkpoints, by its id on the Hub."""
    modality_types: str
    """The name of the weights that tell text, image and further images apart, in the model without a head."""
    stock_type: str | None = None
    """The `model_type` of checkpoints of transformers' own classes that this family reads too."""
    stock_classes: Mapping[type[PuMerPreTrainedModel], str] = field(default_factory=dict)
    """From each of our classes to the name of the same class in transformers, if there is one."""

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites at which its models can reduce tokens ([`SITES`])."""
        return tuple(self.config_class().sites)

    @property
    def model_classes(self) -> dict[str, type[PuMerPreTrainedModel]]:
        """The model classes, by the names that a `config.json` may have in `architectures`.

        These are our names, and for a family with a `stock_type` also transformers' names, which lack our prefix.
        """
        ours = {model_class.__name__: model_class for model_class in (self.base_class, *self.heads.values())}
        stock = {name.removeprefix("PuMer"): model_class for name, model_class in ours.items()}
        return {**ours, **(stock if self.stock_type else {})}

    def model_for(self, head: str) -> type[PuMerPreTrainedModel]:
        """Return the model with a head, by the name of its task.

        Raises:
            ValueError: the family has no such head.
        """
        if head not in self.heads:
            raise ValueError(f"{self.title} has no head for the task {head!r}: choose one of {', '.join(self.heads)}")
        return self.heads[head]


# PuMer, Table 6. METER's layers count the six blocks of cross-layers. The paper counts them 0, 2, 4, ...
FAMILIES: dict[str, Family] = {
    "vilt": Family(
        name="vilt",
        title="ViLT",
        config_class=vilt.PuMerViltConfig,
        base_class=vilt.PuMerViltModel,
        heads={
            "vqa": vilt.PuMerViltForQuestionAnswering,
            "snli_ve": vilt.PuMerViltForVisualEntailment,
            "nlvr2": vilt.PuMerViltForImagesAndTextClassification,
            "retrieval": vilt.PuMerViltForImageAndTextRetrieval,
        },
        processor_class=StockViltProcessor,
        new_processor=new_vilt_processor,
        patch_size=lambda config: as_size(config.patch_size),
        presets={
            "vqa": PuMerReductionConfig((2, 5, 8), 0.1, 0.3, 0.2),
            "nlvr2": PuMerReductionConfig((2, 5, 8), 0.1, 0.3, 0.2),
            "snli_ve": PuMerReductionConfig((2, 4, 6, 8), 0.1, 0.3, 0.2),
            "retrieval": PuMerReductionConfig((2, 5, 8), 0.1, 0.3, 0.2),
        },
        tokenizer="bert-base-uncased",
        modality_types="embeddings.token_type_embeddings.weight",
        stock_type=ViltConfig.model_type,
        stock_classes={
            vilt.PuMerViltModel: "ViltModel",
            vilt.PuMerViltForQuestionAnswering: "ViltForQuestionAnswering",
            vilt.PuMerViltForVisualEntailment: "ViltForQuestionAnswering",  # the same head
            vilt.PuMerViltForImagesAndTextClassification: "ViltForImagesAndTextClassification",
            vilt.PuMerViltForImageAndTextRetrieval: "ViltForImageAndTextRetrieval",
        },
    ),
    "meter": Family(
        name="meter",
        title="METER",
        config_class=meter.PuMerMeterConfig,
        base_class=meter.PuMerMeterModel,
        heads={
            "vqa": meter.PuMerMeterForQuestionAnswering,
            "snli_ve": meter.PuMerMeterForVisualEntailment,
            "nlvr2": meter.PuMerMeterForImagesAndTextClassification,
            "retrieval": meter.PuMerMeterForImageAndTextRetrieval,
        },
        processor_class=meter.PuMerMeterProcessor,
        new_processor=new_meter_processor,
        patch_size=lambda config: as_size(config.vision_config.patch_size),
        presets={
            "vqa": PuMerReductionConfig((0, 1, 2, 3), 0.2, 0.2, 0.2),
            "nlvr2": PuMerReductionConfig((1, 2, 3), 0.3, 0.5, 0.2),
            "snli_ve": PuMerReductionConfig((0, 1, 2, 3), 0.3, 0.5, 0.2),
            "retrieval": PuMerReductionConfig((1, 2, 3), 0.2, 0.5, 0.2),
        },
        tokenizer="roberta-base",
        modality_types="token_type_embeddings.weight",
    ),
}

OLD_TASK_NAMES = {
    "vqav2": "vqa",
    "vqa2": "vqa",
    "ve": "snli_ve",
    "snli": "snli_ve",
    "irtr": "retrieval",
    "flickr30k": "retrieval",
    "coco": "retrieval",
}
"""From older names of tasks to ours. Earlier versions and the authors of the models use them in flags and files."""


def register_family(family: Family) -> None:
    """Add a family to the table, and its classes to transformers' Auto classes.

    Raises:
        ValueError: another family has the same name, or reads checkpoints with the same `model_type`.
    """
    if FAMILIES.get(family.name, family) is not family:
        raise ValueError(f"family.name={family.name!r}: another family has this name, choose a new one")
    for name, model_type in (
        ("config_class.model_type", family.config_class.model_type),
        ("stock_type", family.stock_type),
    ):
        other = find_family(model_type)
        if other is not None and other is not family:
            raise ValueError(f"family.{name}={model_type!r}: {other.title} reads such checkpoints, choose a new one")
    FAMILIES[family.name] = family
    config_class = family.config_class
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModel.register(config_class, family.base_class, exist_ok=True)
    AutoProcessor.register(config_class, family.processor_class, exist_ok=True)
    by_auto_class: dict[Any, list[type[PreTrainedModel]]] = {}
    for head in family.heads.values():
        by_auto_class.setdefault(head.auto_class, []).append(head)
    for auto_class, heads in by_auto_class.items():
        auto_class.register(config_class, heads[0] if len(heads) == 1 else tuple(heads), exist_ok=True)
    remote_code.AUTO_CLASSES[config_class.__name__] = auto_classes(family)


def auto_classes(family: Family) -> dict[str, str]:
    """Return the name of the Auto class that loads each class of a family, for the classes of this package."""
    found = {family.config_class: AutoConfig, family.base_class: AutoModel, family.processor_class: AutoProcessor}
    found |= {head: head.auto_class for head in family.heads.values()}
    package = __name__.partition(".")[0]
    return {
        loaded.__name__: auto_class.__name__
        for loaded, auto_class in found.items()
        if loaded.__module__.partition(".")[0] == package
    }


def find_family(model_type: Any) -> Family | None:
    """Return the family whose models have this `model_type`, or that reads checkpoints with it; else None."""
    for family in FAMILIES.values():
        if model_type in (family.config_class.model_type, family.stock_type) and model_type is not None:
            return family
    return None


def family_of(model_type: Any, where: str = "config") -> Family:
    """Return the family of a `model_type`, as [`find_family`] does.

    Args:
        model_type: the value in a config.
        where: what the config belongs to, for the message.

    Raises:
        ValueError: there is no such family.
    """
    family = find_family(model_type)
    if family is None:
        titles = " nor ".join(known.title for known in FAMILIES.values())
        raise ValueError(f"{where}: model_type={model_type!r} is neither {titles}")
    return family


def patch_size(config: Any) -> tuple[int, int]:
    """Return the height and the width of a patch in pixels, for a model of any family."""
    return family_of(config.model_type).patch_size(config)


def task_name(name: str) -> str:
    """Return the name of a task. Old names and capital letters are understood too."""
    return OLD_TASK_NAMES.get(name.lower(), name.lower())


def task_of(architecture: str) -> str | None:
    """Return the task of the head of a model class. It is None for a model without a head, and for an unknown class.

    Args:
        architecture: the name of the class, in this package or in transformers.
    """
    for family in FAMILIES.values():
        found = family.model_classes.get(architecture)
        for task, head in family.heads.items():
            if found is head:
                return task
    return None


def preset(backbone: str | PreTrainedConfig, task: str) -> dict[str, Any]:
    """Return the schedule to begin with for a model, in the form that configs take.

    For an encoder it is that of the paper (PuMer, Table 6). For a decoder it is [`DecoderFamily.preset`].

    Args:
        backbone: the name of a family of encoders: `"vilt"` or `"meter"`; or the config of a decoder model, whose
            number of layers counts.
        task: `"vqa"`, `"nlvr2"`, `"snli_ve"` or `"retrieval"`; for a decoder, the site: `"inputs"` or `"layers"`.

    Raises:
        ValueError: there is no such preset.
    """
    if not isinstance(backbone, str):
        return _decoder_preset(backbone, task)
    if backbone in DECODERS:
        raise ValueError(
            f"no preset for backbone={backbone!r} alone: it depends on the number of layers: give the config of the "
            "model, and a site: preset(model.config, 'layers')"
        )
    presets = FAMILIES[backbone].presets if backbone in FAMILIES else {}
    if task_name(task) not in presets:
        known = ", ".join(f"{name}/{known_task}" for name, family in FAMILIES.items() for known_task in family.presets)
        raise ValueError(f"no preset for backbone={backbone!r}, task={task!r}: choose one of {known}")
    return presets[task_name(task)].to_dict()


def _decoder_preset(config: PreTrainedConfig, site: str) -> dict[str, Any]:
    row = next(
        (row for row in DECODERS.values() if type(config) in (row.config_class, row.stock_class.config_class)), None
    )
    if row is None:
        raise ValueError(f"no preset for {type(config).__name__}: {decoder_advice()}")
    if site not in ("inputs", "layers"):
        raise ValueError(f"no preset for {row.title}, site={site!r}: choose 'inputs' or 'layers'")
    return row.preset(config, site).to_dict()


DECODERS: dict[str, DecoderFamily] = {}
"""The families of decoder models, by name. They are transformers' own classes, which reduce before the decoder."""
DECODERS_NEED = "5.18"
"""The lowest version of transformers whose `generate` takes encoded images, which the cut needs."""


def decoder_advice() -> str:
    """Return what to do with a model that is of no family in `DECODERS`, for the end of a message."""
    titles = ", ".join(row.title for row in DECODERS.values())
    return f"choose a model of {titles}" if titles else f"decoder models need transformers {DECODERS_NEED} or newer"


def register_decoders() -> None:
    """Fill `DECODERS`, and add our classes to transformers' Auto classes. An older transformers has no decoders."""
    if Version(transformers.__version__) < Version(DECODERS_NEED):
        return
    for row in import_module(".decoders.rows", __package__).ROWS:
        register_decoder(row)


def register_decoder(row: DecoderFamily) -> None:
    """Add a family of decoder models to the table, and its class to transformers' Auto classes."""
    DECODERS[row.name] = row
    AutoConfig.register(row.config_class.model_type, row.config_class, exist_ok=True)
    AutoModelForImageTextToText.register(row.config_class, row.model_class, exist_ok=True)
    remote_code.AUTO_CLASSES[row.config_class.__name__] = {
        row.config_class.__name__: AutoConfig.__name__,
        row.model_class.__name__: AutoModelForImageTextToText.__name__,
    }
    conversion: Any = import_module("transformers.conversion_mapping")
    stock, ours = row.stock_class, row.model_class
    for known, new in ((row.stock_type, row.config_class.model_type), (stock.__name__, ours.__name__)):
        names = conversion.get_checkpoint_conversion_mapping(known)
        if names is not None:  # older checkpoints of the stock class have other names
            conversion.register_checkpoint_conversion_mapping(new, names, overwrite=True)
