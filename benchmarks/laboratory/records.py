"""The results of the study as objects. Each cell, each schedule, each curve and each teacher has a JSON file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pumer_hf.results import PERCENT, Cost, Environment, Evaluation, Metric, Results, Throughput
from pumer_hf.results.metrics import metric_types, types_to_dict

from .speeds import Option


@dataclass(frozen=True)
class Curve(Results):
    """How fast a student is at every scale of its schedule."""

    options: tuple[Option, ...]
    gains: tuple[float, ...]
    """For each option, the teacher's FLOPs as a multiple of the option's."""
    speeds: tuple[float, ...]
    """For each option, the throughput as a multiple of the teacher's. It is computed from the measured options."""
    throughput: Throughput
    """The throughput of the teacher and of the measured options, by their number."""
    environment: Environment

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Curve":
        options = map(Option, values["reductions"], values["image_sizes"])
        figures = (tuple(values["gains"]), tuple(values["speeds"]), Throughput.from_dict(values["throughput"]))
        return cls(tuple(options), *figures, Environment.from_dict(values))

    def to_dict(self) -> dict[str, Any]:
        return {
            "reductions": [option.reduction for option in self.options],
            "image_sizes": [option.image_size for option in self.options],
            "gains": list(self.gains),
            "speeds": list(self.speeds),
            "throughput": self.throughput.to_dict(),
            **self.environment.to_dict(),
        }


@dataclass(frozen=True)
class Calibration(Results):
    """The schedule of a student, and what it costs compared with the teacher."""

    option: Option
    cost: Cost
    environment: Environment
    target: float | None = None
    reached: bool = True
    """Whether the method can be as fast as the target."""

    @property
    def speed(self) -> float:
        """The throughput as a multiple of the teacher's."""
        return self.throughput.gain

    @property
    def throughput(self) -> Throughput:
        """The throughput, which is always measured."""
        assert self.cost.throughput is not None, "the throughput of the schedule was not measured"
        return self.cost.throughput

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        option = Option(values["reduction"], values["image_size"])
        ends = (values["target"], values["reached"])
        return cls(option, Cost.from_dict(values), Environment.from_dict(values), *ends)

    def to_dict(self) -> dict[str, Any]:
        return {
            "reduction": self.option.reduction,
            "image_size": self.option.image_size,
            **self.cost.to_dict(),
            **self.environment.to_dict(),
            "target": self.target,
            "reached": self.reached,
        }


@dataclass(frozen=True)
class TeacherResult(Results):
    """The result of the teacher of a group."""

    group: str
    metric: str
    """The name of the main metric."""
    value: Metric
    gflops: float
    environment: Environment
    weights: str = ""
    """Hexadecimal digits that identify its weights."""
    tokens_per_layer: tuple[Sequence[int], ...] = ()
    evaluation: Evaluation | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TeacherResult":
        facts = {name: values[name] for name in ("group", "metric", "gflops", "weights")}
        tokens, environment = tuple(values["tokens_per_layer"]), Environment.from_dict(values)
        evaluation, value = evaluated(values)
        return cls(**facts, value=value, environment=environment, tokens_per_layer=tokens, evaluation=evaluation)

    def to_dict(self) -> dict[str, Any]:
        facts = {"status": "done", "group": self.group, **scores(self.evaluation), "weights": self.weights}
        sizes = {"gflops": self.gflops, "tokens_per_layer": [list(counts) for counts in self.tokens_per_layer]}
        return {**facts, **sizes, **self.environment.to_dict()}


@dataclass(frozen=True)
class CellResult:
    """A cell of the plan with its result. Without a result it has no status."""

    key: str
    group: str
    title: str
    method: str
    variant: str
    target: float | None
    seed: int
    status: str | None = None
    """`"done"`, `"failed"` or `"out_of_reach"`."""
    value: Metric | None = None
    """The main metric, if the cell is done."""
    speed: float | None = None
    """The throughput as a multiple of the teacher's."""
    reduction: dict[str, Any] | None = None
    gflops: float | None = None
    error: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CellResult":
        """Make the result from the plan of a cell and the values of its file."""
        planned = {name: values[name] for name in ("key", "group", "title", "method", "variant", "target", "seed")}
        return cls(
            **planned,
            status=values.get("status"),
            value=evaluated(values)[1] if "value" in values else None,
            speed=values.get("speed"),
            reduction=values.get("reduction"),
            gflops=values.get("gflops", {}).get("student"),
            error=values.get("error", ""),
        )


def scores(evaluation: Evaluation | None) -> dict[str, Any]:
    """Return what a file holds of an evaluation: the main metric, all metrics, and what they mean."""
    if evaluation is None:
        return {}
    main = {"metric": evaluation.main_name, "value": evaluation.main.value}
    return {**main, "metrics": types_to_dict([evaluation]), "report": evaluation.to_dict()}


def evaluated(values: Mapping[str, Any]) -> tuple[Evaluation | None, Metric]:
    """Read what [`scores`] made: the evaluation, if the file has it, and the main metric."""
    report = values.get("report", {})
    types = metric_types(values.get("metrics"), [report])
    evaluation = Evaluation.from_dict(report, types) if report else None
    return evaluation, types.get(values.get("metric", ""), PERCENT).of(values["value"])
