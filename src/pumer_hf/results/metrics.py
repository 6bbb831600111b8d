"""How good a model is: `Metric` has a value, its unit and its direction; `Evaluation` has all metrics of a model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from ..figures import figure

WITH_DECIMALS = ("%", "points")
"""Units whose values are shown with two decimals. Values of other units have four significant digits."""
BY_KIND = "_by_kind"
"""The end of a name in a file: `accuracy_by_kind` holds the accuracy of each kind of question."""


@dataclass(frozen=True)
class MetricType:
    """What the values of a metric mean."""

    unit: str = ""
    """The unit, such as `"%"`, `"points"` or `"tokens/s"`. It is empty for a plain number, such as a loss."""
    higher_is_better: bool = True

    def of(self, value: float) -> "Metric":
        """Return a metric of this type with the value."""
        return Metric(value, self.unit, self.higher_is_better)

    def read(self, value: Any, name: str) -> "Metric":
        """A value of this type from a file; raises `ValueError` if it is no number."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{name}={value!r}: must be a number")
        return self.of(value)

    @property
    def difference(self) -> "MetricType":
        """The type of the difference of two values. That of two percentages is in points."""
        return MetricType("points" if self.unit == "%" else self.unit, self.higher_is_better)

    def label(self, name: str) -> str:
        """Return the name of a metric with its unit, for a table whose cells have no units: `accuracy, %`."""
        return f"{self.title(name)}, {self.unit}" if self.unit else self.title(name)

    def title(self, name: str) -> str:
        """Return the name of a metric in words. If lower is better, the words say so."""
        words = name.replace("_", " ")
        return words if self.higher_is_better else f"{words} (lower is better)"


PERCENT = MetricType("%")
IMAGE_TOKENS = {"image_tokens": MetricType("", higher_is_better=False)}
"""What the number of image tokens that an example keeps means, where the data decide about it (`keep_mass`)."""


@dataclass(frozen=True)
class Metric:
    """A measured value with its unit and its direction. It prints with the unit: `93.67 %`."""

    value: float
    unit: str = ""
    higher_is_better: bool = True

    def __str__(self) -> str:
        return self.text()

    @property
    def type(self) -> MetricType:
        """The unit and the direction."""
        return MetricType(self.unit, self.higher_is_better)

    @property
    def number(self) -> str:
        """The value for a table, without the unit."""
        return self._number(2)

    def text(self, decimals: int = 2) -> str:
        """Return the value with its unit. `decimals` is for the units in `WITH_DECIMALS`."""
        return f"{self._number(decimals)} {self.unit}".rstrip()

    @property
    def rounded(self) -> float:
        """The value with the digits that tables show."""
        return round(self.value, 2) if self.unit in WITH_DECIMALS else float(f"{self.value:.4g}")

    def change_from(self, other: "Metric") -> str:
        """Return the difference to another value, with sign and unit: `-0.19 points` between two percentages."""
        return f"{self.signed(self.value - other.value)} {self.type.difference.unit}".rstrip()

    def signed(self, difference: float) -> str:
        """Return a difference of two such values as text, with its sign and without the unit."""
        return f"{difference:+.2f}" if self.unit in WITH_DECIMALS else f"{difference:+.4g}"

    def is_better_than(self, other: "Metric") -> bool:
        """Return whether this value is better than the other one."""
        return self.value > other.value if self.higher_is_better else self.value < other.value

    def _number(self, decimals: int) -> str:
        return f"{self.value:.{decimals}f}" if self.unit in WITH_DECIMALS else figure(self.value)


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one model on a data set.

    A file has them in one flat object: metrics, counts, and objects such as `accuracy_by_kind`.
    """

    metrics: dict[str, Metric]
    """The metrics by name. The first one is the main metric, which tables show."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many examples there were, such as `questions`."""
    by_kind: dict[str, dict[str, Metric]] = field(default_factory=dict)
    """The metric for each kind of question, by name of the metric."""

    @property
    def main_name(self) -> str:
        """The name of the main metric."""
        return next(iter(self.metrics))

    @property
    def main(self) -> Metric:
        """The main metric."""
        return self.metrics[self.main_name]

    @property
    def types(self) -> dict[str, MetricType]:
        """What each metric means."""
        return {name: metric.type for name, metric in self.metrics.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], types: Mapping[str, MetricType]) -> "Evaluation":
        """Make an evaluation from plain numbers.

        Args:
            values: the numbers by name. An int is a count, unless `types` has its name.
            types: what each metric means.

        Raises:
            ValueError: `types` does not say what a number means, or a metric is no number, or there is no metric.
        """
        metrics: dict[str, Metric] = {}
        counts: dict[str, int] = {}
        by_kind: dict[str, dict[str, Metric]] = {}
        for name, value in values.items():
            base = name.removesuffix(BY_KIND)
            if isinstance(value, Mapping) and base in types:
                by_kind[base] = {part: types[base].read(number, f"{name}.{part}") for part, number in value.items()}
            elif name in types:
                metrics[name] = types[name].read(value, name)
            elif isinstance(value, int):
                counts[name] = value
            else:
                raise ValueError(
                    f"metric {name!r}={value!r}: nothing says its unit and its direction; "
                    f"those of {', '.join(types) or 'no metric'} are known"
                )
        if not metrics:
            raise ValueError(f"an evaluation has no metric, only {dict(values)}")
        return cls(metrics, counts, by_kind)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers alone. [`types_to_dict`] returns what they mean."""
        return {
            **{name: metric.value for name, metric in self.metrics.items()},
            **self.counts,
            **{f"{name}{BY_KIND}": _values(parts) for name, parts in self.by_kind.items()},
        }

    @classmethod
    def mean(cls, evaluations: Sequence["Evaluation"]) -> "Evaluation":
        """Return the means of the metrics of several models, with the counts of the first one."""
        first = evaluations[0]
        metrics = {name: mean_metric(one.metrics[name] for one in evaluations) for name in first.metrics}
        by_kind = {
            name: {part: mean_metric(one.by_kind[name][part] for one in evaluations) for part in parts}
            for name, parts in first.by_kind.items()
        }
        return cls(metrics, first.counts, by_kind)


def mean_metric(metrics: Iterable[Metric]) -> Metric:
    """Return the mean of metrics of one type."""
    found = list(metrics)
    return found[0].type.of(fmean(metric.value for metric in found))


def with_range(values: Sequence[float], text: Callable[[float], str]) -> str:
    """Return the mean of values, the lowest and the highest one: `93.49 [93.22, 93.65]`. `text` writes one value."""
    return f"{text(fmean(values))} [{text(min(values))}, {text(max(values))}]"


def best_of(metrics: Iterable[Metric]) -> Metric | None:
    """Return the best of some metrics of one type; None if there are none."""
    best = None
    for metric in metrics:
        if best is None or metric.is_better_than(best):
            best = metric
    return best


def types_to_dict(evaluations: Iterable[Evaluation]) -> dict[str, dict[str, Any]]:
    """Return what the metrics of some evaluations mean, for a file: the unit and the direction by name."""
    return {name: asdict(kind) for one in evaluations for name, kind in one.types.items()}


def metric_types(
    types: Mapping[str, Mapping[str, Any]] | None, evaluations: Iterable[Mapping[str, Any]], old_unit: str = "%"
) -> dict[str, MetricType]:
    """Return what the metrics in a file mean.

    Args:
        types: what the file says about them, as [`types_to_dict`] wrote it. None for an older file, which does not say
            it. There each float is a metric, higher is better, and all metrics have one unit.
        evaluations: the numbers in the file.
        old_unit: the unit in an older file.
    """
    if types is not None:
        return {name: MetricType(**kind) for name, kind in types.items()}
    return {
        name: MetricType(old_unit) for one in evaluations for name, value in one.items() if isinstance(value, float)
    }


def _values(metrics: Mapping[str, Metric]) -> dict[str, float]:
    return {name: metric.value for name, metric in metrics.items()}
