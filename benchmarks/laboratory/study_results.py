"""The results of a group of the study, summed up over the seeds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Any

from pumer_hf.results import Metric, Results

from . import store
from .methods import MAIN
from .records import TOLERANCE, CellResult, TeacherResult

Row = tuple[str, float | None]
"""A method and a target speed, or a variant and a target speed."""
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
    def values(self) -> list[float]:
        """The main metric of each cell that is done."""
        return [cell.value.value for cell in self.with_status(store.DONE) if cell.value is not None]

    @property
    def speed(self) -> float:
        """The throughput relative to the teacher. All seeds share the schedule and its measured speed."""
        return mean(cell.speed for cell in self.cells if cell.speed is not None)

    @property
    def is_on_target(self) -> bool:
        """Whether all cells are done, and fast enough."""
        target = self.cells[0].target
        return len(self.values) == len(self.cells) and (target is None or self.speed >= (1 - TOLERANCE) * target)


@dataclass(frozen=True)
class GroupResults(Results):
    """The cells of a group with their results, and its teachers: the content of a file."""

    values: dict[str, Any]
    """What [`store.join`] returns for a group."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GroupResults":
        return cls(dict(values))

    def to_dict(self) -> dict[str, Any]:
        return self.values

    @cached_property
    def cells(self) -> tuple[CellResult, ...]:
        """All cells of the plan."""
        return tuple(map(CellResult.from_dict, self.values["cells"]))

    @cached_property
    def teachers(self) -> tuple[TeacherResult, ...]:
        """The teachers that are done, one per seed."""
        return tuple(map(TeacherResult.from_dict, self.values["teachers"]))

    @property
    def name(self) -> str:
        """The data set and the backbone."""
        return self.teachers[0].group

    @property
    def has_curves(self) -> bool:
        """Whether a student that reduces is done, so that there is something to draw."""
        return any(cell.status == store.DONE and cell.method not in BASELINES for cell in self.cells)

    def teacher(self, seed: int) -> TeacherResult:
        """Return the teacher of a seed.

        Raises:
            ValueError: there are results of its students, but none of the teacher.
        """
        for teacher in self.teachers:
            if teacher.seed == seed:
                return teacher
        raise ValueError(
            f"{store.teacher_name(self.name, seed)}.json: the results of this teacher are missing: copy them from the "
            "machine that has them, or remove the results of one of its students and run the study again"
        )

    def main(self, is_trained: bool) -> list[CellResult]:
        """Return the cells of the methods themselves, trained or not. A model trained on is among the trained ones."""
        return [cell for cell in self.cells if cell.variant == MAIN and cell.is_trained == is_trained]

    def ablations(self, is_trained: bool) -> list[CellResult]:
        """Return the cells of the variants, trained or not."""
        return [cell for cell in self.cells if cell.variant != MAIN and cell.is_trained == is_trained]

    def changes(self, summary: "Summary", kind: str | None = None) -> list[float]:
        """Return for each seed of a summary how much its metric differs from that of its own teacher.

        Args:
            summary: cells that are done or not.
            kind: a group or kind of questions, whose accuracy is compared; None for the main metric.
        """
        found = []
        for cell in summary.with_status(store.DONE):
            teacher = self.teacher(cell.seed)
            if kind is None and cell.value is not None:
                found.append(cell.value.value - teacher.value.value)
            elif kind is not None and kind in cell.by_group:
                found.append(cell.by_group[kind] - teacher.by_group[kind])
        return found


def summaries(cells: Iterable[CellResult], by_variant: bool = False) -> dict[Row, Summary]:
    """Put cells together that differ only by the seed, in the order of the cells."""
    found: dict[Row, list[CellResult]] = {}
    for cell in cells:
        found.setdefault((cell.variant if by_variant else cell.method, cell.target), []).append(cell)
    return {row: Summary(tuple(cells_of_row)) for row, cells_of_row in found.items()}


def winners(results: GroupResults, by_row: Mapping[Row, Summary]) -> set[Row]:
    """Return the row with the best mean change at each target, among the methods that reach the target and compete.

    A method competes when it has the results of all seeds.
    """
    best: dict[float, tuple[Metric, Row]] = {}
    kind = results.teachers[0].value.type
    for (method, target), summary in by_row.items():
        if target is None or method in (*UPPER_BOUNDS, *BASELINES) or not summary.is_on_target:
            continue
        score = kind.of(mean(results.changes(summary)))
        if target not in best or score.is_better_than(best[target][0]):
            best[target] = (score, (method, target))
    return {row for _, row in best.values()}
