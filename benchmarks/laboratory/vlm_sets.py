"""The public sets on which pretrained decoder models are compared, and questions of a file of one's own.

The sets are those of lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval), with its prompts, on the Hub.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Image, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError

from pumer_hf.data.files import read_vqa_files

HUB_USER = "lmms-lab-encoder"
"""Whose repositories the sets are in. They were in those of `lmms-lab` until the summer of 2026."""
SHORT = "\nAnswer the question using a single word or phrase."
WORD = "\nAnswer the question with a single word."
OPTION = "\nAnswer with the option's letter from the given choices directly."
OPTIONS = ("A", "B", "C", "D")
Row = Mapping[str, Any]


def question_of(row: Row) -> str:
    """Return the question of a row."""
    return row["question"].strip()


def capitalized(row: Row) -> str:
    """Return the question of a row of TextVQA. There all questions are in lower case."""
    return question_of(row).capitalize()


def with_options(row: Row) -> str:
    """Return the question of a row of MMBench, with its hint before it and its options behind it."""
    hint = f"{row['hint']} " if is_given(row["hint"]) else ""
    options = "\n".join(f"{name}. {row[name]}" for name in OPTIONS if is_given(row[name]))
    return f"{hint}{question_of(row)} There are several options:\n{options}"


def is_given(value: str | None) -> bool:
    """Return whether MMBench gives a hint or an option. It has "nan" for what is missing."""
    return value is not None and value != "nan"


def one_answer(row: Row) -> list[str]:
    """Return the only answer of a row."""
    return [row["answer"]]


def listed_answers(row: Row) -> list[str]:
    """Return the answers of a row, which are texts or, in VQA v2, dicts of each annotator."""
    return [given["answer"] if isinstance(given, Mapping) else given for given in row["answers"]]


def letter_and_text(row: Row) -> list[str]:
    """Return the letter of the right option of a row, and the text of this option."""
    return [row["answer"], row[row["answer"]]]


@dataclass(frozen=True)
class PublicSet:
    """A public set: where it is, how it is asked, and how its answers are scored."""

    title: str
    repository: str
    """The name of its repository, without the user."""
    split: str
    metric: str
    """How an answer is scored, one of `SCORES`."""
    config: str | None = None
    images: str | None = None
    """The config with the images, if the questions are in another one. Then `imageId` is the `id` of an image."""
    files: str | None = None
    """The files of the split. Without them, `datasets` would download all splits, and the others are large."""
    question: Callable[[Row], str] = question_of
    answers: Callable[[Row], list[str]] = one_answer
    suffix: str = SHORT
    """What stands behind each question."""
    group: str | None = None
    """The column that names the group of a question, for which there is an accuracy too."""
    max_new_tokens: int = 16


SETS = {
    "vqav2": PublicSet("VQA v2", "VQAv2", "validation", "vqa", files="data/validation-*", answers=listed_answers),
    "gqa": PublicSet(
        "GQA", "GQA", "testdev", "exact", "testdev_balanced_instructions", images="testdev_balanced_images"
    ),
    "textvqa": PublicSet(
        *("TextVQA", "textvqa", "validation", "vqa"),
        files="data/validation-*",
        question=capitalized,
        answers=listed_answers,
    ),
    "pope": PublicSet("POPE", "POPE", "test", "yes_no", "default", group="category"),
    "chartqa": PublicSet("ChartQA", "ChartQA", "test", "relaxed", suffix=WORD, group="type"),
    "docvqa": PublicSet("DocVQA", "DocVQA", "validation", "anls", "DocVQA", answers=listed_answers, max_new_tokens=32),
    "mmbench": PublicSet(
        *("MMBench", "MMBench", "dev", "letter", "en"),
        question=with_options,
        answers=letter_and_text,
        suffix=OPTION,
    ),
}
"""The public sets by name. TextVQA, ChartQA and DocVQA need small text."""


@dataclass(frozen=True)
class Questions:
    """Questions about images, with the right answers."""

    name: str
    title: str
    source: str
    """Where they are from: the id on the Hub and the split, or the name of a file."""
    metric: str
    rows: Dataset
    """The columns `image` (undecoded), `question`, `answers`, `group` and `origin`."""
    max_new_tokens: int
    """The longest answer."""


def load_questions(name: str, hub_user: str, limit: int | None, seed: int) -> Questions:
    """Load a public set from the Hub.

    Args:
        name: one of `SETS`.
        hub_user: whose repository it is in, or a folder with a copy of the repository.
        limit: how many questions, drawn by the seed; None: all.
        seed: of the order of the questions.

    Raises:
        ValueError: there is no such set, or it cannot be read.
    """
    if name not in SETS:
        raise ValueError(f"--sets {name}: choose from {', '.join(SETS)}, or give a file of your own with --file")
    one = SETS[name]
    source = f"{hub_user}/{one.repository}"
    files = None if one.files is None else {one.split: one.files}
    found = read_split(name, source, one.config, one.split, files)
    found = found.select(drawn(len(found), limit, seed))
    if one.images is None:
        images = found.select_columns(["image"])
    else:
        pictures = read_split(name, source, one.images, one.split, None)
        places = {number: place for place, number in enumerate(pictures["id"])}
        images = pictures.select([places[number] for number in found["imageId"]]).select_columns(["image"])
    texts = found.remove_columns([name for name, kind in found.features.items() if isinstance(kind, Image)])
    columns: dict[str, list[Any]] = {"question": [], "answers": [], "group": [], "origin": []}
    for number, row in enumerate(texts):
        columns["question"].append(one.question(row) + one.suffix)
        columns["answers"].append(one.answers(row))
        columns["group"].append(None if one.group is None else str(row[one.group]))
        columns["origin"].append(f"{source}, {one.split}, question {number} of seed {seed}")
    rows = concatenate_datasets([Dataset.from_dict(columns), images.cast_column("image", Image(decode=False))], axis=1)
    public = one.repository if Path(source).is_dir() else source
    return Questions(name, one.title, f"{public}, {one.split}", one.metric, rows, one.max_new_tokens)


def read_split(name: str, source: str, config: str | None, split: str, files: dict[str, str] | None) -> Dataset:
    """Read a split of a data set.

    Raises:
        ValueError: it cannot be reached or read. The message says what to download.
    """
    try:
        return load_dataset(source, config, data_files=files, split=split)
    except (ConnectionError, DatasetsError, FileNotFoundError, HfHubHTTPError, ValueError) as error:
        wanted = f"config {config}, split {split}" if config else f"split {split}"
        raise ValueError(
            f"--sets {name}: {source} ({wanted}) cannot be read: {' '.join(str(error).split())}. Run once with access "
            f"to the Hub (without HF_HUB_OFFLINE), or `hf download --repo-type dataset {source} --local-dir "
            f"DATA/{source.rpartition('/')[2]}` and --hub-user DATA; --hub-user names another owner, such as lmms-lab"
        ) from error


def read_own_questions(file: str, metric: str, limit: int | None, seed: int, max_new_tokens: int) -> Questions:
    """Read questions from a file of one's own, without a sentence behind them.

    Args:
        file: JSONL with `image` (a path), `question`, and `answer` or `answers` ([`read_vqa_files`]).
        metric: how an answer is scored, one of `SCORES`.
        limit: how many questions, drawn by the seed; None: all.
        seed: of the order of the questions.
        max_new_tokens: the longest answer.
    """
    rows = read_vqa_files([file])
    rows = rows.select(drawn(len(rows), limit, seed)).add_column("group", [None] * min(len(rows), limit or len(rows)))
    return Questions(Path(file).stem, Path(file).stem, Path(file).name, metric, rows, max_new_tokens)


def drawn(number: int, limit: int | None, seed: int) -> list[int]:
    """Return the places of the questions that are asked, in the order of a shuffle."""
    return np.random.default_rng(seed).permutation(number)[:limit].tolist()
