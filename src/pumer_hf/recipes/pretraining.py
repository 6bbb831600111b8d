"""The stage before the teacher, for tasks that are too hard to learn from scratch: questions about digit scenes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from transformers import set_seed

from ..data.arguments import SCENES, DataArguments
from ..data.vqa import VQA, VqaDataArguments
from .build import build_teacher
from .program import exit_on_user_error
from .recipe import ModelArguments, Recipe
from .record import begin_stage, made_from, without_student
from .stages import train_stage

QUESTION_KINDS = ["digit_by_colour", "colour_of_digit", "absent"]
"""The kinds of questions. Each has many answers and is about one digit. So even a model from scratch learns digits and
colours, and what is not there.
"""


def pretrain(recipe: Recipe, texts: list[str], lengths: Mapping[str, str] | None = None) -> ModelArguments:
    """Train a model from scratch on questions about digit scenes, if `training.pretraining` is given.

    ViLT and METER are pretrained too. A model from scratch learns too little from statements that are only true or
    false.

    Args:
        recipe: the recipe of the task. Pretraining has the same scenes and the same text length.
        texts: the training texts of the task, which the vocabulary has to cover.
        lengths: see [`TimeLeftCallback`].

    Returns:
        The `model` block, with the pretrained model as `checkpoint` if there was a pretraining.
    """
    if not is_pretrained(recipe):
        return recipe.model
    args = recipe.stage("pretraining")
    args.push_to_hub = False  # the repository is the student's
    # Smoothing is for classes, which the labels of the task may be, but not those of questions.
    args.label_smoothing_factor = cast(dict, recipe.training.pretraining).get("label_smoothing_factor", 0.0)
    questions = question_arguments(recipe.data)
    data = VQA.load(questions, None)
    texts = [*texts, *VQA.texts(data.train)]
    set_seed(args.seed)
    model, processor = build_teacher(recipe.model, data.labels, texts, recipe.data.max_text_length)
    with exit_on_user_error():
        begin_stage(args, without_student(made_from(replace(recipe, data=questions), data, processor)))
    collator = VQA.collator(processor, data, questions, True)
    train_stage(
        args,
        model,
        train=data.train,
        validation=data.validation,
        collator=collator,
        eval_collator=VQA.collator(processor, data, questions, False),
        processor=collator.encoder.processor,
        compute_metrics=VQA.metrics(data.validation, data.labels),
        lengths=lengths,
    )
    return replace(recipe.model, checkpoint=args.output_dir, config=None)


def is_pretrained(recipe: Recipe) -> bool:
    """Whether a run has the stage of pretraining, which is for models from scratch on digit scenes."""
    exists = recipe.model.teacher or recipe.model.checkpoint or recipe.data.is_own
    return recipe.training.pretraining is not None and not exists


def question_arguments(args: DataArguments) -> VqaDataArguments:
    """Return the `data` block for questions about the scenes of another task."""
    names = (*SCENES, "max_text_length", "keep_aspect_ratio", "rand_augment")
    values: dict[str, Any] = {name: getattr(args, name) for name in names}
    return VqaDataArguments(**values, question_kinds=QUESTION_KINDS, unknown_answers="ignore")
