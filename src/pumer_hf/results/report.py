"""`Report` holds the results of a run, a card or an evaluation. It can be written to a JSON file and read again."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ..folders import check_file, write_json
from ..reading import read_object
from .cost import Cost, Throughput
from .elastic import Elastic
from .environment import ENVIRONMENT_FIELDS, Command, Environment
from .metrics import Evaluation, Metric, MetricType, metric_types, types_to_dict

ROLES = ("teacher", "student")
"""The models of a run by name, in the order of the tables."""
Kind = TypeVar("Kind", bound="Results")


class Results(ABC):
    """Results of a measurement that can be written to a JSON file and read again. Older files can be read too."""

    @classmethod
    @abstractmethod
    def from_dict(cls: type[Kind], values: Mapping[str, Any]) -> Kind:
        """Make the results from what a file holds."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds: plain JSON types, with numbers that are not rounded."""

    @classmethod
    def load(cls: type[Kind], path: str | Path) -> Kind:
        """Read a file. If it holds something else, raise `ValueError`, which names the file."""
        values = read_object(path)
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: these are no results that {cls.__name__} reads: {error!r}") from error

    def save(self, path: str | Path) -> None:
        """Write a file, completely or not at all."""
        write_json(Path(path), self.to_dict())

    def finish(self, output: str | Path | None) -> str:
        """Write a file if `output` names one. Return the line that a command prints about it."""
        if output is None:
            return "-o FILE.json writes all figures to a file, with the machine and the versions."
        self.save(output)
        return f"Written to {output}"


def check_results_file(output: str | Path | None) -> None:
    """Raise `ValueError` or `FileNotFoundError` before the work begins, if results cannot be written to the file of
    `-o`.
    """
    if output is not None:
        check_file(output, "-o")


@dataclass(frozen=True)
class SeedRun:
    """One of several students that were trained from one teacher and differ only by the seed."""

    seed: int
    student: Evaluation
    throughput: Throughput
    command: Command | None = None
    """Its own command, in older files. In newer ones all students are of the report's command."""

    @property
    def speed(self) -> float:
        """The speed of the student as a multiple of its teacher's."""
        return self.throughput.gain

    @classmethod
    def of(cls, seed: int, run: "Report") -> "SeedRun":
        """Return the student of a run, whose speed was measured. Its command is that of the report."""
        throughput = run.cost.throughput
        assert throughput is not None, "the throughput of the models was not measured"
        return cls(seed, run.evaluations["student"], throughput)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], types: Mapping[str, MetricType]) -> "SeedRun":
        """Read a run from the values of a file. `types` says what the metrics mean."""
        student = Evaluation.from_dict(values["student"], types)
        return cls(values["seed"], student, Throughput.from_dict(values["throughput"]), Command.from_dict(values))

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds."""
        return {
            "seed": self.seed,
            "metric": self.student.main_name,
            "value": self.student.main.value,
            "speed": self.speed,
            "student": self.student.to_dict(),
            "throughput": {"ratio": self.throughput.gain, **self.throughput.to_dict()},
            **({} if self.command is None else self.command.to_dict()),
        }


@dataclass(frozen=True)
class Report(Results):
    """The results of a recipe's run, or what a model card knows about them. A field that is unknown is empty."""

    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    """The evaluations by role of the model, one of `ROLES`."""
    cost: Cost = field(default_factory=Cost)
    environment: Environment = field(default_factory=Environment)
    baselines: dict[str, Metric] = field(default_factory=dict)
    """The main metric of answers that are given without looking at images, by name of the baseline."""
    missing_images: dict[str, int] = field(default_factory=dict)
    """How many rows were left out because an image is missing, by split."""
    seeds: tuple[SeedRun, ...] = ()
    """The students, if several were trained. Then `evaluations` has their means."""
    elastic: Elastic | None = None
    """The student at several speeds, if it was trained for them."""
    other: dict[str, Any] = field(default_factory=dict)
    """Other values of a file. They are kept as they are."""

    @classmethod
    def of_seeds(cls, runs: Mapping[int, "Report"]) -> "Report":
        """Make one report about several students of one teacher.

        Args:
            runs: what was measured of each student and its teacher, by the seed of the student; at least one.

        Returns:
            The report of the first student, if there is only one. Else it has these changes: the evaluation of the
            student has the means over the seeds, the cost is that of the student with the median speed, and `seeds`
            has every student. The results of an elastic student stay those of the first one.
        """
        first = next(iter(runs.values()))
        if len(runs) == 1:
            return first
        seeds = [SeedRun.of(seed, run) for seed, run in runs.items()]
        median = sorted(seeds, key=lambda run: run.speed)[len(seeds) // 2]
        return replace(
            first,
            evaluations={**first.evaluations, "student": Evaluation.mean([run.student for run in seeds])},
            cost=runs[median.seed].cost,
            seeds=tuple(seeds),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], unit: str = "%") -> "Report":
        """Make the report from what a file holds.

        Args:
            values: the content of the file.
            unit: the unit of the metrics in an older file, which does not say it.
        """
        rest = {name: value for name, value in values.items() if name not in FIELDS}
        evaluated = {role: values[role] for role in ROLES if role in values}
        types = metric_types(values.get("metrics"), evaluated.values(), unit)
        evaluations = {role: Evaluation.from_dict(numbers, types) for role, numbers in evaluated.items()}
        main = next((one.main.type for one in evaluations.values()), MetricType(unit))
        return cls(
            evaluations=evaluations,
            cost=Cost.from_dict(values),
            environment=Environment.from_dict(values),
            baselines={
                name: main.read(value, f"baselines.{name}") for name, value in values.get("baselines", {}).items()
            },
            missing_images=dict(values.get("missing_images", {})),
            seeds=tuple(SeedRun.from_dict(run, types) for run in values.get("seeds", ())),
            elastic=Elastic.from_dict(values["elastic"], types) if values.get("elastic") else None,
            other=rest,
        )

    def to_dict(self) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "metrics": types_to_dict(self.evaluations.values()),
            **{role: one.to_dict() for role, one in self.evaluations.items()},
            **self.cost.to_dict(),
            **self.environment.to_dict(),
            "missing_images": self.missing_images,
            "baselines": {name: metric.value for name, metric in self.baselines.items()},
            "seeds": [run.to_dict() for run in self.seeds],
            "elastic": None if self.elastic is None else self.elastic.to_dict(),
            **self.other,
        }
        return {name: value for name, value in parts.items() if value}


FIELDS = (
    *("metrics", *ROLES, *(part.name for part in fields(Cost)), *ENVIRONMENT_FIELDS),
    *("baselines", "missing_images", "seeds", "elastic"),
)
"""The names of the fields in a file of a [`Report`]."""
