"""Visual question answering: from data or digit scenes to model inputs, soft targets and a metric."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset, Image
from PIL import Image as PILImage
from torch import Tensor
from transformers import EvalPrediction, ProcessorMixin
from transformers.utils import logging

from ..encoding import QUESTION_LENGTH
from ..images import open_image
from ..metrics.vqa import AnswerVocabulary, answer_scores, consensus, language_baselines, normalize_answer, row_scores
from ..metrics.vqa_accuracy import normalize, vqa_accuracy
from ..results import PERCENT
from .arguments import SPLITS, DataArguments
from .collator import Collator
from .columns import answers_of, image_of, text_of
from .files import read_vqa_files, read_vqa_questions
from .scenes.clutter import Clutter
from .scenes.digits import MANY_PLACES, QUESTIONS, SETTINGS, cell_box, clutter_of, digit_scenes
from .task import CARD_MODEL, Metrics, Task, TaskData, check_rows, load_splits

logger = logging.get_logger(__name__)


@dataclass
class VqaDataArguments(DataArguments):
    """The `data` block of a VQA recipe. Files are one .jsonl, or VQA v2's two .json (questions and annotations).

    Columns of a Hub dataset: `image`, `question` and `answers` ([`answers_of`]).
    """

    min_answer_count: int = field(
        default=1,
        metadata={
            "help": "Answers that are counted at least this often become labels (VQA v2: 9, for the usual 3,129)."
        },
    )
    answer_counting: Literal["auto", "consensus", "annotators"] = field(
        default="auto",
        metadata={
            "help": "Which answers min_answer_count counts. consensus: one answer per question of the training and "
            "validation data. It is multiple_choice_answer in VQA v2's files, else the most frequent answer, "
            "normalised as in the official evaluation ('two' is '2', and 'a' is the empty answer, which is among the "
            "usual labels). annotators: all answers in the training data, in lower case. auto: consensus for VQA v2's "
            "files, and if each question has at least four annotators."
        },
    )
    unknown_answers: Literal["error", "ignore"] = field(
        default="error",
        metadata={
            "help": "What to do with a row if none of its answers is a label: stop, or leave the row out of training "
            "and count it as wrong in evaluation."
        },
    )
    max_text_length: int = field(
        default=QUESTION_LENGTH, metadata={"help": "Tokens to which each question is padded or cut."}
    )
    question_kinds: list[str] | None = field(
        default=None,
        metadata={"help": "Kinds of questions about digit scenes, all equally often. Default: hard kinds are rare."},
    )
    setting: Literal["plain", "cluttered"] = field(
        default="plain",
        metadata={
            "help": "What is behind the digits of digit scenes: black (plain), or pieces of photographs (cluttered). "
            "Part of the cluttered scenes are dense: they have 6 digits, and shapes that no question asks about."
        },
    )
    dense_part: float | None = field(
        default=None,
        metadata={"help": "Part of the cluttered scenes that are dense, in [0, 1]. Default: 0.5."},
    )
    num_distractors: int | None = field(
        default=None,
        metadata={"help": "Shapes in a dense scene that no question asks about. Default: 8."},
    )
    image_saliency: bool = field(
        default=False,
        metadata={
            "help": "Give the models a map of where the image shows what a question is about, from the column boxes "
            "of digit scenes. The method grounded prunes by this map."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.question_kinds is not None and not (
            self.question_kinds and set(self.question_kinds) <= set(QUESTIONS)
        ):
            raise ValueError(f"data.question_kinds={self.question_kinds}: choose among {list(QUESTIONS)}")
        if self.unknown_answers not in ("error", "ignore"):
            raise ValueError(f"data.unknown_answers={self.unknown_answers!r}: choose 'error' or 'ignore'")
        if self.answer_counting not in ("auto", "consensus", "annotators"):
            raise ValueError(
                f"data.answer_counting={self.answer_counting!r}: choose 'auto', 'consensus' or 'annotators'"
            )
        if self.image_saliency and self.rand_augment:
            raise ValueError(
                "data.image_saliency does not go with data.rand_augment, which moves what is in the image"
            )
        if self.min_answer_count < 1:
            raise ValueError(f"data.min_answer_count={self.min_answer_count}: must be at least 1")
        self._check_setting()

    def _check_setting(self) -> None:
        if self.setting not in SETTINGS:
            raise ValueError(f"data.setting={self.setting!r}: choose one of {list(SETTINGS)}")
        if self.setting != "plain" and self.is_own:
            raise ValueError(f"data.setting={self.setting!r} is for digit scenes, but the block names other data")
        for name in ("dense_part", "num_distractors"):
            value = getattr(self, name)
            if value is not None and self.setting != "cluttered":
                raise ValueError(f"data.{name}={value} has no effect: set data.setting to 'cluttered'")
        try:
            clutter_of(self.scene_setting, self.grid_size)
        except ValueError as error:
            raise ValueError(f"data.{error}") from error

    @property
    def scene_setting(self) -> str | Clutter:
        """The argument `setting` of [`digit_scenes`]."""
        if self.setting == "plain":
            return self.setting
        given = {"dense_part": self.dense_part, "num_distractors": self.num_distractors}
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return Clutter(**values)


def load_vqa(args: VqaDataArguments, labels: Sequence[str] | None = None) -> TaskData:
    """Load the three splits, with the columns `image`, `question` and `answers`.

    Args:
        args: the `data` block.
        labels: the answers of an existing model. Default: the answers that are frequent enough ([`counted_answers`]).
    """
    data = load_questions(args)
    min_count = 1 if labels is not None else args.min_answer_count
    if labels is None:
        if args.streaming:
            raise ValueError("data.streaming: the labels must be known before training: give model.teacher")
        counted = counted_answers(data.train, data.validation, args.answer_counting)
        labels = answer_labels(counted, min_count)
    splits, unknown = {}, {}
    for split in SPLITS:
        if split == "train" and args.streaming:
            continue  # a streamed row without a known answer trains towards "none of these"
        rows = getattr(data, split)
        known = drop_unknown(rows, labels, args.unknown_answers, drop=True, min_count=min_count)
        splits[split] = known if split == "train" else rows
        unknown[split] = len(rows) - len(known)
    return replace(data, **splits, labels=tuple(labels), unknown_answers=unknown)


def load_questions(args: VqaDataArguments) -> TaskData:
    """Load the three splits as [`load_vqa`] does, with all rows and without labels."""
    return load_splits(
        args,
        read=lambda files, image_dir, split, skipped: read_vqa_files(files, image_dir, skipped),
        scenes=lambda split, number: scene_questions(args, split, number),
        columns={"answers": answers_of, "question": text_of, "image": image_of},
    )


def scene_questions(args: VqaDataArguments, split: str, num_scenes: int) -> Dataset:
    """Make digit scenes with the columns of this task, `boxes`, and `kind` and `cells` of [`digit_scenes`].

    The column `groups` has what the accuracy is reported for beside the kinds: whether one place or many places of the
    picture are needed for the answer, and, of cluttered scenes, whether the scene is sparse or dense.
    """
    weights = None if args.question_kinds is None else dict.fromkeys(args.question_kinds, 1.0)
    scenes = digit_scenes(
        split,
        num_scenes,
        grid_size=args.grid_size,
        num_digits=args.num_digits,
        weights=weights,
        seed=args.scene_seed,
        setting=args.scene_setting,
    )
    answers = [[answer] for answer in scenes["answer"]]
    origins = [f"digit scenes, {split}, row {row}" for row in range(len(scenes))]
    boxes = [[cell_box(cell, args.grid_size) for cell in cells] for cells in scenes["cells"]]
    groups = [["many places" if kind in MANY_PLACES else "one place"] for kind in scenes["kind"]]
    if "density" in scenes.column_names:
        groups = [[*group, density] for group, density in zip(groups, scenes["density"], strict=True)]
    scenes = scenes.add_column("groups", groups)
    scenes = scenes.cast_column("image", Image(decode=False)).remove_columns("answer")
    return scenes.add_column("answers", answers).add_column("origin", origins).add_column("boxes", boxes)


def counted_answers(train: Dataset, validation: Dataset, how: str) -> list[list[str]]:
    """Return the answers of each question that are counted to choose the labels. `how` is `data.answer_counting`.

    The column `consensus`, if there is one, holds the `multiple_choice_answer` of VQA v2's files. Answers with
    `answer_weights` do not come from single annotators; their consensus is the answer with the highest weight.
    """
    weighted = "answer_weights" in train.column_names
    if how == "auto":
        several = "consensus" in train.column_names or (not weighted and min(map(len, train["answers"])) >= 4)
        how = "consensus" if several else "annotators"
    if how == "annotators":
        return train["answers"][:]
    counted = []
    for split in (train, validation):
        if weighted:
            rows = zip(split["answers"], split["answer_weights"], strict=True)
            given = [answers[int(np.argmax(weights))] for answers, weights in rows]
        else:
            given = split["consensus"] if "consensus" in split.column_names else [None] * len(split)
        for agreed, answers in zip(given, split["answers"], strict=True):
            counted.append([consensus(answers) if agreed is None else normalize(agreed)])
    return counted


def answer_labels(answers: Sequence[list[str]], min_count: int) -> tuple[str, ...]:
    """Return the answers given at least `min_count` times, most frequent first; ties are in alphabetical order."""
    counts = Counter(normalize_answer(answer) for given in answers for answer in given)
    ranked = sorted(counts, key=lambda answer: (-counts[answer], answer))
    labels = tuple(answer for answer in ranked if counts[answer] >= min_count)
    if len(labels) < 2:
        raise too_few_labels({answer: counts[answer] for answer in ranked[:2]}, min_count, len(labels))
    return labels


def too_few_labels(most_frequent: dict[str, int], min_count: int, number: int) -> ValueError:
    """Return the error if only `number` labels remain. `most_frequent` has one or two answers with their counts."""
    counted = " and ".join(f"{answer!r} ({count}x)" for answer, count in most_frequent.items())
    if len(most_frequent) < 2:
        advice = f"the data have only one answer, {counted}; add questions with another one"
    else:
        advice = f"the most frequent answers are {counted}; set it to {min(most_frequent.values())} or less"
    return ValueError(f"data.min_answer_count={min_count} leaves {number} labels, at least two are needed: {advice}")


def drop_unknown(dataset: Dataset, labels: Sequence[str], policy: str, *, drop: bool, min_count: int = 1) -> Dataset:
    """Raise `ValueError` for rows without an answer among the labels, or, with `policy="ignore"`, drop them if `drop`.

    `min_count` is how often an answer has to be given to become a label.
    """
    known = AnswerVocabulary(labels)
    answers = dataset["answers"]
    keep = [i for i, given in enumerate(answers) if any(known.index(answer) is not None for answer in given)]
    unknown = sorted(set(range(len(dataset))) - set(keep))
    if not unknown:
        return dataset
    first = dataset[unknown[0]]
    if policy == "error":
        rarer = f"lower data.min_answer_count={min_count}, or " if min_count > 1 else ""
        raise ValueError(
            f"{first['origin']}: the answer {' / '.join(sorted(set(first['answers'])))!r} is not among the "
            f"{len(labels)} labels; {len(unknown)} of {len(dataset)} rows have this problem ({rarer}set "
            "data.unknown_answers to 'ignore' to leave them out of training and count them as wrong in evaluation)"
        )
    if len(unknown) == len(dataset):
        raise ValueError(f"{first['origin']}: no row has an answer among the {len(labels)} labels")
    logger.info("%d of %d rows have no answer among the labels", len(unknown), len(dataset))
    return dataset.select(keep) if drop else dataset


@dataclass
class VqaCollator(Collator):
    """The collator of questions. If rows have `answers`, `labels` are soft targets float (B, num_labels)."""

    def __post_init__(self) -> None:
        self.vocabulary = AnswerVocabulary(self.labels)

    def texts(self, row: dict[str, Any]) -> str:
        return row["question"]

    def labels_of(self, rows: Sequence[dict[str, Any]]) -> Tensor | None:
        if "answers" not in rows[0]:
            return None
        return torch.stack([self.target(row["answers"], row.get("answer_weights")) for row in rows])

    def target(self, answers: Sequence[str], weights: Sequence[float] | None = None) -> Tensor:
        """Return the soft target float (num_labels,) in [0, 1]. [`AnswerVocabulary`] maps answers to labels."""
        target = torch.zeros(len(self.labels))
        for answer, score in answer_scores(self.vocabulary.named(answers), weights).items():
            number = self.vocabulary.index(answer)
            if number is not None:
                target[number] = score
        return target


def vqa_metrics(dataset: Dataset, labels: Sequence[str]) -> Metrics:
    """Return the function that computes `accuracy`: the mean soft target of the most likely answers, in percent.

    If each question has at least four annotators, it also computes the official `vqa_accuracy` of 2021, in percent.
    """
    answers = dataset["answers"][:]
    official = "answer_weights" not in dataset.column_names and min(map(len, answers)) >= 4

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits, targets = check_rows(prediction, len(answers))
        scores = {"accuracy": 100 * float(row_scores(logits, targets).mean())}
        if official:
            scores["vqa_accuracy"] = vqa_accuracy([labels[index] for index in logits.argmax(-1)], answers)
        return scores

    return compute


def _collator(processor: ProcessorMixin, data: TaskData, args: VqaDataArguments, training: bool) -> VqaCollator:
    augment = args.rand_augment and training
    return VqaCollator(args.encoder(processor), data.labels, augment, args.image_saliency)


def page_examples(num_scenes: int, grid_size: int, setting: str) -> list[tuple[PILImage.Image, str]]:
    """Make digit scenes of the test split, each with a question. `setting` is that of [`digit_scenes`]."""
    rows = digit_scenes("test", num_scenes, questions_per_scene=1, grid_size=grid_size, setting=setting)
    return [(open_image(row["image"]), row["question"]) for row in rows]


VQA = Task(
    name="vqa",
    title="visual question answering",
    arguments=VqaDataArguments,
    load=load_vqa,
    collator=_collator,
    texts=lambda dataset: dataset["question"][:],
    paper_folder="vqav2",
    scenes_folder="digit_scenes",
    head="vqa",
    num_labels=3129,
    activation="sigmoid",
    metrics=vqa_metrics,
    baselines=lambda data: language_baselines(data.train, data.test, data.labels),
    metric_types={"accuracy": PERCENT, "vqa_accuracy": PERCENT},
    read_questions=read_vqa_questions,
    hub_type="visual-question-answering",
    pipeline_tag="visual-question-answering",
    card_example=f"""\
import pumer_hf  # registers models and pipeline
from transformers import pipeline

vqa = pipeline("pumer-vqa", model="{CARD_MODEL}")
print(vqa(image="picture.png", question="what is in the picture?", top_k=5))""",
    text_label="Question",
    page_examples=page_examples,
)
