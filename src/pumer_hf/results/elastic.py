"""What an elastic student can do at several speeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .cost import Cost
from .metrics import Evaluation, Metric, MetricType


class SpeedPoint(NamedTuple):
    """An elastic student at one factor."""

    factor: float
    """What the ratios of the schedule are multiplied by."""
    metric: Metric
    speed: float
    """The measured speed as a multiple of the teacher's."""
    gflops_gain: float
    """The FLOPs of the teacher as a multiple of the student's."""


@dataclass(frozen=True)
class Elastic:
    """One student at several factors of its schedule, measured with its teacher in one interleaved run."""

    evaluations: dict[str, Evaluation]
    """The evaluations of the student, by its factor: `"0.25"`."""
    cost: Cost
    """The throughput and the GFLOPs of the teacher, which is the first, and of the student at each factor."""

    @property
    def points(self) -> list[SpeedPoint]:
        """The student at each factor, from the least to the most."""
        throughput, gflops = self.cost.throughput, self.cost.gflops
        assert throughput is not None, "an elastic student is measured at each factor"
        whole = gflops[throughput.names[0]]
        return [
            SpeedPoint(float(name), one.main, throughput.speeds[name].ratio, whole / gflops[name])
            for name, one in self.evaluations.items()
        ]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], types: Mapping[str, MetricType]) -> "Elastic":
        """Read the results from the values of a file. `types` says what the metrics mean."""
        evaluations = {name: Evaluation.from_dict(one, types) for name, one in values["evaluations"].items()}
        return cls(evaluations, Cost.from_dict(values))

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds."""
        return {"evaluations": {name: one.to_dict() for name, one in self.evaluations.items()}, **self.cost.to_dict()}
