"""Chats with images, from files, folders and the Hub. A scorer of a decoder model is trained on their questions.

A chat is a list `messages` of turns, each with a `role` and a `content`: a text, or a list of parts such as
`{"type": "text", "text": ...}` and `{"type": "image"}`. This is the form that chat templates take.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, LargeList, List, Value
from transformers.utils import logging

from .arguments import DataArguments
from .columns import image_of
from .conversations import ASSISTANT, USER
from .files import find_image, json_field, read_objects
from .hub import load_split

MESSAGES = "messages"
"""The column of the turns."""
IMAGE_COLUMNS = ("images", "image")
"""The columns in which the images of a chat are looked for."""
IMAGE_KEYS = ("image", "path", "url", "image_url")
"""The keys under which a part of the type `"image"` or `"image_url"` may have its image."""
TURNS = List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})
FEATURES = Features({"images": List(Image(decode=False)), MESSAGES: TURNS, "origin": Value("string")})
Turn = dict[str, Any]
"""A turn with the keys `role` and `content`, a list of parts with the keys `type` and `text`."""
logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Chats:
    """The chats of some data."""

    rows: Dataset
    """With the columns `images` (undecoded), `messages` and `origin`. Each chat ends with a turn of the user, or with
    the answer to it."""
    without_image: int
    """How many chats were left out, because they have no image."""


def read_chats(
    source: str, *, split: str = "train", image_column: str = "image", with_answers: bool = False
) -> Chats | None:
    """Read chats. What follows the last turn of the user is its answer.

    Args:
        source: a file `.jsonl`, whose paths of images are relative to its folder; or a folder that `datasets` reads,
            or the id of a data set on the Hub.
        split: the split of a folder or a data set.
        image_column: the column with the image or the images of a chat. With `"image"`, it may be `images` too. The
            parts of a turn may have their images themselves.
        with_answers: whether to keep that answer, for training. A chat without one is an error.

    Returns:
        The chats; None if the data have no column `messages`.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: a chat is wrong, an image is missing, or no chat has an image. The message names it.
    """
    columns = IMAGE_COLUMNS if image_column == "image" else (image_column,)
    is_file = Path(source).suffix.lower() == ".jsonl"
    found = (
        file_rows(source, columns, with_answers) if is_file else data_set_rows(source, split, columns, with_answers)
    )
    if found is None:
        return None
    rows = found.filter(bool, input_columns=["images"])
    left_out = len(found) - len(rows)
    if not len(rows):
        raise ValueError(
            f"--data {source}: none of the {left_out} chats has an image in {' or '.join(columns)}, or in a part of a "
            "turn: name the column with --image-column"
        )
    if left_out:
        logger.warning("%s: %d of %d chats have no image and are left out", source, left_out, len(found))
    return Chats(rows, left_out)


def file_rows(source: str, columns: Sequence[str], with_answers: bool) -> Dataset | None:
    """Return the chats of a file with one JSON object per line; None if its first object is no chat."""
    objects = read_objects([source])
    first, _ = next(objects, ({}, ""))
    if MESSAGES not in first:
        return None
    found: dict[str, list[Any]] = {name: [] for name in FEATURES}
    for row, origin in read_objects([source]):
        json_field(row, MESSAGES, list, origin)
        for name, value in chat_of(row, columns, Path(source).parent, origin, with_answers).items():
            found[name].append(value)
    return Dataset.from_dict(found, features=FEATURES)


def data_set_rows(source: str, split: str, columns: Sequence[str], with_answers: bool) -> Dataset | None:
    """Return the chats of a folder or of a data set on the Hub; None if it has no column `messages`."""
    dataset = load_split(DataArguments(dataset=source, train_split=split), "train", streaming=False)
    if MESSAGES not in dataset.features:
        return None
    for name, feature in dataset.features.items():
        several = isinstance(feature, (List, LargeList))
        if isinstance(feature.feature if several else feature, Image):
            dataset = dataset.cast_column(name, List(Image(decode=False)) if several else Image(decode=False))
    folder = Path(source) if Path(source).is_dir() else Path()

    def convert(row: dict[str, Any], number: int) -> dict[str, Any]:
        return chat_of(row, columns, folder, f"{source}, {split}, row {number}", with_answers)

    return dataset.map(convert, with_indices=True, remove_columns=dataset.column_names, features=FEATURES)


def chat_of(
    row: Mapping[str, Any], columns: Sequence[str], folder: Path, origin: str, with_answers: bool = False
) -> dict[str, Any]:
    """Return a chat up to its last question or the answer to it, with the values of [`FEATURES`].

    Images of the column belong to the parts of the type `image` that have none themselves, in their order. If no turn
    has such a part, they stand before the first text of the user.

    Args:
        row: with `messages`.
        columns: those in which its images may be. The first one that is there counts.
        folder: what the paths of images are relative to.
        origin: where the row is, for messages.
        with_answers: whether to keep the answer.

    Raises:
        ValueError: a turn has no role or an unknown content, there is no turn of the user, or no answer to keep, or
            the images do not fit.
    """
    turns = [turn_of(turn, origin) for turn in row[MESSAGES] or []]
    users = [number for number, (turn, _) in enumerate(turns) if turn["role"] == USER]
    if not users:
        raise ValueError(f"{origin}: messages: there is no turn with the role 'user'")
    given = as_images(next((row[name] for name in columns if name in row), None))
    parts = [image for _, images in turns for image in images]
    if given and not parts:
        turn, images = turns[users[0]]
        turn["content"][:0] = [{"type": "image", "text": None}] * len(given)
        parts = [None] * len(given)
        images += parts
    missing = sum(image is None for image in parts)
    if missing != len(given):
        raise ValueError(
            f"{origin}: messages: {missing} parts of the type 'image' have no image themselves, but the row has "
            f"{len(given)} images: give one for each"
        )
    rest = iter(given)
    turns = turns[: users[-1] + 1 + with_answers]
    if with_answers and turns[-1][0]["role"] != ASSISTANT:
        raise ValueError(f"{origin}: messages: no turn with the role 'assistant' follows the last one of the user")
    found = [next(rest) if image is None else image for _, images in turns for image in images]
    return {
        "images": [undecoded(image, folder, origin) for image in found],
        MESSAGES: [turn for turn, _ in turns],
        "origin": origin,
    }


def turn_of(turn: Any, origin: str) -> tuple[Turn, list[Any]]:
    """Return a turn, and the image of each of its parts of the type `image`, None if it has none itself."""
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        raise ValueError(
            f"{origin}: messages: each turn must be an object with a 'role' and a 'content', got {turn!r}"
        )
    content = turn.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise ValueError(f"{origin}: messages: 'content' must be a text or a list of parts, got {content!r}")
    parts: list[dict[str, str | None]] = []
    images: list[Any] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in ("image", "image_url"):
            images.append(image_of_part(part))
            parts.append({"type": "image", "text": None})
        elif kind == "text" and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": part["text"]})
        else:
            raise ValueError(f"{origin}: messages: a part must be of the type 'text' or 'image', got {part!r}")
    return {"role": turn["role"], "content": parts}, images


def image_of_part(part: Mapping[str, Any]) -> Any:
    """Return the image of a part; None if it has none itself."""
    found = next((part[name] for name in IMAGE_KEYS if part.get(name) is not None), None)
    return found["url"] if isinstance(found, Mapping) and found.get("url") is not None else found


def as_images(value: Any) -> list[Any]:
    """Return the images in a column that holds one, a list or nothing."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def undecoded(image: Any, folder: Path, origin: str) -> dict[str, Any]:
    """Return an image, its bytes, its path or its URL as an undecoded `datasets` image."""
    try:
        found = image_of(image, None)
    except ValueError as error:
        raise ValueError(f"{origin}: an image of the chat {error}") from error
    path = found["path"]
    if found["bytes"] is not None or "://" in path or path.startswith("data:"):
        return found
    return find_image(folder, (path,), origin)
