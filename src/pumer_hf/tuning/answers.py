"""The rows on which schedules are compared, and the answers of a model to them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from ..data.columns import answers_of, image_of, text_of
from ..data.files import read_vqa_files
from ..data.hub import load_hub_split
from ..data.pairs import SCENES, json_objects, read_pairs
from ..data.scenes.digits import CELL_SIZE, SETTINGS
from ..data.vqa import VQA, VqaCollator, VqaDataArguments, drop_unknown, scene_questions
from ..inputs import Encoder
from ..metrics.vqa import example_scores, normalize_answer
from ..models.bases import base_of
from ..models.families import task_of
from ..recipes.decoders import QuestionCollator
from ..recipes.generating import evaluate_answers, generated_answers
from .options import TuneOptions
from .subjects import DecoderSubject, Subject

BATCH_SIZE = 32
"""Rows per forward of the evaluation."""
MAX_NEW_TOKENS = 16
"""The longest answer of a decoder, in tokens."""
QUESTIONS_PER_SCENE = 4


@dataclass(frozen=True)
class Answers:
    """What a model answers to the rows."""

    given: tuple[str, ...]
    """The answer to each row."""
    accuracy: float | None
    """In percent; None if the rows have no answers."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Answers":
        """Make the answers from what `asdict` gave."""
        return cls(tuple(values["given"]), values["accuracy"])

    def kept(self, unreduced: "Answers") -> float:
        """Return which part of the answers is that of the unreduced model, in percent."""
        pairs = zip(self.given, unreduced.given, strict=True)
        return 100 * float(np.mean([mine == other for mine, other in pairs]))


class Asker(ABC):
    """Asks a model all rows.

    Args:
        subject: the model.
        rows: images with questions, and perhaps answers.
    """

    def __init__(self, subject: Subject, rows: Dataset):
        self.model, self.rows = subject.model, rows

    def answers(self, reduction: Any) -> Answers:
        """Return the answers of the model with a schedule, or with None."""
        self.model.set_reduction(reduction)
        return self.ask()

    @abstractmethod
    def ask(self) -> Answers:
        """Return the answers of the model as it is."""


class EncoderAsker(Asker):
    """Asks a model that classifies. Its answer is the label with the highest logit."""

    def __init__(self, subject: Subject, rows: Dataset):
        base_of(subject.model).check_answers()
        labels = [subject.model.config.id2label[index] for index in range(subject.model.config.num_labels)]
        if "answers" in rows.column_names:
            rows = drop_unknown(rows, labels, "ignore", drop=False)  # such rows count as wrong
        super().__init__(subject, rows)
        self.labels = labels
        self.collator = VqaCollator(Encoder.of(subject.model, subject.processor()), labels)

    @torch.inference_mode()
    def ask(self) -> Answers:
        given: list[str] = []
        scores: list[np.ndarray] = []
        for start in range(0, len(self.rows), BATCH_SIZE):
            part = range(start, min(start + BATCH_SIZE, len(self.rows)))
            batch = self.collator(list(self.rows.select(part)))
            targets = batch.pop("labels", None)
            inputs = {
                name: value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)
                for name, value in batch.items()
            }
            logits = self.model(**inputs).logits.float().cpu().numpy()
            given += [self.labels[index] for index in logits.argmax(-1)]
            if targets is not None:
                scores.append(example_scores(logits, targets.numpy()))
        return Answers(tuple(given), 100 * float(np.concatenate(scores).mean()) if scores else None)


class DecoderAsker(Asker):
    """Asks a decoder, which generates its answers."""

    def __init__(self, subject: Subject, rows: Dataset):
        super().__init__(subject, rows)
        self.collator = QuestionCollator(subject.processor()).for_benchmark()

    def ask(self) -> Answers:
        found = generated_answers(
            self.model, self.collator, self.rows, batch_size=BATCH_SIZE, max_new_tokens=MAX_NEW_TOKENS, show=False
        )
        report = evaluate_answers(found, self.rows) if "answers" in self.rows.column_names else {}
        return Answers(tuple(normalize_answer(one.text) for one in found), report.get("accuracy"))


def asker_of(subject: Subject) -> Asker:
    """Read the data of a tuning, and return what asks its model.

    Raises:
        FileNotFoundError: a file or an image is missing.
        ValueError: the data are wrong, or the model cannot answer such questions.
    """
    rows = read_rows(subject.options, image_side(subject.model.config))
    if isinstance(subject, DecoderSubject):
        return DecoderAsker(subject, rows)
    if task_of(type(subject.model).__name__) != VQA.name and "answers" in rows.column_names:
        rows = rows.remove_columns("answers")  # its labels are no answers
    return EncoderAsker(subject, rows)


def image_side(config: Any) -> int | None:
    """Return the side in pixels of the images of a model; None for one that takes any size."""
    side = getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", None)
    return side if isinstance(side, int) else None


def read_rows(options: TuneOptions, side: int | None) -> Dataset:
    """Return the rows to compare on, with the columns `image`, `question`, `origin`, and `answers` if there are any.

    Args:
        options: what is asked for.
        side: that of the images in pixels, for digit scenes.
    """
    source = str(options.data)
    if source.partition(":")[0] == SCENES:
        return scene_rows(options, side)
    rows = rows_with_answers(options, source)
    if rows is None:
        names: dict[str, Any] = {
            "image_column": options.image_column,
            "text_column": options.text_column,
            "split": options.split,
        }
        rows = read_pairs(source, image_size=side, **names).rename_column("text", "question")
    return rows.shuffle(seed=0).select(range(min(options.examples, len(rows))))


def scene_rows(options: TuneOptions, side: int | None) -> Dataset:
    """Return questions about digit scenes as large as the images of the model."""
    setting = str(options.data).partition(":")[2] or "plain"
    if setting not in SETTINGS:
        raise ValueError(f"data={options.data!r}: choose {SCENES}:{f' or {SCENES}:'.join(SETTINGS)}")
    if side is None or side % CELL_SIZE:
        raise ValueError(
            f"data={options.data!r}: the model takes images of {side} pixels, but digit scenes need a multiple of "
            f"{CELL_SIZE}, pixels per cell"
        )
    args = VqaDataArguments(grid_size=side // CELL_SIZE, setting=setting)  # type: ignore[arg-type]
    rows = scene_questions(args, options.split, -(-options.examples // QUESTIONS_PER_SCENE))
    return rows.select(range(options.examples))


def rows_with_answers(options: TuneOptions, source: str) -> Dataset | None:
    """Return the rows of data that have answers; None if they have none."""
    if Path(source).is_file() or Path(source).suffix.lower() in (".jsonl", ".csv"):
        if Path(source).suffix.lower() != ".jsonl":
            return None
        first, _ = next(json_objects(source), ({}, ""))
        return read_vqa_files([source]) if {"answer", "answers"} & first.keys() else None
    question = {} if options.text_column is None else {"question": options.text_column}
    columns: Any = {"image": options.image_column, **question}
    args = VqaDataArguments(dataset=source, train_split=options.split, columns=columns)
    try:
        return load_hub_split(args, "train", {"answers": answers_of, "question": text_of, "image": image_of})
    except ValueError as error:
        if "data.columns" not in str(error):
            raise
        return None
