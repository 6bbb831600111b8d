"""The results of an elastic student: its accuracy and its measured speed at several factors of its schedule."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..bench.cost import measure_sizes
from ..bench.throughput import compare_throughput
from ..models.reducible import reduction_of
from ..results import Cost, Elastic, Evaluation

NUM_FACTORS = 5
"""The number of factors at which an elastic student is evaluated, evenly spaced from the least to the most."""


class AtFactor(nn.Module):
    """A model whose forward reduces by a factor of its schedule."""

    def __init__(self, model: nn.Module, factor: float):
        super().__init__()
        self.model = model
        self.factor = factor

    def forward(self, **inputs: Any) -> Any:
        reduction_of(self.model).scale(self.factor)
        return self.model(**inputs)


def spaced_factors(elastic: Sequence[float]) -> dict[str, float]:
    """Return the factors at which an elastic student is evaluated, by their names in the results."""
    least, most = elastic
    factors = [least + (most - least) * step / (NUM_FACTORS - 1) for step in range(NUM_FACTORS)]
    return {f"{factor:g}": factor for factor in factors}


@contextmanager
def scaled(model: nn.Module, factor: float) -> Iterator[None]:
    """Reduce by a factor of the schedule inside a `with` block, and by all of it after the block."""
    reduction = reduction_of(model)
    reduction.scale(factor)
    try:
        yield
    finally:
        reduction.scale(1.0)


def elastic_evaluations(
    elastic: Sequence[float], student: nn.Module, evaluate: Callable[[], Evaluation]
) -> dict[str, Evaluation]:
    """Evaluate an elastic student at each factor.

    Args:
        elastic: the least and the most factor.
        student: the student.
        evaluate: evaluates it as it is.
    """
    found = {}
    for name, factor in spaced_factors(elastic).items():
        with scaled(student, factor):
            found[name] = evaluate()
    return found


def elastic_results(
    evaluations: dict[str, Evaluation],
    models: Mapping[str, nn.Module],
    batches: Mapping[str, dict[str, Any]],
    examples: Mapping[str, dict[str, Any]],
    seconds: float,
) -> Elastic:
    """Measure what an elastic student costs at each factor, interleaved with its teacher in one run.

    Args:
        evaluations: from [`elastic_evaluations`].
        models: `"teacher"` and `"student"`.
        batches: the inputs of each for the speed.
        examples: the inputs of one example of each.
        seconds: how long teacher and student are measured. The factors get as much time each.
    """
    teacher, student = models["teacher"].eval(), models["student"].eval()
    gflops = dict(measure_sizes({"teacher": teacher}, examples).gflops)
    for name in evaluations:
        with scaled(student, float(name)):
            gflops[name] = measure_sizes({"student": student}, examples).gflops["student"]
    with scaled(student, 1.0):  # the last factor of a round is left behind
        throughput = compare_throughput(
            {"teacher": teacher, **{name: AtFactor(student, float(name)) for name in evaluations}},
            batches["teacher"],
            own_inputs=dict.fromkeys(evaluations, batches["student"]),
            seconds=seconds * len(evaluations) / 2,
        )
    return Elastic(evaluations, Cost(throughput=throughput, gflops=gflops))
