"""Images with texts, without answers, from files, folders, the Hub or digit scenes. A scorer is trained on them."""

import csv
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from datasets import Dataset, Features, Image, Value
from torch import Tensor

from .arguments import DataArguments
from .collator import Collator
from .columns import image_of, text_of
from .files import existing_files, image_in, json_field, json_text, read_objects, to_dataset
from .hub import load_hub_split
from .scenes.digits import CELL_SIZE, SETTINGS
from .vqa import VqaDataArguments, scene_questions

SCENES = "digit_scenes"
"""The name of the built-in data, alone or with one of their settings: `digit_scenes:cluttered`."""
NUM_SCENES, QUESTIONS_PER_SCENE = 15_000, 4
TEXT_COLUMNS = ("text", "question", "caption", "sentence", "hypothesis")
"""The columns that are taken for the text if none is named. The first one that is there counts."""
FEATURES = Features({"image": Image(decode=False), "text": Value("string"), "origin": Value("string")})
HELD_OUT_PART = 0.2
"""The largest part of the rows that is held out."""
BLOCK = 4 * QUESTIONS_PER_SCENE
"""How many rows without a path of their image stay together."""


@dataclass
class PairCollator(Collator):
    """The collator of rows with the columns `image`, `text` and `origin`. Its batches have no labels."""

    def texts(self, row: dict[str, Any]) -> str:
        return row["text"]

    def labels_of(self, rows: Sequence[dict[str, Any]]) -> Tensor | None:
        return None


def read_pairs(
    source: str,
    *,
    image_column: str = "image",
    text_column: str | None = None,
    split: str = "train",
    image_size: int | None = None,
    number: int | None = None,
) -> Dataset:
    """Read images with texts.

    Args:
        source: a file `.jsonl` or `.csv`, whose paths of images are relative to its folder; a folder that `datasets`
            reads, or the id of a data set on the Hub; or `digit_scenes`, also with a setting (`digit_scenes:plain`).
        image_column: the name of the column with the images.
        text_column: the name of the column with the texts; default: the first of [`TEXT_COLUMNS`] that is there.
        split: the split of a folder or a data set.
        image_size: the side in pixels of the images that the model takes, for digit scenes.
        number: how many rows are needed, for digit scenes. All rows of other data are read.

    Returns:
        A dataset with the columns `image` (undecoded), `text` and `origin`.

    Raises:
        FileNotFoundError: a file or an image is missing.
        ValueError: there is no such data set, split or column, or a row has no image or no text. The message names it.
    """
    name, _, setting = source.partition(":")
    if name == SCENES:
        return scene_pairs(setting or "plain", image_size, number)
    suffix = Path(source).suffix.lower()
    if Path(source).is_file() or suffix in (".jsonl", ".csv"):
        rows = {".csv": csv_objects, ".jsonl": json_objects}.get(suffix)
        if rows is None:
            raise ValueError(f"--data {source}: give a file .jsonl or .csv, a folder, or the id of a data set")
        pairs = file_pairs(rows(source), Path(source).parent, image_column, text_column)
        return to_dataset(pairs, FEATURES, f"{source}: the file holds no row")
    return hub_pairs(source, image_column, text_column, split)


def scene_pairs(setting: str, image_size: int | None, number: int | None) -> Dataset:
    """Make questions about digit scenes, as large as the images of the model."""
    if setting not in SETTINGS:
        raise ValueError(f"--data {SCENES}:{setting}: choose one of {', '.join(SETTINGS)}")
    if image_size is None or image_size % CELL_SIZE:
        raise ValueError(
            f"--data {SCENES}: the model takes images of {image_size} pixels, but digit scenes need a multiple of "
            f"{CELL_SIZE}, pixels per cell"
        )
    scenes = NUM_SCENES if number is None else min(-(-number // QUESTIONS_PER_SCENE), NUM_SCENES)
    args = VqaDataArguments(grid_size=image_size // CELL_SIZE, setting=setting)  # type: ignore[arg-type]
    rows = scene_questions(args, "train", scenes)
    return rows.rename_column("question", "text").select_columns(list(FEATURES))


def json_objects(source: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the objects of a file with one JSON object per line, each with its origin."""
    return read_objects([source])


def csv_objects(source: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the rows of a CSV file with a header, each with its origin."""
    (path,) = existing_files([source])
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            for row in reader:
                yield row, f"{path}, line {reader.line_num}"
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a valid CSV file: {error}") from error


def file_pairs(
    rows: Iterator[tuple[dict[str, Any], str]], folder: Path, image_column: str, text_column: str | None
) -> Iterator[dict[str, Any]]:
    """Yield the image, the text and the origin of the rows of a file."""
    for row, origin in rows:
        if image_column not in row:
            raise ValueError(f"{origin}: there is no field {image_column!r}: --image-column names one of {list(row)}")
        text_column = text_column or known_text_column(list(row), origin)
        yield {
            "image": image_in(folder, json_field(row, image_column, str, origin)),
            "text": json_text(row, text_column, origin),
            "origin": origin,
        }


def hub_pairs(source: str, image_column: str, text_column: str | None, split: str) -> Dataset:
    """Read images with texts from a folder or from the Hub."""
    load = partial(_load_columns, source, image_column, split)
    if text_column is not None:
        return load(text_column)
    problem: ValueError | None = None
    for name in TEXT_COLUMNS:
        try:
            return load(name)
        except ValueError as error:
            if "data.columns" not in str(error):
                raise
            problem = error
    raise ValueError(
        f"--data {source}: it has no column {image_column!r}, or none of {', '.join(TEXT_COLUMNS)}: name the columns "
        f"with --image-column and --text-column ({problem})"
    ) from problem


def _load_columns(source: str, image_column: str, split: str, text_column: str) -> Dataset:
    args = DataArguments(dataset=source, train_split=split, columns={"image": image_column, "text": text_column})
    return load_hub_split(args, "train", {"text": text_of, "image": image_of})


def known_text_column(columns: Sequence[str], origin: str) -> str:
    """Return the first of [`TEXT_COLUMNS`] that is there. Raise `ValueError` if there is none."""
    for name in TEXT_COLUMNS:
        if name in columns:
            return name
    raise ValueError(
        f"{origin}: none of the fields {', '.join(TEXT_COLUMNS)} is there: --text-column names one of {list(columns)}"
    )


def hold_out(rows: Dataset, number: int, most: int | None = None, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Split rows into those to train on and those to test on. Rows of one image go to the same side.

    An image is known by its path. Rows without one go in blocks, as the rows of an image are neighbours in most data.
    Rows with several images go together if they share one.

    Args:
        rows: rows from [`read_pairs`] or of [`read_chats`], with `image` or `images`.
        number: how many rows to hold out. It is at most a fifth of the rows that are used.
        most: how many rows to train on at most; None for all.
        seed: the seed of the draw.

    Returns:
        The rows to train on, and the rows that are held out. Either has at least one.

    Raises:
        ValueError: there are fewer than two images, or blocks of rows.
    """
    groups = groups_by_image(rows)
    if len(groups) < 2:
        raise ValueError(
            f"--data: there are too few images in {len(rows)} rows: some of them are held out, so give more"
        )
    random.Random(seed).shuffle(groups)
    number = min(number, max(int(len(rows) * HELD_OUT_PART), 1))
    held: list[int] = []
    while len(held) < number and len(groups) > 1:
        held += groups.pop()
    kept = [index for group in groups for index in group][:most]
    return rows.select(sorted(kept)), rows.select(sorted(held[:number]))


def groups_by_image(rows: Dataset) -> list[list[int]]:
    """Return the numbers of the rows that must stay together, in groups. See [`hold_out`]."""
    leader: dict[str, str] = {}

    def leader_of(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    names = [[path or f"block {row // BLOCK}" for path in paths] for row, paths in enumerate(image_paths(rows))]
    for first, *others in names:
        for other in others:
            leader[leader_of(other)] = leader_of(first)
    groups: dict[str, list[int]] = {}
    for row, (first, *_) in enumerate(names):
        groups.setdefault(leader_of(first), []).append(row)
    return list(groups.values())


def image_paths(rows: Dataset) -> list[list[str | None]]:
    """Return the paths of the images of each row, None for an image without one."""
    table = rows.with_format("arrow")[:]
    if "image" in rows.column_names:
        return [[path] for path in pc.struct_field(table.column("image"), "path").to_pylist()]
    found: list[list[str | None]] = [[] for _ in range(len(rows))]
    images = table.column("images")
    paths = pc.struct_field(pc.list_flatten(images), "path").to_pylist()
    for row, path in zip(pc.list_parent_indices(images).to_pylist(), paths, strict=True):
        found[row].append(path)
    return found
