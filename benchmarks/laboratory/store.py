"""Reads and writes the files of the study: a JSON file per student, schedule, curve and teacher in one folder."""

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
    """Write `name.json`, completely or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", value.to_dict() if isinstance(value, Results) else value)


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """Return the content of `name.json`. Return None if it is missing or incomplete: then it is made again."""
    try:
        value = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


def load(folder: Path, name: str, kind: type[Known]) -> Known | None:
    """Return the content of `name.json` as an object of a type; None if [`read`] returns None."""
    value = read(folder, name)
    return None if value is None else kind.from_dict(value)


def state(folder: Path, cell: Cell) -> str:
    """Return the state of a cell: `DONE`, `FAILED`, `OUT_OF_REACH` or `MISSING`."""
    result = read(folder, cell.key)
    return MISSING if result is None else result.get("status", MISSING)


def write_plan(folder: Path, cells: Iterable[Cell]) -> None:
    """Write the list of all cells. The tables read it to know which cells are missing."""
    write(folder, PLAN, {"cells": [cell.to_dict() for cell in cells]})


def teacher_name(group: str) -> str:
    """Return the name of the file about the teacher of a group."""
    return f"{group}-teacher"


def remove(folder: Path, cell: Cell) -> None:
    """Remove the result of a cell, so that it is done again."""
    (folder / f"{cell.key}.json").unlink()
