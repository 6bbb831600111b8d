"""Reads and writes the files of the study: a JSON file per student, schedule, curve and teacher in one folder."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pumer_hf.folders import write_json
from pumer_hf.hub.sources import published_environment
from pumer_hf.results import Environment, Results
from pumer_hf.results.metrics import BY_KIND

from .plan import Cell

KEPT = ("status", "error", "metric", "value", "speed", "reduction", "image_size")
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


def join(folder: Path, cells: Iterable[Cell]) -> dict[str, dict[str, Any]]:
    """Return by group what the tables need: each cell of the plan with its result, and the teachers.

    A group without a teacher is left out.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.group, []).append(cell)
    joined = {}
    for group, members in groups.items():
        found = [read(folder, teacher_name(group, seed)) for seed in dict.fromkeys(cell.seed for cell in members)]
        teachers = [_published(teacher) for teacher in found if teacher is not None]
        if teachers:
            results = [{**cell.to_dict(), **_kept(read(folder, cell.key) or {})} for cell in members]
            joined[group] = {"teachers": teachers, "cells": results}
    return joined


def _published(teacher: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a teacher whose command names no folder of this machine."""
    return {**teacher, **published_environment(Environment.from_dict(teacher)).to_dict()}


def _kept(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a cell's result that the tables read. The rest is in the cell's own file."""
    kept = {name: result[name] for name in KEPT if name in result}
    if "error" in kept:
        kept["error"] = kept["error"].partition(":")[0]  # what follows may name folders of this machine
    if "metric" in result:
        main = result["metric"]
        kept["metrics"] = {main: result["metrics"][main]}
        kept["report"] = {
            name: value for name, value in result["report"].items() if name in (main, f"{main}{BY_KIND}")
        }
        kept["gflops"] = {"student": result["gflops"]["student"]}
    return kept


def teacher_name(group: str, seed: int) -> str:
    """Return the name of the file about a teacher of a group."""
    return f"{group}-teacher-seed{seed}"


def remove(folder: Path, cell: Cell) -> None:
    """Remove the result of a cell, so that it is done again."""
    (folder / f"{cell.key}.json").unlink()
