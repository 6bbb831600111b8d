"""The results of the study of elastic students, and their table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from pumer_hf.results import Environment, Results, markdown_table
from pumer_hf.results.environment import ENVIRONMENT_FIELDS


@dataclass(frozen=True)
class SpeedRow:
    """One of the speeds that are compared."""

    target: float
    """The speed that was wanted, as a multiple of the teacher's."""
    schedule: dict[str, Any]
    """The schedule of this speed, as students have it."""
    speed: float
    """The measured speed of the schedule."""
    kept: int
    """The number of patches that `lookahead` keeps at this speed."""
    lookahead_speed: float
    """The measured speed of `lookahead`, with its scorer."""


@dataclass(frozen=True)
class ElasticSeed:
    """What was measured of one teacher and its students, in percent."""

    seed: int
    teacher: float
    """The accuracy of the unreduced teacher."""
    unreduced: float
    """The accuracy of the elastic student without reduction."""
    accuracy: dict[str, list[float]]
    """By name of the model, its accuracy at each speed."""


@dataclass(frozen=True)
class ElasticReport(Results):
    """The results of the study with the teachers of several seeds."""

    setting: str
    """The name of the data."""
    steps: int
    """The number of steps of each student."""
    num_questions: int
    rows: tuple[SpeedRow, ...]
    seeds: tuple[ElasticSeed, ...]
    environment: Environment = field(default_factory=Environment)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ElasticReport":
        rest = {name: value for name, value in values.items() if name not in ENVIRONMENT_FIELDS}
        rows = tuple(SpeedRow(**row) for row in rest.pop("rows"))
        seeds = tuple(ElasticSeed(**seed) for seed in rest.pop("seeds"))
        return cls(rows=rows, seeds=seeds, environment=Environment.from_dict(values), **rest)

    def to_dict(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("setting", "steps", "num_questions")}
        rows, seeds = ([asdict(one) for one in many] for many in (self.rows, self.seeds))
        return {**own, "rows": rows, "seeds": seeds, **self.environment.to_dict()}

    def changes(self, name: str, index: int, base: str | None = None) -> list[float]:
        """Return the difference of a model to another one at a speed, in points, for each seed.

        Args:
            name: the name of the model.
            index: the place of the speed in `rows`.
            base: the name of the other model; None: the unreduced teacher.
        """
        return [
            seed.accuracy[name][index] - (seed.teacher if base is None else seed.accuracy[base][index])
            for seed in self.seeds
        ]


def speed_name(target: float) -> str:
    """Return a speed as text: `"1.3x"`."""
    return f"{target:g}x"


def alone(target: float) -> str:
    """Return the name of the student that is trained for one speed."""
    return f"student for {speed_name(target)}"


def points(values: Sequence[float]) -> str:
    """Return the mean of differences in points, and the lowest and the highest one."""
    return f"{fmean(values):+.2f} [{min(values):+.2f}, {max(values):+.2f}]"


def elastic_table(reports: Mapping[str, ElasticReport]) -> str:
    """Return a table per report: a row for each model, a column for each speed, and a note."""
    return "\n".join(map(report_table, reports.values()))


def report_table(report: ElasticReport) -> str:
    """Return the table of one report. Its last rows compare the elastic student with the others, and with
    `lookahead` for each teacher.
    """
    header = ["", *(f"{row.speed:.2f}x" for row in report.rows)]
    numbers = range(len(report.rows))
    rows = [header] + [
        [row_name(name), *(points(report.changes(name, index)) for index in numbers)]
        for name in report.seeds[0].accuracy
    ]
    own = [points(report.changes("elastic", index, alone(row.target))) for index, row in enumerate(report.rows)]
    rows.append(["elastic minus the student for this speed", *own])
    rows.append(
        ["elastic minus lookahead", *(points(report.changes("elastic", index, "lookahead")) for index in numbers)]
    )
    for seed, one in enumerate(report.seeds):
        each = (f"{report.changes('elastic', index, 'lookahead')[seed]:+.2f}" for index in numbers)
        rows.append([f"elastic minus lookahead, the teacher of {one.teacher:.2f} %", *each])
    kept = ", ".join(f"{row.kept} ({row.lookahead_speed:.2f}x)" for row in report.rows)
    note = (
        f"Change of accuracy against the unreduced teacher in points, on {report.num_questions:,} test questions of "
        f"{report.setting}: mean over {len(report.seeds)} seeds, each with its own teacher and students, and [lowest, "
        f"highest]. Each student has {report.steps:,} steps. The teachers answer "
        f"{fmean(seed.teacher for seed in report.seeds):.2f} % right, the elastic students without reduction "
        f"{fmean(seed.unreduced for seed in report.seeds):.2f} %. The speeds are measured ones "
        f"({report.environment.machine_name}). Lookahead keeps {kept} patches."
    )
    return f"{markdown_table(rows)}\n\n{note}\n"


def row_name(name: str) -> str:
    """Return the title of the row of a model."""
    titles = {
        "elastic": "one elastic student",
        "not trained": "the teacher with the same schedule, not trained",
        "lookahead": "the teacher behind `lookahead`, not trained",
    }
    return titles.get(name, f"{name} alone")
