"""Visual question answering: from files or digit scenes to model inputs, soft targets and a metric."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from datasets import Dataset, Image
from PIL.Image import Resampling
from torch import Tensor
from transformers import ProcessorMixin
from transformers.utils import logging

from ..metrics.vqa import answer_scores, normalize_answer
from .digit_scenes import digit_scenes
from .files import open_image, read_vqa_files

logger = logging.get_logger(__name__)


@dataclass
class VqaDataArguments:
    """The `data` block of a VQA recipe. Without `train_file`, digit scenes are made."""

    _argument_group_name: ClassVar[str] = "data"

    train_file: list[str] | None = field(
        default=None, metadata={"help": "One .jsonl file, or VQA v2's two .json files (questions and annotations)."}
    )
    validation_file: list[str] | None = field(default=None, metadata={"help": "The same for validation."})
    test_file: list[str] | None = field(
        default=None, metadata={"help": "The same for the final evaluation. Default: the validation data."}
    )
    image_dir: str | None = field(default=None, metadata={"help": "Folder of the images."})
    min_answer_count: int = field(
        default=1, metadata={"help": "Answers given at least this often in training become labels (VQA v2: 9)."}
    )
    unknown_answers: Literal["error", "ignore"] = field(
        default="error",
        metadata={
            "help": "What to do with a row none of whose answers is a label: stop, or leave it out of training and "
            "count it as wrong in evaluation."
        },
    )
    max_text_length: int = field(default=32, metadata={"help": "Tokens to which each question is padded or cut."})
    square_images: bool = field(
        default=True,
        metadata={
            "help": "Resize to a square, as in the paper, instead of keeping the aspect ratio (which METER cannot do)."
        },
    )
    train_scenes: int = field(default=15_000, metadata={"help": "Digit scenes to train on, four questions each."})
    eval_scenes: int = field(default=500, metadata={"help": "Digit scenes to validate and to test on, each."})
    grid_size: int = field(default=6, metadata={"help": "Cells along each side of a digit scene."})
    num_digits: int = field(default=3, metadata={"help": "Digits in a scene, 2 to 6."})
    scene_seed: int = field(default=0, metadata={"help": "Seed of the digit scenes."})

    def __post_init__(self) -> None:
        for name in ("train_file", "validation_file", "test_file"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, list) and value):
                raise ValueError(f"data.{name}={value!r}: give a list of one or two files")
        if self.train_file is None and self.test_file is not None:
            raise ValueError("data.test_file is given, but no train_file and validation_file")
        if (self.train_file is None) != (self.validation_file is None):
            missing = "validation_file" if self.validation_file is None else "train_file"
            raise ValueError(f"data.{missing} is missing: give both train_file and validation_file, or neither")
        if self.train_file is None and self.image_dir is not None:
            raise ValueError("data.image_dir is given, but no train_file and validation_file")
        if self.unknown_answers not in ("error", "ignore"):
            raise ValueError(f"data.unknown_answers={self.unknown_answers!r}: choose 'error' or 'ignore'")
        if self.min_answer_count < 1:
            raise ValueError(f"data.min_answer_count={self.min_answer_count}: must be at least 1")
        if self.max_text_length < 3:
            raise ValueError(f"data.max_text_length={self.max_text_length}: must be at least 3")


@dataclass(frozen=True)
class VqaData:
    """Datasets with the columns `image` (undecoded), `question`, `answers` and `origin`, and the labels."""

    train: Dataset
    validation: Dataset
    test: Dataset
    labels: tuple[str, ...]
    """The answers that a model can give, in the order of its logits."""


def load_vqa(args: VqaDataArguments, labels: Sequence[str] | None = None) -> VqaData:
    """Load the three splits.

    Args:
        args: where from.
        labels: the answers of a model that exists already; default: the answers in the training data.
    """
    if args.train_file is None:
        sizes = {"train": args.train_scenes, "validation": args.eval_scenes, "test": args.eval_scenes}
        splits = {split: _digit_scenes(args, split, size) for split, size in sizes.items()}
    else:
        files = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
        splits = {split: read_vqa_files(names, args.image_dir) for split, names in files.items() if names}
    if labels is None:
        labels = answer_labels(splits["train"]["answers"], args.min_answer_count)
    train = drop_unknown(splits["train"], labels, args.unknown_answers, drop=True)
    validation = drop_unknown(splits["validation"], labels, args.unknown_answers, drop=False)
    test = drop_unknown(splits["test"], labels, args.unknown_answers, drop=False) if "test" in splits else validation
    return VqaData(train, validation, test, tuple(labels))


def _digit_scenes(args: VqaDataArguments, split: str, num_scenes: int) -> Dataset:
    scenes = digit_scenes(
        split, num_scenes, grid_size=args.grid_size, num_digits=args.num_digits, seed=args.scene_seed
    )
    answers = [[answer] for answer in scenes["answer"]]
    origins = [f"digit scenes, {split}, row {row}" for row in range(len(scenes))]
    scenes = scenes.cast_column("image", Image(decode=False)).remove_columns("answer")
    return scenes.add_column("answers", answers).add_column("origin", origins)


def answer_labels(answers: Sequence[list[str]], min_count: int) -> tuple[str, ...]:
    """The answers given at least `min_count` times, the most frequent first, ties in alphabetical order."""
    counts = Counter(normalize_answer(answer) for given in answers for answer in given)
    labels = [answer for answer, count in counts.items() if count >= min_count]
    if len(labels) < 2:
        raise ValueError(f"data.min_answer_count={min_count} leaves {len(labels)} labels: at least two are needed")
    return tuple(sorted(labels, key=lambda answer: (-counts[answer], answer)))


def drop_unknown(dataset: Dataset, labels: Sequence[str], policy: str, *, drop: bool) -> Dataset:
    """Treat rows none of whose answers is a label: an error, or (`policy="ignore"`) drop them if `drop`."""
    known = {normalize_answer(label) for label in labels}
    answers = dataset["answers"]
    keep = [i for i, given in enumerate(answers) if any(normalize_answer(answer) in known for answer in given)]
    unknown = sorted(set(range(len(dataset))) - set(keep))
    if not unknown:
        return dataset
    first = dataset[unknown[0]]
    if policy == "error":
        raise ValueError(
            f"{first['origin']}: the answer {' / '.join(sorted(set(first['answers'])))!r} is not among the "
            f"{len(labels)} labels; {len(unknown)} of {len(dataset)} rows have this problem (set data.unknown_answers "
            "to 'ignore' to leave them out of training and count them as wrong in evaluation)"
        )
    if len(unknown) == len(dataset):
        raise ValueError(f"{first['origin']}: no row has an answer among the {len(labels)} labels")
    logger.info("%d of %d rows have no answer among the labels", len(unknown), len(dataset))
    return dataset.select(keep) if drop else dataset


@dataclass
class VqaCollator:
    """Rows -> model inputs.

    Returns `input_ids`, `attention_mask` and (ViLT) `token_type_ids` long (B, max_text_length), `pixel_values` float
    (B, 3, h, w), `pixel_mask` long (B, h, w) only where some pixel is padding, `labels` float (B, num_labels) if rows
    have `answers`, and `teacher_logits` float (B, num_labels) if they have them.
    """

    processor: ProcessorMixin
    labels: Sequence[str]
    max_text_length: int = 32
    square_images: bool = True

    def __post_init__(self) -> None:
        self.index = {normalize_answer(label): number for number, label in enumerate(self.labels)}

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        images = [open_image(row["image"], row["origin"]) for row in rows]
        side = self.processor.image_processor.size["shortest_edge"]
        if side is None and not self.square_images:
            raise ValueError("data.square_images=False: the image processor makes squares of all images (METER)")
        if side is not None and self.square_images:
            images = [
                image if image.size == (side, side) else image.resize((side, side), Resampling.BICUBIC)
                for image in images
            ]
        batch = dict(
            self.processor(
                images=images,
                text=[row["question"] for row in rows],
                padding="max_length",
                max_length=self.max_text_length,
                truncation=True,
                return_tensors="pt",
            )
        )
        if "pixel_mask" in batch and batch["pixel_mask"].all():
            del batch["pixel_mask"]
        if "answers" in rows[0]:
            batch["labels"] = torch.stack([self.target(row["answers"]) for row in rows])
        if "teacher_logits" in rows[0]:
            batch["teacher_logits"] = torch.tensor([row["teacher_logits"] for row in rows])
        return batch

    def target(self, answers: Sequence[str]) -> Tensor:
        """Soft target float (num_labels,) in [0, 1]."""
        target = torch.zeros(len(self.labels))
        for answer, score in answer_scores(answers).items():
            if answer in self.index:
                target[self.index[answer]] = score
        return target
