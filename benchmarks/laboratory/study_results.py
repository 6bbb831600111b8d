"""The results of the study, read from its folder and summed up over seeds."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

TOLERANCE = 0.05
"""A measured speed may be off its target by this part."""
UPPER_BOUNDS = ("grounded",)
"""Methods that are told where to look: they bound what pruning can reach, and win nothing."""
BASELINES = ("none",)
"""Methods that reduce nothing."""


@dataclass(frozen=True)
class Summary:
    """The cells of a row at a target speed, which differ by the seed only."""

    cells: tuple[dict[str, Any], ...]
    """As planned, with what the results add; a cell without a result has no `status`."""

    def with_status(self, status: str | None) -> list[dict[str, Any]]:
        """The cells of a status, `"done"`, `"failed"`, `"out_of_reach"`, or None for those not run."""
        return [cell for cell in self.cells if cell.get("status") == status]

    @property
    def values(self) -> list[float]:
        """The metric in percent, of the seeds that are done."""
        return [cell["value"] for cell in self.with_status("done")]

    @property
    def speed(self) -> float:
        """Throughput relative to the teacher; all seeds share the schedule and its measured speed."""
        return mean(cell["speed"] for cell in self.cells if "speed" in cell)

    @property
    def is_on_target(self) -> bool:
        """Whether it is done, and fast enough."""
        target = self.cells[0]["target"]
        return bool(self.values) and (target is None or self.speed >= (1 - TOLERANCE) * target)


@dataclass(frozen=True)
class StudyResults:
    """What is planned and what there is."""

    cells: tuple[dict[str, Any], ...]
    teachers: dict[str, dict[str, Any]]
    """By group, `<data>-<backbone>`."""

    @property
    def groups(self) -> list[str]:
        """Those with a teacher, in order of the plan."""
        return [group for group in dict.fromkeys(cell["group"] for cell in self.cells) if group in self.teachers]

    def of(self, group: str, variant: str | None = None) -> list[dict[str, Any]]:
        """The cells of a group; of a variant, if it is given."""
        return [cell for cell in self.cells if cell["group"] == group and variant in (None, cell["variant"])]


def read_study(folder: Path) -> StudyResults:
    """Read `plan.json`, which names the cells, and a file for each cell and teacher that has a result.

    Raises:
        FileNotFoundError: there is no study in the folder.
    """
    plan = folder / "plan.json"
    if not plan.is_file():
        raise FileNotFoundError(f"{plan}: there is no study there yet; `python benchmarks/study.py` runs it")
    cells = [{**cell, **_read(folder / f"{cell['key']}.json")} for cell in _read(plan)["cells"]]
    groups = {cell["group"]: _read(folder / f"{cell['group']}-teacher.json") for cell in cells}
    return StudyResults(tuple(cells), {group: teacher for group, teacher in groups.items() if teacher})


def summaries(cells: Iterable[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], Summary]:
    """Cells put together by the fields `names`, in order of the cells."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        found.setdefault(tuple(cell[name] for name in names), []).append(cell)
    return {key: Summary(tuple(own)) for key, own in found.items()}


def winners(by_row: dict[tuple[str, float | None], Summary]) -> set[tuple[str, float | None]]:
    """Of summaries by method and target: the best mean of each target, among those that reach it and compete."""
    best: dict[float, tuple[float, tuple[str, float | None]]] = {}
    for (method, target), summary in by_row.items():
        if target is None or method in (*UPPER_BOUNDS, *BASELINES) or not summary.is_on_target:
            continue
        score = mean(summary.values)
        if target not in best or score > best[target][0]:
            best[target] = (score, (method, target))
    return {row for _, row in best.values()}


def _read(path: Path) -> dict[str, Any]:
    """The content of a file; nothing if it is not there or is not whole, since the study then makes it anew."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
