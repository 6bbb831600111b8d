"""Models and processors for a recipe."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import AutoProcessor, ProcessorMixin
from transformers.integrations import is_deepspeed_zero3_enabled

from ..data.task import Task
from ..data.vqa import VQA
from ..encoding import EncodingRecord, with_record
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.families import FAMILIES, family_of
from ..models.loading import load_whole, naming, saved_config
from ..reducers import AnyReduction, PlainSchedule
from .recipe import ModelArguments


def trained_backbone(flag: str, source: str, task: Task | None = None) -> tuple[str, dict[str, Any]]:
    """Return the backbone and the config of a saved model.

    Args:
        flag: the name of the argument with the model, for messages: `"model.teacher"`.
        source: a folder or an id on the Hub.
        task: the task whose head the model must have; None: any head.

    Raises:
        ValueError: there is no such model, or it is of another kind.
    """
    config = saved_config(source, f"{flag}={source!r}")
    family = family_of(config.get("model_type"), f"{flag}={source!r}, config.json")
    name = (config.get("architectures") or ["unknown"])[0]
    if task is not None and family.model_classes.get(name) is not family.model_for(task.head):
        raise ValueError(
            f"{flag}={source!r}: its class is {name}, but the task {task.name} needs a trained model with the head of "
            f"{family.model_for(task.head).__name__}"
        )
    return family.name, config


def check_sources(args: ModelArguments, task: Task) -> None:
    """Raise `ValueError` if the teacher or the checkpoint of a recipe cannot be used. Only their configs are read."""
    for name, source, needed in (("teacher", args.teacher, task), ("checkpoint", args.checkpoint, None)):
        if source is not None:
            backbone, _ = trained_backbone(f"model.{name}", source, needed)
            if backbone != args.backbone:
                raise ValueError(f"model.backbone={args.backbone!r}: model.{name}={source!r} is a model of {backbone}")


def teacher_labels(args: ModelArguments) -> list[str] | None:
    """Return the labels of a finetuned teacher, in order; None if the recipe trains its own teacher."""
    if args.teacher is None:
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
) -> tuple[PuMerPreTrainedModel, ProcessorMixin]:
    """Return the unreduced model: finetuned (`args.teacher`), pretrained (`args.checkpoint`) or new (`args.config`).

    Args:
        args: the `model` block.
        labels: classes or answers, in the order of the logits; none for retrieval.
        texts: the training texts. A model from scratch gets its vocabulary from them.
        max_text_length: tokens per text.
        task: the task that the head is for.
    """
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


def load_model(source: str, reduction: AnyReduction, task: Task = VQA, *, flag: str = "model") -> PuMerPreTrainedModel:
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
    model = load_whole(FAMILIES[backbone].model_for(task.head), source, f"{flag}={source!r}", reduction=reduction)
    if is_deepspeed_zero3_enabled():
        # Otherwise transformers 5.23 renames weights back as in old checkpoints, and saves `LayerNorm.gamma`.
        model._weight_conversions = None
    return for_task(model, task)


def saved_reduction(role: str, folder: str) -> PlainSchedule | None:
    """Return the reduction of a trained model: None for a teacher, which may have come with one."""
    return None if role == "teacher" else saved_config(folder).get("reduction")
