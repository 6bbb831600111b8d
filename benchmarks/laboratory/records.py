"""The results of the study as objects. Each cell, each schedule and each teacher has a JSON file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pumer_hf.reducers import PlainSchedule
from pumer_hf.results import PERCENT, Cost, Environment, Evaluation, Metric, Results, Throughput
from pumer_hf.results.metrics import metric_types, types_to_dict

TOLERANCE = 0.05
"""The part of its target by which a measured speed may be off."""


@dataclass(frozen=True)
class Option:
    """One way to run a student."""

    reduction: PlainSchedule | None
    image_size: int | None = None
    """Side of the images in pixels; None for the teacher's."""


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
    """The result of a teacher of a group."""

    group: str
    seed: int
    metric: str
    """The name of the main metric."""
    value: Metric
    gflops: float
    environment: Environment
    weights: str = ""
    """Hexadecimal digits that identify its weights."""
    tokens_per_layer: tuple[Sequence[int], ...] = ()
    evaluation: Evaluation | None = None
    baselines: Mapping[str, Evaluation] = field(default_factory=dict)
    """What it answers with no image, `"no_image"`, and with that of another question, `"wrong_image"`."""
    limit: float | None = None
    """The highest speed of a method that reduces before the first layer: without the layers, this much is left."""

    @property
    def by_group(self) -> Mapping[str, float]:
        """The accuracy in percent by group and kind of questions."""
        return {} if self.evaluation is None else by_group(self.evaluation)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TeacherResult":
        facts = {name: values[name] for name in ("group", "seed", "metric", "gflops", "weights", "limit")}
        tokens, environment = tuple(values["tokens_per_layer"]), Environment.from_dict(values)
        evaluation, value = evaluated(values)
        types = metric_types(values.get("metrics"), [values.get("report", {})])
        baselines = {name: Evaluation.from_dict(one, types) for name, one in values.get("baselines", {}).items()}
        return cls(
            **facts,
            value=value,
            environment=environment,
            tokens_per_layer=tokens,
            evaluation=evaluation,
            baselines=baselines,
        )

    def to_dict(self) -> dict[str, Any]:
        facts = {"status": "done", "group": self.group, "seed": self.seed, **scores(self.evaluation)}
        facts |= {
            "limit": self.limit,
            "weights": self.weights,
            "baselines": {name: one.to_dict() for name, one in self.baselines.items()},
        }
        sizes = {"gflops": self.gflops, "tokens_per_layer": [list(counts) for counts in self.tokens_per_layer]}
        return {**facts, **sizes, **self.environment.to_dict()}


PLANNED = ("key", "group", "title", "method", "variant", "target", "seed", "is_trained")
"""The fields of a cell that the plan has."""


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
    is_trained: bool
    status: str | None = None
    """`"done"`, `"failed"` or `"out_of_reach"`."""
    value: Metric | None = None
    """The main metric, if the cell is done."""
    speed: float | None = None
    """The throughput as a multiple of the teacher's."""
    reduction: PlainSchedule | None = None
    image_size: int | None = None
    gflops: float | None = None
    error: str = ""
    by_group: Mapping[str, float] = field(default_factory=dict)
    """The accuracy in percent by group and kind of questions."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CellResult":
        """Make the result from the plan of a cell and the values of its file."""
        planned = {name: values[name] for name in PLANNED}
        return cls(
            **planned,
            status=values.get("status"),
            value=evaluated(values)[1] if "value" in values else None,
            speed=values.get("speed"),
            reduction=values.get("reduction"),
            image_size=values.get("image_size"),
            gflops=values.get("gflops", {}).get("student"),
            error=values.get("error", ""),
            by_group=values.get("report", {}).get("accuracy_by_kind", {}),
        )


def by_group(evaluation: Evaluation) -> dict[str, float]:
    """Return the accuracy in percent by group and kind of questions; empty for another metric."""
    return {name: metric.value for name, metric in evaluation.by_kind.get("accuracy", {}).items()}


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
