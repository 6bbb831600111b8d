"""The tables of a model card, from the results of a recipe. What was not measured has no row."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from ..figures import figure

NAMES = ("teacher", "student")


def format_metric(value: float, unit: str | None) -> str:
    """A metric with its unit."""
    return f"{value:.2f} {unit}" if unit else figure(value)


def metric_names(results: Mapping[str, Any]) -> list[str]:
    """The metrics among the results of a model: the fractions, not the counts."""
    return [name for name, value in results.items() if isinstance(value, float)]


def results_table(report: Mapping[str, Any], role: str, unit: str | None) -> str:
    """Accuracy, speed and size; beside a student its teacher, where there is one, and the other way round."""
    names = [name for name in NAMES if name == role or name in report]
    rows = [
        [metric.replace("_", " "), *(_metric(report, name, metric, unit) for name in names)]
        for metric in metric_names(report.get(role, {}))
    ]
    throughput, gflops = report.get("throughput", {}), report.get("gflops", {})
    if role in throughput:
        rows.append(["examples/s", *(_number(throughput.get(name, {}).get("examples_per_second")) for name in names)])
        rows.append(["speed, interleaved", *(_speed(report, name) for name in names)])
    if role in gflops:
        rows.append(["GFLOPs per example", *(_number(gflops.get(name)) for name in names)])
    header = ["", *(f"{name} (this model)" if name == role else name for name in names)]
    return _table([header, *rows]) if rows else ""


def tokens_table(report: Mapping[str, Any], role: str) -> str:
    """Text and image tokens that leave each layer."""
    tokens = report.get("tokens_per_layer", {})
    names = [name for name in NAMES if name in tokens]
    if role not in names:
        return ""
    header = ["after layer", *(f"{name} (text + image)" for name in names)]
    rows = [
        [str(layer), *(f"{text} + {image}" for text, image in lengths)]
        for layer, lengths in enumerate(zip(*(tokens[name] for name in names), strict=True))
    ]
    return _table([header, *rows])


def training_table(training: Mapping[str, Any]) -> str:
    """The training arguments."""
    rows = [
        [f"`{name}`", f"{value:g}" if isinstance(value, float) else str(value)] for name, value in training.items()
    ]
    return _table([["argument", "value"], *rows]) if rows else ""


def _metric(report: Mapping[str, Any], name: str, metric: str, unit: str | None) -> str:
    value = report.get(name, {}).get(metric)
    if value is None:
        return ""
    return format_metric(value, unit) + _spread([run[name][metric] for run in _students(report, name)])


def _speed(report: Mapping[str, Any], name: str) -> str:
    """A model's speed over the teacher's: of several students, the mean and the range."""
    speeds = [run["speed"] for run in _students(report, name)]
    ratio = mean(speeds) if speeds else report["throughput"].get(name, {}).get("ratio")
    return "" if ratio is None else f"{ratio:.2f}x{_spread(speeds)}"


def _students(report: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    """The students of several seeds; none for a teacher, and of a single run."""
    return report.get("seeds", ()) if name == "student" else ()


def _spread(values: Sequence[float]) -> str:
    """The lowest and the highest value and how many there are; nothing of none."""
    return f" [{min(values):.2f}, {max(values):.2f}] n={len(values)}" if values else ""


def _number(value: float | None) -> str:
    return "" if value is None else figure(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
