"""What a recipe of a decoder model does in another way than that of an encoder.

A decoder answers in words, so there are no labels, and its answers are generated for the evaluation. The prompts, the
model from scratch, the speed and the picture differ too. All else is what the recipes of encoders do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

from datasets import Dataset
from torch import Tensor

from ..data.chat import ChatCollator, images_of
from ..data.several_questions import GroupedRows, SeveralQuestionsCollator
from ..data.task import Task, TaskData
from ..data.vqa import VQA, VqaDataArguments, load_questions
from ..explain.decoder_report import explain_question
from ..hub.card import PICTURE_NAME
from ..models.decoders.modeling import ReducedDecoder
from ..results import PERCENT, MetricType
from .generating import Generated, evaluate_answers, generated_answers
from .recipe import Recipe, RecipeTrainingArguments

FOR_ENCODERS = (
    *("max_text_length", "keep_aspect_ratio", "rand_augment", "image_saliency"),
    *("min_answer_count", "answer_counting", "unknown_answers"),
)
"""Fields of the `data` block that decoder models do not have. The processor decides about text and images, and there
are no labels."""


@dataclass
class QuestionCollator(ChatCollator):
    """The [`ChatCollator`] of a recipe, whose batches have answers. Those of [`for_benchmark`] have prompts alone."""

    texts_match: ClassVar[bool] = True
    is_random: ClassVar[bool] = False
    image_saliency: ClassVar[bool] = False
    labels: ClassVar[tuple[str, ...]] = ()

    with_answers: bool = True

    def for_benchmark(self) -> "QuestionCollator":
        """Return the collator of prompts, for the evaluation and for measuring speed."""
        return replace(self, with_answers=False)

    def texts(self, row: dict[str, Any]) -> str:
        """The text of a row."""
        return row["question"]


def decoder_task(task: Task, backbone: str) -> Task:
    """Return the task as a decoder does it.

    Raises:
        ValueError: it has no answers in words.
    """
    if task.name != VQA.name:
        raise ValueError(
            f"model.backbone={backbone!r}: decoder models answer questions, so they are for the task {VQA.name}, and "
            f"not for {task.name}"
        )
    return replace(
        task,
        load=lambda args, labels: load_questions(args),
        collator=lambda processor, data, args, training: cast(Any, QuestionCollator(processor)),
        texts=question_and_answers,
        metrics=lambda dataset, labels: cast(Any, None),  # during the training there is the loss alone
        metric_types=dict.fromkeys(("accuracy", "exact_match", "vqa_accuracy", "ended"), PERCENT) | LOSS,
        best_metric=next(iter(LOSS)),
        evaluate=cast(Any, evaluate_decoder),
    )


LOSS = {"loss": MetricType("", higher_is_better=False)}
"""The metric by which the best checkpoint of a decoder is chosen."""


def question_and_answers(rows: Dataset) -> list[str]:
    """Return all texts of a dataset."""
    return [*rows["question"], *(answer for answers in rows["answers"] for answer in answers)]


def evaluate_decoder(
    args: RecipeTrainingArguments, model: ReducedDecoder, rows: Dataset, collator: QuestionCollator
) -> dict[str, Any]:
    """Return the scores of the answers that a model generates to the questions of rows ([`evaluate_answers`])."""
    return evaluate_answers(decoder_answers(args, model, rows, collator), rows)


def decoder_answers(
    args: RecipeTrainingArguments, model: ReducedDecoder, rows: Dataset, collator: QuestionCollator
) -> list[Generated]:
    """Return the answers that a model generates to the questions of rows, as the training arguments say."""
    return generated_answers(
        model.to(args.device),
        collator.for_benchmark(),
        rows,
        batch_size=args.per_device_eval_batch_size,
        max_new_tokens=args.max_new_tokens,
        show=not args.disable_tqdm,
        precision=args.autocast(),
    )


def check_decoder_recipe(recipe: Recipe) -> None:
    """Raise `ValueError` if a recipe asks for what decoder models do not have. It needs no data."""
    defaults = VqaDataArguments.__dataclass_fields__
    for name in FOR_ENCODERS:
        value = getattr(recipe.data, name)
        if value != defaults[name].default:
            raise ValueError(f"data.{name}={value!r}: is for encoder models: leave it out")
    for name in ("pretraining", "reducer_training"):
        if getattr(recipe.training, name) is not None:
            raise ValueError(f"training.{name}: is for encoder models: leave it out")
    if recipe.has_student and recipe.stage("student").questions_per_image > 1:
        raise ValueError(
            f"training.questions_per_image={recipe.training.questions_per_image}: a student reads one question per "
            "image, since each question keeps other image tokens: set it in teacher_training alone"
        )
    teacher = recipe.stage("teacher")
    if teacher.questions_per_image > 1 and (teacher.max_steps <= 0 or recipe.data.streaming):
        raise ValueError(
            f"training.questions_per_image={teacher.questions_per_image}: how many rows have one image is not known "
            "in advance: give max_steps, and leave data.streaming out"
        )


def training_rows(data: TaskData, collator: QuestionCollator, questions_per_image: int) -> tuple[Any, Any]:
    """Return the training data and their collator: single rows, or rows with several questions about their image."""
    if questions_per_image == 1:
        return data.train, collator
    return GroupedRows(data.train, questions_per_image), SeveralQuestionsCollator(collator)


def prefill_inputs(prompts: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the inputs of the prefill of prompts, as `generate` runs it: up to the logits of the next token.

    The first one has a row for each prompt.
    """
    return {"input_ids": prompts["input_ids"], **prompts, "logits_to_keep": 1}


def draw_decoder(
    args: RecipeTrainingArguments, model: ReducedDecoder, collator: QuestionCollator, row: Any, folder: str
) -> None:
    """Save a picture of what a model keeps of a row, for its card, if the image tokens of its family can be drawn."""
    if model.family.grids is None:
        return
    picture, _ = explain_question(
        model, collator.processor, images_of(row)[0], row["question"], max_new_tokens=args.max_new_tokens
    )
    picture.save(Path(folder) / PICTURE_NAME)
