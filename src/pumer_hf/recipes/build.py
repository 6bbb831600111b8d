"""Models and processors for a recipe."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import AutoProcessor, ProcessorMixin
from transformers.integrations import is_deepspeed_zero3_enabled

from ..data.task import Task
from ..data.vqa import VQA
from ..encoding import EncodingRecord, with_record
from ..models.decoder_loading import find_decoder, load_decoder
from ..models.decoders.modeling import ReducedDecoder
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.families import DECODERS, FAMILIES, family_of
from ..models.loading import load_whole, naming, saved_config
from ..reducers import AnyReduction, PlainSchedule
from .recipe import ModelArguments
from .small_llava import new_llava, resize_llava

FROM_SCRATCH = "llava"
"""The family of decoders of which a small model can be made from scratch."""
CONFIGS = ("vision_config", "text_config")
"""The fields of `model.config` of such a model."""


def trained_backbone(flag: str, source: str, task: Task | None = None) -> tuple[str, dict[str, Any]]:
    """Return the backbone and the config of a saved model.

    Args:
        flag: the name of the argument with the model, for messages: `"model.teacher"`.
        source: a folder or an id on the Hub.
        task: the task whose head the model must have; None: any head. Decoders have no heads.

    Raises:
        ValueError: there is no such model, or it is of another kind.
    """
    config = saved_config(source, f"{flag}={source!r}")
    decoder = find_decoder(config)
    if decoder is not None:
        return decoder.name, config
    family = family_of(config.get("model_type"), f"{flag}={source!r}, config.json")
    name = (config.get("architectures") or ["unknown"])[0]
    if task is not None and family.model_classes.get(name) is not family.model_for(task.head):
        raise ValueError(
            f"{flag}={source!r}: its class is {name}, but the task {task.name} needs a trained model with the head of "
            f"{family.model_for(task.head).__name__}"
        )
    return family.name, config


def check_sources(args: ModelArguments, task: Task) -> None:
    """Raise `ValueError` if the teacher of a recipe cannot be used, or, without one, the checkpoint.

    Only the config is read.
    """
    checkpoint = args.checkpoint if args.teacher is None else None
    for name, source, needed in (("teacher", args.teacher, task), ("checkpoint", checkpoint, None)):
        if source is not None:
            backbone, _ = trained_backbone(f"model.{name}", source, needed)
            if backbone != args.backbone:
                raise ValueError(f"model.backbone={args.backbone!r}: model.{name}={source!r} is a model of {backbone}")


def teacher_labels(args: ModelArguments) -> list[str] | None:
    """Return the labels of a finetuned teacher, in order; None if there are none, or the recipe trains its teacher."""
    if args.teacher is None or args.is_decoder:
        return None
    with naming(f"model.teacher={args.teacher!r}", args.teacher, "model"):
        names = FAMILIES[args.backbone].config_class.from_pretrained(args.teacher).id2label
    return [names[index] for index in range(len(names))]


def build_teacher(
    args: ModelArguments,
    labels: Sequence[str],
    texts: Sequence[str],
    max_text_length: int,
    task: Task = VQA,
) -> tuple[Any, ProcessorMixin]:
    """Return the unreduced model: finetuned (`args.teacher`), pretrained (`args.checkpoint`) or new (`args.config`).

    Args:
        args: the `model` block.
        labels: classes or answers, in the order of the logits; none for retrieval.
        texts: the training texts. A model from scratch gets its vocabulary from them.
        max_text_length: tokens per text.
        task: the task that the head is for.
    """
    if args.is_decoder:
        return build_decoder(args, texts)
    family = FAMILIES[args.backbone]
    names: dict[str, Any] = dict(task.model_config)
    if labels:
        names |= {"id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}
    head = family.model_for(task.head)
    if args.teacher is not None:
        model = load_model(args.teacher, None, task, flag="model.teacher")
        return model, saved_processor("model.teacher", args.teacher)
    if args.checkpoint is not None:
        name = f"model.checkpoint={args.checkpoint!r}"
        with naming(name, args.checkpoint, "model"):
            model = head.from_pretrained(args.checkpoint, reduction=None, **names, ignore_mismatched_sizes=True)
        if "modality_type_vocab_size" in task.model_config:
            pretrained = load_whole(family.base_class, args.checkpoint, name, reduction=None)
            copy_modality_types(model, pretrained, family.modality_types)
        return for_task(model, task), saved_processor("model.checkpoint", args.checkpoint)
    config = family.config_class(**{**cast(dict, args.config or {}), **names})
    processor = family.new_processor(config, texts, max_text_length, args.image_mean, args.image_std)
    return for_task(head(config), task), with_record(processor, EncodingRecord(max_text_length))


def build_decoder(args: ModelArguments, texts: Sequence[str]) -> tuple[ReducedDecoder, ProcessorMixin]:
    """Return the unreduced decoder model of the `model` block, and its processor.

    Args:
        args: the `model` block. The `config` of a small LLaVA from scratch has the configs of its two parts.
        texts: questions and answers. The vocabulary of a model from scratch has their words.

    Raises:
        ValueError: there is no such model, or it cannot start from scratch.
    """
    if args.teacher is not None:
        return load_decoder(args.teacher, reduction=None), saved_processor("model.teacher", args.teacher)
    if args.checkpoint is None:
        return small_decoder(args, texts)
    model = load_decoder(args.checkpoint, reduction=None)
    processor = saved_processor("model.checkpoint", args.checkpoint)
    if args.checkpoint_image_size is not None:
        resize_llava(cast(Any, model), cast(Any, processor), args.checkpoint_image_size)
    return model, processor


def small_decoder(args: ModelArguments, texts: Sequence[str]) -> tuple[ReducedDecoder, ProcessorMixin]:
    """Make a small LLaVA with random weights ([`new_llava`]), as our class of it."""
    config = cast("dict[str, Any]", args.config or {})
    if args.backbone != FROM_SCRATCH or set(config) != set(CONFIGS):
        raise ValueError(
            f"model.config={args.config}: a decoder starts from a model.checkpoint or model.teacher; only a small "
            f"{FROM_SCRATCH} can start from scratch, and its config has the fields {' and '.join(CONFIGS)}"
        )
    vision, text = (config[name] for name in CONFIGS)
    stock, processor = new_llava(vision, text, texts, args.image_mean, args.image_std)
    row = DECODERS[FROM_SCRATCH]
    values = {name: value for name, value in stock.config.to_dict().items() if name != "model_type"}
    model: Any = row.model_class(row.config_class(**values))
    model.load_state_dict(stock.state_dict())
    return model, processor


def for_task(model: PuMerPreTrainedModel, task: Task) -> PuMerPreTrainedModel:
    """The model, whose config names the task if its head is called otherwise."""
    model.config.task = None if task.name == task.head else task.name
    return model


def saved_processor(flag: str, source: str) -> ProcessorMixin:
    """Return the processor of a saved model, as it was saved: one without a record gets none. `flag`: see
    [`trained_backbone`].
    """
    with naming(f"{flag}={source!r}", source, "processor"):
        return AutoProcessor.from_pretrained(source, trust_remote_code=False)


@torch.no_grad()
def copy_modality_types(model: PuMerPreTrainedModel, pretrained: PuMerPreTrainedModel, name: str) -> None:
    """Copy the modality embeddings of a pretrained model to a model with more images per text.

    Each further image gets the embedding of the first one, as ViLT and METER do for NLVR2.

    Args:
        model: the model to change.
        pretrained: the pretrained model, without a head.
        name: the name of the embedding weights in `pretrained`.
    """
    weights, values = model.base_model.state_dict()[name], pretrained.state_dict()[name]
    weights[: len(values)] = values
    weights[len(values) :] = values[-1]


def load_model(source: str, reduction: AnyReduction, task: Task = VQA, *, flag: str = "model") -> Any:
    """Load a model that was trained for a task, of any family, with the reduction that is given.

    Args:
        source: a folder or an id on the Hub.
        reduction: the schedule, or None.
        task: the task whose head the model must have.
        flag: the name of the argument with the model, for messages.

    Raises:
        ValueError: there is no such model, or it has another head.
    """
    backbone, _ = trained_backbone(flag, source, task)
    if backbone in DECODERS:
        return load_decoder(source, reduction)
    model = load_whole(FAMILIES[backbone].model_for(task.head), source, f"{flag}={source!r}", reduction=reduction)
    if is_deepspeed_zero3_enabled():
        # Otherwise transformers 5.23 renames weights back as in old checkpoints, and saves `LayerNorm.gamma`.
        model._weight_conversions = None
    return for_task(model, task)


def saved_reduction(role: str, folder: str) -> PlainSchedule | None:
    """Return the reduction of a trained model: None for a teacher, which may have come with one."""
    return None if role == "teacher" else saved_config(folder).get("reduction")
