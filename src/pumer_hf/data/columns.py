"""Converters from the columns of Hub datasets, in their many forms, to the values that tasks need.

A converter takes the value of a row and the feature of its column, and returns the value for the task. It returns None
if the row has no label. It raises `ValueError` with what is wrong with the column; the caller adds column and row.
"""

import math
import reprlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Image, LargeList, List, Value

Convert = Callable[[Any, Any], Any]
NO_LABEL = ("", "-", "-1")
"""What datasets write instead of a label, apart from null. SNLI-VE does so if its annotators disagree, other
datasets if their labels are not public.
"""


class Several(dict[str, Any]):
    """The values of several columns that a converter makes from one column."""


def text_of(value: Any, feature: Any) -> str:
    """Return a text, also from a list with one text."""
    value = _single(plain(value, feature))
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"must hold text, got {reprlib.repr(value)}")
    return value


def class_name(value: Any, feature: Any) -> str | None:
    """Return the class name of a label, for numbers from a `ClassLabel`; None if there is no label."""
    name = _label(value, feature)
    if name is None or isinstance(name, str):
        return name
    raise ValueError(f"has labels that are numbers without names, such as {name!r}: cast it to ClassLabel")


def truth(value: Any, feature: Any) -> str | None:
    """Return the label of a statement, a name or a number, as `"True"` or `"False"`; None if there is no label."""
    label = _label(value, feature)
    if label is None:
        return None
    name = str(label).strip().lower()
    if name in ("true", "1"):
        return "True"
    if name in ("false", "0"):
        return "False"
    raise ValueError(f"has the label {label!r}, which is neither true nor false")


def answers_of(value: Any, feature: Any) -> list[str] | Several | None:
    """Return the answers to a question, one per annotator; None if there are none.

    The column holds one answer, a list, a list of objects with an `answer`, or an object with `ids` and `weights`. The
    weights, in [0, 1], are the scores of the answers. They become the column `answer_weights`.
    """
    value = plain(value, feature)
    if isinstance(value, dict) and {"ids", "weights"} <= value.keys():
        return _weighted(value["ids"] or [], value["weights"] or [])
    return _strings(value, ("answer",)) or None


def captions_of(value: Any, feature: Any) -> list[str]:
    """Return the captions of an image, at least one.

    The column holds one caption, a list, or a list of objects with a `raw` (Karpathy's files) or a `caption` (COCO).
    """
    found = _strings(plain(value, feature), ("raw", "caption"))
    if not found:
        raise ValueError(f"must hold at least one caption, got {reprlib.repr(value)}")
    return found


def image_of(value: Any, feature: Any) -> dict[str, Any]:
    """Return an undecoded `datasets` image, from an image, its bytes, its path, or a list with one of these."""
    value = _single(value)
    if isinstance(value, str):
        value = {"path": value, "bytes": None}
    elif isinstance(value, bytes):
        value = {"path": None, "bytes": value}
    if not isinstance(value, dict) or (value.get("bytes") is None and not value.get("path")):
        raise ValueError(f"must hold an image, its bytes or its path, got {reprlib.repr(value)}")
    return {"path": value.get("path"), "bytes": value.get("bytes")}


def in_folder(image: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """Return an undecoded image with its path looked up in `folder`.

    Paths with a protocol (`zip://a.png::train.zip`), data URIs and images with bytes stay as they are.
    """
    path = image["path"]
    if image["bytes"] is not None or "://" in path or path.startswith("data:"):
        return image
    file = Path(path) if folder is None else folder / path
    if not file.is_file():
        raise ValueError(f"names the image {path!r}, but there is no file {file}: data.image_dir is their folder")
    return {"path": str(file), "bytes": None}


def is_undecoded_image(feature: Any) -> bool:
    """Whether `cast_column` can turn a column into images without reading them."""
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return isinstance(feature, Image) or (isinstance(feature, Value) and feature.dtype == "binary")


def _label(value: Any, feature: Any) -> Any:
    """Return a label; None if the value means that there is none."""
    label = _single(plain(value, feature))
    return None if label is None or str(label).strip() in NO_LABEL else label


def plain(value: Any, feature: Any) -> Any:
    """Return a value in plain form, also inside lists and objects.

    The numbers of a `ClassLabel` become names, NaN becomes None, and whole numbers become int.
    """
    if isinstance(feature, ClassLabel):
        return None if value in (None, -1) else feature.int2str(value)
    if isinstance(value, list):
        inner = feature.feature if isinstance(feature, (List, LargeList)) else None
        return [plain(item, inner) for item in value]
    if isinstance(value, dict):
        inner = feature if isinstance(feature, dict) else {}
        return {name: plain(item, inner.get(name)) for name, item in value.items()}
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    return value


def _single(value: Any) -> Any:
    """Return the only item of a list. Any other value stays as it is."""
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise ValueError(f"holds a list of {len(value)}, which must have one item")
    return value[0]


def _strings(value: Any, keys: Collection[str]) -> list[str]:
    """Return all strings in a value. Nulls and blank strings are left out.

    Args:
        value: a string, a whole number, an object with one of `keys`, or a list of these. Older versions of `datasets`
            wrote a list of objects as an object of lists.
        keys: the possible names of the field of an object that holds the string.
    """
    if value is None:
        return []
    if isinstance(value, list):
        return [item for part in value for item in _strings(part, keys)]
    if isinstance(value, dict):
        key = next((key for key in keys if key in value), None)
        if key is None:
            raise ValueError(f"holds objects with the fields {list(value)}, which need {' or '.join(keys)}")
        return _strings(value[key], keys)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [str(value)]
    if not isinstance(value, str):
        raise ValueError(f"must hold text, got {reprlib.repr(value)}")
    return [value] if value.strip() else []


def _weighted(ids: list[Any], weights: list[Any]) -> Several | None:
    if len(ids) != len(weights):
        raise ValueError(f"has {len(ids)} ids and {len(weights)} weights")
    if not all(isinstance(weight, (int, float)) and 0 <= weight <= 1 for weight in weights):
        raise ValueError(f"must have weights in [0, 1], got {reprlib.repr(weights)}")
    scored = [
        (answer, float(weight)) for given, weight in zip(ids, weights, strict=True) for answer in _strings(given, ())
    ]
    if not scored:
        return None
    return Several(answers=[answer for answer, _ in scored], answer_weights=[weight for _, weight in scored])
