"""Converters: from original ViLT and METER, from the checkpoints released with PuMer, and from stock ViLT."""

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, ProcessorMixin

from ..configuration import PuMerConfig
from ..encoding import QUESTION_LENGTH, TEXT_LENGTH, EncodingRecord
from ..folders import whole_folder
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.families import FAMILIES, Family
from ..reading import read_json
from .configs import METADATA
from .keys import Renamed, mismatch
from .layouts import LAYOUTS, detect_kind, without_wrapper
from .processors import ProcessorPlan, make_processor
from .sources import Checkpoint, read_checkpoint
from .tasks import choose_task, label_names, ordered_labels, parse_task

__all__ = ["convert_checkpoint"]


def convert_checkpoint(
    source: str | Path,
    dest: str | Path,
    *,
    kind: str | None = None,
    task: str | None = None,
    image_size: int | None = None,
    processor: Any = None,
    config: PreTrainedConfig | Mapping[str, Any] | str | Path | None = None,
    fill_labels: bool = False,
) -> Path:
    """Turn a checkpoint of another format into a folder that the Auto classes and our own classes load.

    The folder gets the config, the weights (safetensors) and the processor. Every weight of the checkpoint must have a
    place in the model, and every weight of the model must get a value. Weights of the pretraining heads (`mlm_score`,
    `itm_score`, `mpp_score`) and parts that never run (CLIP's text tower, RoBERTa's pooler) are left out. No pickled
    code is run.

    Args:
        source: a Lightning file of original ViLT or METER; a folder, or the Hub id of one, released with PuMer or
            saved by transformers' ViLT; or a file with a state dict of any of them.
        dest: the folder to make; it must not exist, or be empty.
        kind: `"original_vilt"`, `"original_meter"`, `"released_vilt"`, `"released_meter"` or `"stock_vilt"`; default:
            what the names of the weights show.
        task: `"vqa"`, `"nlvr2"`, `"snli_ve"` or `"retrieval"`, or `"pretrain"` for the model without a head; default:
            that of the head. A pretrained checkpoint also converts to `"retrieval"`, with a head from its image-text
            matching, and to `"nlvr2"`, without a head but with the embedding of a second image.
        image_size: side of the images in pixels, or for original and stock ViLT their shorter edge; default: that of
            the checkpoint. METER's position embeddings are interpolated to it. ViLT interpolates at run time.
        processor: a processor or tokenizer, or the folder or Hub id of one; default: the tokenizer next to the
            checkpoint, else the one that it names. False saves no processor.
        config: fields of [`PuMerViltConfig`] or [`PuMerMeterConfig`] that the checkpoint does not have, such as
            `{"id2label": {0: "yes", 1: "no"}}`: a dict, with dicts in it for the towers, a config, or a JSON file.
        fill_labels: name a label `LABEL_<index>` if a file of labels has no name for its index, as ViLT's
            `vqa_dict.json` for 125; default: such a gap is an error.

    Returns:
        `dest`.

    Raises:
        ValueError: the checkpoint is unknown, unsafe or not complete, or an argument does not fit it.
    """
    destination = Path(dest).expanduser()
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(f"dest={str(dest)!r} exists and is not empty: choose another folder")
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size={image_size}: must be a number of pixels, a multiple of the patch size")
    asked, overrides = parse_task(task), parse_overrides(config)
    checkpoint = read_checkpoint(source)
    checkpoint = replace(checkpoint, weights=without_wrapper(checkpoint.weights))
    chosen_kind = (kind or detect_kind(list(checkpoint.weights))).replace("-", "_")
    if chosen_kind not in LAYOUTS:
        raise ValueError(f"kind={kind!r}: choose one of {', '.join(LAYOUTS)}")
    renamed = Renamed(checkpoint.weights, LAYOUTS[chosen_kind])
    task = choose_task(asked, renamed, checkpoint.config, checkpoint.weights)
    family = FAMILIES[renamed.layout.family]
    if task == "nlvr2":
        add_second_image(renamed, family)
    labels = label_names(task, renamed, checkpoint, overrides.get("id2label"), fill_labels)
    if labels is not None:
        overrides["id2label"] = labels
    model = build_model(checkpoint, renamed, family, task, image_size, overrides)
    plan = processor_plan(checkpoint, renamed, family, task, image_size, model.config)
    save(model, make_processor(processor, plan), destination)
    return destination


def parse_overrides(config: PreTrainedConfig | Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    """Return the `config` of [`convert_checkpoint`] as a dict."""
    if config is None:
        return {}
    if isinstance(config, (str, Path)):
        config = read_json(Path(config))
    if isinstance(config, PreTrainedConfig):
        return config_fields(config)
    if not isinstance(config, Mapping):
        raise ValueError(f"config={config!r}: give a dict, a config or a JSON file with a dict")
    return dict(config)


def config_fields(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the fields of a config object, without labels that have no name and without `num_images` of -1."""
    values = config.to_diff_dict()
    labels = values.get("id2label") or {}
    found = {name: value for name, value in values.items() if name not in METADATA}
    if labels != {index: f"LABEL_{index}" for index in labels}:
        found["id2label"] = labels
    if found.get("num_images") == -1:
        del found["num_images"]
    return found


def add_second_image(renamed: Renamed, family: Family) -> None:
    """Give a pretrained checkpoint a modality embedding for NLVR2's second image. METER also copies the first."""
    renamed.shape(family.modality_types)
    weight = renamed.backbone[family.modality_types]
    if weight.shape[0] == 2:
        renamed.backbone[family.modality_types] = torch.cat([weight, weight[1:]])


def build_config(
    checkpoint: Checkpoint,
    renamed: Renamed,
    family: Family,
    task: str,
    image_size: int | None,
    overrides: Mapping[str, Any],
) -> PuMerConfig:
    """Make the config from the checkpoint and the overrides of the user."""
    values = renamed.layout.config_values(renamed, checkpoint.config, task)
    refuse_unknown(overrides, values, family.config_class)
    values = merged(values, overrides)
    if "id2label" in values:
        names = ordered_labels(values["id2label"], "id2label")
        values["id2label"] = dict(enumerate(names))
        values["label2id"] = {name: index for index, name in enumerate(names)}
    if renamed.layout.resize is not None and image_size is not None:
        values["image_size"] = image_size
    for part in ("", "text_config", "vision_config"):
        heads = values.get(part, {}) if part else values
        if "num_attention_heads" in heads and heads["num_attention_heads"] is None:
            name = f"{part}.num_attention_heads".lstrip(".")
            raise ValueError(f"the checkpoint does not tell {name}: give it in config= (--config)")
    return family.config_class(**values)


def refuse_unknown(overrides: Mapping[str, Any], values: Mapping[str, Any], config_class: Any) -> None:
    """Raise `ValueError` if the user gives a field that neither the config class nor the checkpoint knows."""
    towers = {name: tower for name, tower in config_class.sub_configs.items() if name in overrides}
    parts = {"": config_class, **towers}
    for part, owner in parts.items():
        given, told = (overrides[part], values[part]) if part else (overrides, values)
        if not isinstance(given, Mapping):
            raise ValueError(f"config.{part}={given!r}: give a dict")
        known = {field.name for field in fields(owner)} | set(told) | {*METADATA, "output_attentions"}
        unknown = sorted(set(given) - known)
        if unknown:
            raise ValueError(f"config.{f'{part}.{unknown[0]}'.lstrip('.')} is no field of {owner.__name__}")


def merged(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with `overrides`, also inside the configs of the towers."""
    towers = {
        name: {**values[name], **overrides[name]} for name in ("text_config", "vision_config") if name in overrides
    }
    return {**values, **overrides, **towers}


def build_model(
    checkpoint: Checkpoint,
    renamed: Renamed,
    family: Family,
    task: str,
    image_size: int | None,
    overrides: Mapping[str, Any],
) -> PuMerPreTrainedModel:
    """Make our model with the weights of the checkpoint. Raise `ValueError` if they do not fit exactly."""
    config = build_config(checkpoint, renamed, family, task, image_size, overrides)
    if renamed.layout.resize is not None:
        renamed.layout.resize(renamed, config)
    head = renamed.heads.get(task, {})
    with torch.device("meta"):
        model = (family.model_for(task) if head else family.base_class)(config)
    prefix = f"{model.base_model_prefix}." if head else ""
    weights = {**{f"{prefix}{name}": value for name, value in renamed.backbone.items()}, **head}
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}

    def source_name(name: str) -> str:
        return renamed.source_name(name.removeprefix(prefix), task)

    left_over = renamed.left_over + [source_name(name) for name in weights if name not in wanted]
    missing = [source_name(name) for name in wanted if name not in weights]
    misshapen = [
        f"{source_name(name)} (for {name}: {tuple(weights[name].shape)}, expected {shape})"
        for name, shape in wanted.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if left_over or missing or misshapen:
        raise mismatch(left_over, missing, misshapen)
    model.load_state_dict(weights, strict=True, assign=True)
    return model.to(reduce(torch.promote_types, {value.dtype for value in weights.values()}))


def processor_plan(
    checkpoint: Checkpoint, renamed: Renamed, family: Family, task: str, image_size: int | None, config: Any
) -> ProcessorPlan:
    """Return what the checkpoint says about its processor."""
    patch_size, _ = family.patch_size(config)
    side = image_size or config.image_size
    if side % patch_size:
        raise ValueError(f"image_size={side} is not a multiple of the patch size {patch_size}")
    return ProcessorPlan(
        processor_class=family.processor_class,
        image_processor=renamed.layout.image_processor,
        task=task,
        image_size=side,
        patch_size=patch_size,
        resized=image_size is not None,
        tokenizer=checkpoint.config.get("tokenizer") or family.tokenizer,
        vocab_size=config.get_text_config().vocab_size,
        max_text_length=config.max_text_length,
        record=encoding_record(checkpoint, renamed, task, config.max_text_length),
        folder=checkpoint.folder,
    )


def encoding_record(checkpoint: Checkpoint, renamed: Renamed, task: str, longest: int) -> EncodingRecord:
    """Return how the inputs of a checkpoint were made in its training.

    Original and stock ViLT keep the aspect ratio of images. An original checkpoint says its length of texts. For a
    released one it is the length in the commands of PuMer's release.

    Args:
        checkpoint: the source.
        renamed: its weights.
        task: `"vqa"` or another task.
        longest: how many tokens the model takes.
    """
    origin = renamed.layout.origin
    length = TEXT_LENGTH
    if origin == "original":
        length = int(checkpoint.config.get("max_text_len", TEXT_LENGTH))
    elif origin == "released" and task == "vqa":
        length = QUESTION_LENGTH
    keeps_shape = origin != "released"  # unless the processor makes squares, as METER's does
    filter_name = "bilinear" if origin == "released" else "bicubic"
    return EncodingRecord(min(length, longest), keep_aspect_ratio=keeps_shape, resample=filter_name)


def save(model: PuMerPreTrainedModel, processor: ProcessorMixin | None, dest: Path) -> None:
    """Write the folder `dest` whole or not at all."""
    with whole_folder(dest) as folder:
        model.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)
