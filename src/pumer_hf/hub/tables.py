"""The tables of a model card, from the results of a recipe. What was not measured has no row."""

from collections.abc import Mapping, Sequence
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
        rows.append(["speed, interleaved", *(_times(throughput.get(name, {}).get("ratio")) for name in names)])
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
    return "" if value is None else format_metric(value, unit)


def _number(value: float | None) -> str:
    return "" if value is None else figure(value)


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
