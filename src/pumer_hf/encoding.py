"""The record that says how the inputs of a model are made. It is saved in the processor."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from PIL.Image import Resampling
from transformers import PreTrainedConfig, ProcessorMixin, ViltConfig
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils import logging

from .reading import read_object

logger = logging.get_logger(__name__)

ENTRY = "encoding"
"""The name of the record among the values of the image processor, in `processor_config.json`."""
TEXT_LENGTH, QUESTION_LENGTH = 40, 32
"""Tokens per text in the paper: the first for most tasks, the second for VQA and for the FLOPs in Table 7. RoBERTa
takes 512, but most of them would be padding."""
PADDINGS = ("max_length", "longest")
STAGES_NAME = "stages.json"
"""The file in the output folder of a recipe that says how its models were made. Each model has a folder next to it."""
CHECKPOINT_PREFIX = "checkpoint-"
"""How the folders of checkpoints begin in the folder of a model, as the Trainer names them."""
ORIGINAL_TEXT_EPS = 1e-12
"""`text_layer_norm_eps` of models that were converted from original ViLT; the other ViLT models have none."""

UNREADABLE = (OSError, HFValidationError)
"""The errors of transformers if there is no such file, or no such folder or id on the Hub."""


@dataclass(frozen=True)
class EncodingRecord:
    """How texts and images become the inputs of a model, in the same way as in its training.

    The record is saved in `processor_config.json`, as `encoding` of the image processor. So it is saved, copied and
    pushed together with the processor.
    """

    max_text_length: int = TEXT_LENGTH
    """Tokens to which each text is padded, and at which it is cut."""
    padding: str = "max_length"
    """`"max_length"`, or `"longest"` to pad only to the longest text of a batch."""
    keep_aspect_ratio: bool = False
    """Whether images keep their shape. If not, they become squares."""
    resample: str = "bicubic"
    """The filter that makes squares, by its name in Pillow. The image processor may make them instead."""

    def __post_init__(self) -> None:
        length = self.max_text_length
        if not isinstance(length, int) or isinstance(length, bool) or length < 1:
            raise ValueError(f"max_text_length={self.max_text_length!r}: must be an int of at least 1")
        if self.padding not in PADDINGS:
            raise ValueError(f"padding={self.padding!r}: choose one of {', '.join(PADDINGS)}")
        if not isinstance(self.keep_aspect_ratio, bool):
            raise ValueError(f"keep_aspect_ratio={self.keep_aspect_ratio!r}: must be True or False")
        if not isinstance(self.resample, str) or self.resample.upper() not in Resampling.__members__:
            names = ", ".join(name.lower() for name in Resampling.__members__)
            raise ValueError(f"resample={self.resample!r}: choose one of {names}")

    @classmethod
    def from_dict(cls, values: Any, origin: str = "the processor") -> "EncodingRecord":
        """Read the record from a JSON object.

        Raises:
            ValueError: it is no object, or a field is unknown or wrong. The message names `origin` and the field.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{origin}: encoding={values!r}: must be a JSON object")
        unknown = sorted(values.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"{origin}: encoding.{unknown[0]} is not known: it needs a newer version of pumer-hf")
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{origin}: encoding.{error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)

    def in_words(self) -> str:
        """Describe the record in words."""
        texts = "texts are padded to" if self.padding == "max_length" else "texts are cut at"
        images = "keep their aspect ratio" if self.keep_aspect_ratio else "become squares"
        return f"{texts} {self.max_text_length} tokens, and images {images}"


def record_in(processor: ProcessorMixin, origin: str = "the processor") -> EncodingRecord | None:
    """Return the record of a processor; None if it has none. Errors name `origin`."""
    values = vars(processor.image_processor).get(ENTRY)
    return None if values is None else EncodingRecord.from_dict(values, origin)


def with_record(processor: ProcessorMixin, record: EncodingRecord) -> ProcessorMixin:
    """Return a copy of a processor that has the record. The given processor does not change."""
    if record_in(processor) == record:
        return processor
    changed = copy.copy(processor)
    changed.image_processor = copy.copy(processor.image_processor)
    setattr(changed.image_processor, ENTRY, record.to_dict())
    return changed


def completed(processor: ProcessorMixin, source: str, max_text_length: int) -> ProcessorMixin:
    """Return a processor that has a record: its own, or else the [`checkpoint_record`] of the other arguments."""
    record = record_in(processor, source or "the processor")
    return with_record(processor, record or checkpoint_record(source, max_text_length))


def saved_record(source: str | Path) -> EncodingRecord | None:
    """Return the record that was saved with a checkpoint; None if there is none.

    It is in the processor, or in the [`STAGES_NAME`] of the run that trained the checkpoint.

    Args:
        source: a folder, or an id on the Hub.
    """
    try:
        values, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except UNREADABLE:  # there is no processor
        values = {}
    if values.get(ENTRY) is not None:
        return EncodingRecord.from_dict(values[ENTRY], str(source))
    return _trained_with(Path(source))


def checkpoint_record(source: str, max_text_length: int, usual: int = TEXT_LENGTH) -> EncodingRecord:
    """Return how a checkpoint's inputs are made: its [`saved_record`], or else what its kind implies, with a notice.

    Stock ViLT and original ViLT keep the aspect ratio of images, and take texts of `TEXT_LENGTH`. The other models of
    this project that were saved without a record make squares, and take texts of the usual length. No text is longer
    than the model takes.

    Args:
        source: a folder, or an id on the Hub; empty for a model that was never saved.
        max_text_length: tokens that the model takes.
        usual: tokens per text of a model of this project that was saved without a record.
    """
    if not source:
        return EncodingRecord(min(usual, max_text_length))
    record, keeps_shape = _folder_facts(source) if Path(source).is_dir() else _hub_facts(source)
    if record is None:
        record = EncodingRecord(
            min(TEXT_LENGTH if keeps_shape else usual, max_text_length), keep_aspect_ratio=keeps_shape
        )
        logger.warning_once(
            f"{source}: its processor does not say how inputs are made, because another library or an older version "
            f"saved it. So {record.in_words()}. To save this choice, or another one: "
            f"Encoder.from_pretrained({source!r}, max_text_length={record.max_text_length}, "
            f"keep_aspect_ratio={record.keep_aspect_ratio}).save_pretrained(FOLDER)"
        )
    return record


def _trained_with(folder: Path) -> EncodingRecord | None:
    """Return the record that older versions wrote only into the [`STAGES_NAME`] of a run.

    Raises:
        ValueError: the entry of the model is broken.
    """
    folder = folder.resolve()
    if folder.name.startswith(CHECKPOINT_PREFIX):
        folder = folder.parent
    path = folder.parent / STAGES_NAME
    if not path.is_file():
        return None
    entry = _object(read_object(path).get(folder.name), f"{path}: {folder.name}")
    data = _object(entry.get("data"), f"{path}: {folder.name}.data")
    values = {name: data[name] for name in ("max_text_length", "keep_aspect_ratio") if name in data}
    try:
        return EncodingRecord(**values) if values else None
    except ValueError as error:
        raise ValueError(f"{path}: {folder.name}.data.{error}") from error


def _object(value: Any, name: str) -> Mapping[str, Any]:
    """A JSON object, empty for null; raises `ValueError` for anything else."""
    if not isinstance(value, (Mapping, type(None))):
        raise ValueError(f"{name}={value!r}: must be a JSON object")
    return value or {}


def _folder_facts(source: str) -> tuple[EncodingRecord | None, bool]:
    """Return the [`saved_record`] of a checkpoint, and whether its kind keeps the aspect ratio.

    The second is False if the config cannot be read.
    """
    try:
        config, _ = PreTrainedConfig.get_config_dict(source)
    except UNREADABLE:  # the folder has been moved since the model was loaded
        config = {}
    is_original = config.get("text_layer_norm_eps") == ORIGINAL_TEXT_EPS and config.get("semantics") != "release"
    return saved_record(source), config.get("model_type") == ViltConfig.model_type or is_original


@cache
def _hub_facts(source: str) -> tuple[EncodingRecord | None, bool]:
    """As [`_folder_facts`], for a checkpoint on the Hub. The Hub is asked only once."""
    return _folder_facts(source)
