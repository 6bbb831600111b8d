"""A saved model and its processor, whatever head it has."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from transformers import AutoProcessor, PreTrainedConfig, ProcessorMixin

from . import meter, vilt
from .base import PuMerPreTrainedModel

SAVED = "saved"
"""`reduction` of [`load_checkpoint`]: as the checkpoint says."""
UNREDUCED = (
    "the model reduces no tokens (config.reduction is None): give a schedule, such as --reduction "
    '\'{"method": "pumer", "layers": [2, 5, 8], "prune_ratio": 0.1, "image_merge_ratio": 0.3, '
    '"text_merge_ratio": 0.2}\''
)
"""The error of commands that need a reduction."""


def load_checkpoint(source: str, reduction: Any = SAVED) -> tuple[PuMerPreTrainedModel, ProcessorMixin]:
    """A saved model and its processor; see [`load_checkpoint_model`]."""
    model = load_checkpoint_model(source, reduction)
    with _naming(source, "processor"):
        return model, AutoProcessor.from_pretrained(source)


def load_checkpoint_model(source: str, reduction: Any = SAVED) -> PuMerPreTrainedModel:
    """A saved model of either family, with the head that it was saved with, in eval mode, on a GPU if there is one.
    Reads stock ViLT checkpoints too.

    Args:
        source: a folder, or an id on the Hub.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.

    Raises:
        ValueError: there is no such checkpoint, or it is none of ours.
    """
    overrides = {} if isinstance(reduction, str) and reduction == SAVED else {"reduction": reduction}
    with _naming(source, "model"):
        config, _ = PreTrainedConfig.get_config_dict(source)
        if not config:
            raise ValueError(f"{source!r} has no config.json: give a folder that save_pretrained made, or a Hub id")
        model = model_class(config, source).from_pretrained(source, **overrides)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


@contextmanager
def _naming(source: str, part: str) -> Iterator[None]:
    """Say which checkpoint lacks what."""
    try:
        yield
    except (OSError, HFValidationError) as error:
        where = "in this folder" if Path(source).is_dir() else "here or on the Hub"
        raise ValueError(f"{source!r}: there is no {part} {where}: {error}") from error


def model_class(config: dict[str, Any], source: str) -> type[PuMerPreTrainedModel]:
    """The class for a checkpoint, from its `config.json`."""
    name = (config.get("architectures") or [""])[0]
    for family in (vilt, meter):
        found = getattr(family, name if name.startswith("PuMer") else f"PuMer{name}", None)
        if isinstance(found, type) and issubclass(found, PuMerPreTrainedModel):
            return found
    raise ValueError(
        f"{source!r}: architectures={config.get('architectures')} in its config.json is neither a ViLT nor a PuMer "
        "model; `pumer-hf convert` reads older checkpoints"
    )
