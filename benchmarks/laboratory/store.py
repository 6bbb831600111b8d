"""The study's files: one JSON per student, per schedule and per teacher, in a folder that a later run continues."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pumer_hf.folders import write_json
from pumer_hf.results import Results

from .plan import Cell

PLAN = "plan"
Known = TypeVar("Known", bound=Results)
DONE, FAILED, OUT_OF_REACH, MISSING = "done", "failed", "out_of_reach", "missing"


def write(folder: Path, name: str, value: Mapping[str, Any] | Results) -> None:
    """Write `name.json`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", value.to_dict() if isinstance(value, Results) else value)


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """The content of `name.json`; None if it is not there or is not whole, so that it is made anew."""
    try:
        value = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


def load(folder: Path, name: str, kind: type[Known]) -> Known | None:
    """The typed content of `name.json`; None as of [`read`]."""
    value = read(folder, name)
    return None if value is None else kind.from_dict(value)


def state(folder: Path, cell: Cell) -> str:
    """How far a cell is: `DONE`, `FAILED`, `OUT_OF_REACH` or `MISSING`."""
    result = read(folder, cell.key)
    return MISSING if result is None else result.get("status", MISSING)


def write_plan(folder: Path, cells: Iterable[Cell]) -> None:
    """Write what there is to do, from which the tables know what is missing."""
    write(folder, PLAN, {"cells": [cell.to_dict() for cell in cells]})


def teacher_name(group: str) -> str:
    """Name of the file about the teacher of a group."""
    return f"{group}-teacher"


def remove(folder: Path, cell: Cell) -> None:
    """Remove the result of a cell, so that it is done again."""
    (folder / f"{cell.key}.json").unlink()
