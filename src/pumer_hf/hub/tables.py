"""Makes the tables of a model card from the results of a recipe. A quantity that was not measured has no row."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from ..figures import figure
from ..results import ROLES, Elastic, Metric, Report, SeedRun, markdown_table


def results_table(report: Report, role: str, run: SeedRun | None = None) -> str:
    """Return the table of metrics, speed and size of the model, and of its teacher or its student if there is one.

    If the model is one of several students, `run`, a last column has the mean and the range of all of them.
    """
    several = report
    if run is not None:
        evaluations = {**report.evaluations, role: run.student}
        report = replace(
            report, seeds=(), evaluations=evaluations, cost=replace(report.cost, throughput=run.throughput)
        )
    names = [name for name in ROLES if name == role or name in report.evaluations]
    evaluation = report.evaluations.get(role)
    rows = [
        [
            metric.type.title(name),
            *(metric_cell(report, model, name) for model in names),
            metric_cell(several, role, name),
        ]
        for name, metric in (evaluation.metrics.items() if evaluation else ())
    ]
    speeds = {} if report.cost.throughput is None else report.cost.throughput.speeds
    if role in speeds:
        per_second = [figure(speeds[name].examples_per_second) if name in speeds else "" for name in names]
        rows.append(["examples/s", *per_second, ""])
        rows.append(["speed, interleaved", *(speed_cell(report, name) for name in names), speed_cell(several, role)])
    gflops = report.cost.gflops
    if role in gflops:
        counts = [figure(gflops[name]) if name in gflops else "" for name in names]
        rows.append(["GFLOPs per example", *counts, ""])
    header = ["", *(f"{name} (this model)" if name == role else name for name in names), "all students"]
    shown = len(header) - (run is None)
    return markdown_table([row[:shown] for row in (header, *rows)]) if rows else ""


def tokens_table(report: Report, role: str) -> str:
    """Return the table of the text and image tokens that leave each layer.

    A first row has those that come into the first layer, if they were counted.
    """
    tokens = report.cost.tokens_per_layer
    names = [name for name in ROLES if name in tokens]
    if role not in names:
        return ""
    header = ["after layer", *(f"{name} (text + image)" for name in names)]
    tokens_in = report.cost.tokens_in
    rows = [["(into the first)", *("{} + {}".format(*tokens_in[name]) for name in names)]] if tokens_in else []
    rows += [
        [str(layer), *(f"{text} + {image}" for text, image in lengths)]
        for layer, lengths in enumerate(zip(*(tokens[name] for name in names), strict=True))
    ]
    return markdown_table([header, *rows])


def elastic_table(elastic: Elastic) -> str:
    """Return the table of an elastic student: a row for each factor of its schedule."""
    first = next(iter(elastic.evaluations.values()))
    rows = [["part of the schedule", first.main.type.title(first.main_name), "speed, interleaved", "FLOPs"]]
    for point in elastic.points:
        gain = f"{point.gflops_gain:.2f}x fewer"
        rows.append([f"{point.factor:.0%}", str(point.metric), f"{point.speed:.2f}x", gain])
    return markdown_table(rows)


def training_table(training: Mapping[str, Any]) -> str:
    """Return the table of the training arguments."""
    rows = [
        [f"`{name}`", f"{value:g}" if isinstance(value, float) else str(value)] for name, value in training.items()
    ]
    return markdown_table([["argument", "value"], *rows]) if rows else ""


def metric_cell(report: Report, role: str, name: str) -> str:
    """Return a metric of a model as text. If several students were trained, it is their mean, with the range."""
    evaluation = report.evaluations.get(role)
    if evaluation is None or name not in evaluation.metrics:
        return ""
    return f"{evaluation.metrics[name]}{spread([run.student.metrics[name] for run in students(report, role)])}"


def speed_cell(report: Report, role: str) -> str:
    """Return the speed of a model relative to the teacher, as text.

    If several students were trained, it is their mean, with the range.
    """
    speeds = [run.speed for run in students(report, role)]
    if speeds:
        return f"{mean(speeds):.2f}x [{min(speeds):.2f}, {max(speeds):.2f}] n={len(speeds)}"
    measured = report.cost.throughput
    return f"{measured.speeds[role].ratio:.2f}x" if measured is not None and role in measured.speeds else ""


def students(report: Report, role: str) -> Sequence[SeedRun]:
    """Return the students if several were trained; nothing for a teacher, or for a single run."""
    return report.seeds if role == "student" else ()


def spread(metrics: Sequence[Metric]) -> str:
    """Return the lowest value, the highest value and the number of values, as text; empty if there are none."""
    ranked = sorted(metrics, key=lambda metric: metric.value)
    return f" [{ranked[0].number}, {ranked[-1].number}] n={len(ranked)}" if ranked else ""
