"""Functions that load a saved model, with any head, and its processor."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoProcessor, PreTrainedConfig, ProcessorMixin
from transformers.integrations import is_deepspeed_zero3_enabled

from ..configuration import PuMerConfig
from ..encoding import completed
from ..reading import check_model_files, one_line
from .encoders.base import PuMerPreTrainedModel
from .families import FAMILIES, family_of, task_of

SAVED = "saved"
"""The value of `reduction` in [`load_checkpoint`] that keeps the schedule of the checkpoint."""


def fitting_schedule(model: PuMerPreTrainedModel) -> dict[str, Any]:
    """Return the paper's schedule for the family and the head of a model, on its layers ([`schedule_of`])."""
    presets, task = family_of(model.config.model_type).presets, task_of(type(model).__name__)
    return schedule_of(model.config, task if task is not None and task in presets else next(iter(presets)))


def schedule_of(config: PuMerConfig, task: str) -> dict[str, Any]:
    """Return the paper's schedule for the family of a config and a task (`"vqa"`), on the layers that the model has.

    In a model of another depth than the family's default, the layers are those at the same part of the depth.

    Raises:
        ValueError: the paper has no schedule for this task.
    """
    family = family_of(config.model_type)
    if task not in family.presets:
        raise ValueError(
            f"task={task!r}: {family.title} has presets for {', '.join(family.presets)} alone: give a schedule"
        )
    schedule = family.presets[task]
    depth, usual = config.num_reducible_layers, type(config)().num_reducible_layers
    layers = sorted({layer * depth // usual for layer in schedule.layers})
    return replace(schedule, layers=tuple(layers)).to_dict()


def unreduced_error(model: PuMerPreTrainedModel, source: str | None = None) -> ValueError:
    """Return the error of a command that needs a reduction. It proposes a schedule that fits the model.

    Args:
        model: a model that reduces no tokens.
        source: the user's name for it; default: where it was loaded from, else its class.
    """
    return ValueError(
        f"{source or model.name_or_path or type(model).__name__}: the model reduces no tokens (config.reduction is "
        f"None): give a schedule, such as --reduction '{json.dumps(fitting_schedule(model))}'"
    )


def load_checkpoint(source: str, reduction: Any = SAVED) -> tuple[PuMerPreTrainedModel, ProcessorMixin]:
    """Load a saved model and its processor; see [`load_checkpoint_model`] and [`load_processor`]."""
    model = load_checkpoint_model(source, reduction)
    return model, load_processor(source, model.config.max_text_length)


def load_processor(source: str, max_text_length: int) -> ProcessorMixin:
    """Load the processor of a saved model. It says how inputs are made ([`EncodingRecord`]).

    Args:
        source: a folder, or an id on the Hub.
        max_text_length: how many tokens the model takes, for a processor that was saved without such a record.

    Raises:
        ValueError: there is no processor.
    """
    with naming(repr(source), source, "processor"):
        # Code of the checkpoint is never needed: this package has all of it.
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
    return completed(processor, source, max_text_length)


def load_config(source: str) -> PuMerConfig:
    """Load the config of a saved model of any family, from a folder or from the Hub."""
    config = saved_config(source)
    return model_class(config, source).config_class.from_dict(config)


def load_checkpoint_model(source: str, reduction: Any = SAVED) -> PuMerPreTrainedModel:
    """Load a saved model of any family with its head, in eval mode, on a GPU if there is one.

    Stock ViLT checkpoints are read too.

    Args:
        source: a folder, or an id on the Hub.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.

    Raises:
        ValueError: there is no such checkpoint, or it is of no known family, or a file is broken or cut short.
    """
    overrides = {} if isinstance(reduction, str) and reduction == SAVED else {"reduction": reduction}
    model = load_whole(model_class(saved_config(source), source), source, **overrides)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def saved_config(source: str, name: str | None = None) -> dict[str, Any]:
    """Read the `config.json` of a saved model. The other files of a folder are checked too.

    Args:
        source: a folder, or an id on the Hub.
        name: its name in messages, such as `"model.teacher='x'"`; default: the source.

    Raises:
        ValueError: there is no such model, or a file of it is broken or cut short.
    """
    name = name or repr(source)
    if Path(source).is_dir():
        check_model_files(Path(source))
    with naming(name, source, "model"):
        config, _ = PreTrainedConfig.get_config_dict(source)
    if not config:
        raise ValueError(f"{name} has no config.json: give a folder that save_pretrained made, or a Hub id")
    return config


def load_whole(
    model_class: type[PuMerPreTrainedModel], source: str, name: str | None = None, **overrides: Any
) -> PuMerPreTrainedModel:
    """Load a model from a checkpoint that holds all of its weights.

    Args:
        model_class: the class to make.
        source: a folder, or an id on the Hub.
        name: as in [`saved_config`].
        **overrides: fields of the config.

    Raises:
        ValueError: weights are missing, or do not have the shapes that the config says.
    """
    name = name or repr(source)
    with naming(name, source, "model"):
        # ZeRO-3 splits the weights between processes, so no weight has its full shape.
        model, found = model_class.from_pretrained(
            source, **overrides, output_loading_info=True, ignore_mismatched_sizes=not is_deepspeed_zero3_enabled()
        )
    check_loaded(found, name)
    return model


def check_loaded(found: dict[str, Any], name: str) -> None:
    """Raise `ValueError` if weights are missing, or do not have the shapes that the config says.

    Args:
        found: what `from_pretrained(..., output_loading_info=True)` returns next to the model.
        name: the name of the checkpoint, for the message.
    """
    # A checkpoint that was trained without a method lacks what the method learns.
    missing = sorted(name for name in found["missing_keys"] if "reducer." not in name)
    problems = {"without": missing, "of another shape:": sorted(str(item[0]) for item in found["mismatched_keys"])}
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(
                f"{name}: the weights do not fit its config.json, they are {problem} {', '.join(names[:3])}{more}"
            )


@contextmanager
def naming(name: str, source: str, part: str) -> Iterator[None]:
    """Turn an error of loading into a `ValueError` that names the checkpoint, and what is wrong with it.

    Args:
        name: the name of the checkpoint in messages.
        source: a folder, or an id on the Hub.
        part: what is loaded, `"model"` or `"processor"`.
    """
    try:
        yield
    except (OSError, HFValidationError) as error:
        if part == "processor" and Path(source).is_dir():
            raise ValueError(
                f"{name}: there is no processor in this folder. Add the processor of the model it was trained from: "
                f"`AutoProcessor.from_pretrained(MODEL).save_pretrained({source!r})` ({one_line(error)})"
            ) from error
        where = "in this folder" if Path(source).is_dir() else "here or on the Hub"
        raise ValueError(
            f"{name}: there is no {part} {where}, give another folder or Hub id: {one_line(error)}"
        ) from error
    except StrictDataclassError as error:
        raise ValueError(f"{name}: its config.json is wrong: {one_line(error)}") from error
    except SafetensorError as error:  # from the Hub: the files of a folder have been checked
        raise ValueError(f"{name}: its weights are broken or cut short, download them again: {error}") from error


def model_class(config: dict[str, Any], source: str) -> type[PuMerPreTrainedModel]:
    """Return the class for a checkpoint, from its `config.json`."""
    name = (config.get("architectures") or [""])[0]
    for family in FAMILIES.values():
        if name in family.model_classes:
            return family.model_classes[name]
    titles = " nor a ".join([family.title for family in FAMILIES.values() if family.stock_type] + ["PuMer"])
    raise ValueError(
        f"{source!r}: architectures={config.get('architectures')} in its config.json is neither a {titles} model; "
        "`pumer-hf convert` reads older checkpoints"
    )
