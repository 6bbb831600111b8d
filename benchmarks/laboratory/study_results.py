"""Reads the results of the study from its folder, and sums them up over the seeds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from pumer_hf.results import Metric
from pumer_hf.results.metrics import mean_metric

from . import store
from .records import CellResult, TeacherResult
from .speeds import TOLERANCE

Row = tuple[str, float | None]
"""A method and a target speed."""
UPPER_BOUNDS = ("grounded",)
"""Methods that know from outside where to look. They show what pruning can reach at best, and do not compete."""
BASELINES = ("none",)
"""Methods that reduce nothing."""


@dataclass(frozen=True)
class Summary:
    """The cells of a method at a target speed. They differ only by the seed."""

    cells: tuple[CellResult, ...]

    def with_status(self, status: str | None) -> list[CellResult]:
        """Return the cells with a status: `"done"`, `"failed"`, `"out_of_reach"`, or None for those not run."""
        return [cell for cell in self.cells if cell.status == status]

    @property
    def metrics(self) -> list[Metric]:
        """The main metric of each cell that is done."""
        return [cell.value for cell in self.with_status(store.DONE) if cell.value is not None]

    @property
    def values(self) -> list[float]:
        """The same as numbers."""
        return [metric.value for metric in self.metrics]

    @property
    def speed(self) -> float:
        """The throughput relative to the teacher. All seeds share the schedule and its measured speed."""
        return mean(cell.speed for cell in self.cells if cell.speed is not None)

    @property
    def is_on_target(self) -> bool:
        """Whether a cell is done, and fast enough."""
        target = self.cells[0].target
        return bool(self.values) and (target is None or self.speed >= (1 - TOLERANCE) * target)


@dataclass(frozen=True)
class StudyResults:
    """The cells of the plan with their results, and the teachers."""

    cells: tuple[CellResult, ...]
    teachers: dict[str, TeacherResult]
    """The results of the teachers by group, `<data>-<backbone>`."""

    @property
    def groups(self) -> list[str]:
        """The groups with a teacher, in the order of the plan."""
        return [group for group in dict.fromkeys(cell.group for cell in self.cells) if group in self.teachers]

    def of(self, group: str, variant: str | None = None) -> list[CellResult]:
        """Return the cells of a group, or those of one variant if it is given."""
        return [cell for cell in self.cells if cell.group == group and variant in (None, cell.variant)]


def read_study(folder: Path) -> StudyResults:
    """Read the plan, which names the cells, and a file for each cell and teacher that has a result.

    Raises:
        FileNotFoundError: there is no study in the folder.
    """
    plan = store.read(folder, store.PLAN)
    if plan is None:
        path = folder / f"{store.PLAN}.json"
        raise FileNotFoundError(f"{path}: there is no study there yet; `python benchmarks/study.py` runs it")
    cells = [CellResult.from_dict({**cell, **(store.read(folder, cell["key"]) or {})}) for cell in plan["cells"]]
    groups = dict.fromkeys(cell.group for cell in cells)
    found = {group: store.load(folder, store.teacher_name(group), TeacherResult) for group in groups}
    return StudyResults(tuple(cells), {group: teacher for group, teacher in found.items() if teacher})


def summaries(cells: Iterable[CellResult]) -> dict[Row, Summary]:
    """Put cells together by method and target, in the order of the cells."""
    found: dict[Row, list[CellResult]] = {}
    for cell in cells:
        found.setdefault((cell.method, cell.target), []).append(cell)
    return {row: Summary(tuple(cells_of_row)) for row, cells_of_row in found.items()}


def winners(by_row: Mapping[Row, Summary]) -> set[Row]:
    """Return the row with the best mean at each target, among the methods that reach the target and compete."""
    best: dict[float, tuple[Metric, Row]] = {}
    for (method, target), summary in by_row.items():
        if target is None or method in (*UPPER_BOUNDS, *BASELINES) or not summary.is_on_target:
            continue
        score = mean_metric(summary.metrics)
        if target not in best or score.is_better_than(best[target][0]):
            best[target] = (score, (method, target))
    return {row for _, row in best.values()}
