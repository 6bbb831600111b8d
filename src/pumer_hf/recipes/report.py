"""The printed results of recipes: the comparison of teacher and student, and `EvaluationReport` for one model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..bench.cost import cost_rows
from ..figures import figure
from ..results import Elastic, Environment, Evaluation, Metric, Report, Results, text_table, with_range
from ..results.environment import ENVIRONMENT_FIELDS
from ..results.metrics import metric_types, types_to_dict


def format_report(report: Report) -> str:
    """Return the results of a recipe as a text table: a column per model, and the change from first to last."""
    names = list(report.evaluations)
    rows = [["", *names, ""], *metric_rows(report.evaluations), *cost_rows(report.cost, names)]
    baselines = ", ".join(f"{name.replace('_', ' ')} {metric.text(1)}" for name, metric in report.baselines.items())
    notes = [f"Baselines that see no image: {baselines}."] if baselines else []
    missing = [f"{split} {number}" for split, number in report.missing_images.items() if number]
    notes += [f"Rows left out since an image is missing: {', '.join(missing)}."] if missing else []
    if report.cost.throughput is not None:
        which = "; that of the student with the median speed" if report.seeds else ""
        notes.append(f"Speed: {report.cost.throughput.note}{which}.")
    if report.seeds:
        rows[0][names.index("student") + 1] = f"mean of {len(report.seeds)} students"
        header = ["seed", *seed_header(report)]
        notes += ["", "The students, which differ only by the seed:", text_table([header, *seed_rows(report)])]
    if report.elastic is not None:
        which = f"The student of seed {report.seeds[0].seed}" if report.seeds else "The student"
        notes += ["", f"{which} at other speeds:", text_table(elastic_rows(report.elastic))]
    return "\n".join([text_table(rows), *notes])


def seed_header(report: Report) -> list[str]:
    """Return the header of the columns that [`seed_rows`] and [`range_row`] fill."""
    main = report.evaluations["student"].main
    change = main.type.difference.label("change")
    return [main.type.label(report.evaluations["student"].main_name), change, "measured speed"]


def seed_rows(report: Report) -> list[list[str]]:
    """Return a row for each student of a report about several, and a last one with mean, lowest and highest value."""
    teacher = report.evaluations["teacher"].main
    rows = [
        [
            str(run.seed),
            run.student.main.number,
            teacher.signed(run.student.main.value - teacher.value),
            speed(run.speed),
        ]
        for run in report.seeds
    ]
    return [*rows, ["mean [lowest, highest]", *range_row(report)]]


def range_row(report: Report) -> list[str]:
    """Return the metric, its change against the teacher and the speed: of several students the mean and the range."""
    teacher, student = report.evaluations["teacher"].main, report.evaluations["student"].main
    if not report.seeds:
        assert report.cost.throughput is not None, "the throughput of the models was not measured"
        return [student.number, teacher.signed(student.value - teacher.value), speed(report.cost.throughput.gain)]
    values = [run.student.main.value for run in report.seeds]
    return [
        with_range(values, lambda value: student.type.of(value).number),
        with_range([value - teacher.value for value in values], teacher.signed),
        with_range([run.speed for run in report.seeds], speed),
    ]


def speed(ratio: float) -> str:
    """Return the speed of a student as a multiple of its teacher's."""
    return f"{ratio:.2f}x"


def elastic_rows(elastic: Elastic) -> list[list[str]]:
    """Return the table of an elastic student: a row for each factor of its schedule."""
    name = next(iter(elastic.evaluations.values())).main_name
    rows = [["part of the schedule", elastic.points[0].metric.type.label(name), "measured speed", "GFLOPs"]]
    for point in elastic.points:
        gain = f"{point.gflops_gain:.2f}x fewer"
        rows.append([f"{point.factor:.0%}", point.metric.number, f"{point.speed:.2f}x", gain])
    return rows


def metric_rows(evaluations: Mapping[str, Evaluation]) -> list[list[str]]:
    """Return a row per metric, then the rows of the metrics by kind of question."""
    first, *_ = models = list(evaluations.values())
    rows = [
        metric_row(metric.type.label(name), [model.metrics[name] for model in models])
        for name, metric in first.metrics.items()
    ]
    for name, parts in first.by_kind.items():
        rows += [metric_row(f"  {kind}", [model.by_kind[name][kind] for model in models]) for kind in sorted(parts)]
    last = models[-1]
    for name in last.metrics.keys() - first.metrics.keys():  # the number of image tokens, if only the student has one
        empty = [""] * (len(models) - 1)
        rows.append([last.metrics[name].type.label(name), *empty, last.metrics[name].number, ""])
        parts = last.by_kind.get(name, {})
        rows += [[f"  {kind}", *empty, parts[kind].number, ""] for kind in sorted(parts)]
    return rows


def metric_row(label: str, metrics: list[Metric]) -> list[str]:
    """Return the values of all models, and the change from the first to the last if there are several models."""
    change = metrics[-1].change_from(metrics[0]) if len(metrics) > 1 else ""
    return [label, *(metric.number for metric in metrics), change]


@dataclass(frozen=True)
class EvaluationReport(Results):
    """The scores of a model on a split."""

    model: str
    """A folder, or an id on the Hub."""
    task: str
    split: str
    max_text_length: int | None
    """Tokens to which each text was cut. None for a decoder, whose texts are not cut."""
    evaluation: Evaluation
    environment: Environment

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EvaluationReport":
        facts = {name: values[name] for name in ("model", "task", "split", "max_text_length")}
        rest = {name: value for name, value in values.items() if name not in {*facts, "metrics", *ENVIRONMENT_FIELDS}}
        types = metric_types(values.get("metrics"), [rest])
        return cls(**facts, evaluation=Evaluation.from_dict(rest, types), environment=Environment.from_dict(values))

    def to_dict(self) -> dict[str, Any]:
        facts = {name: getattr(self, name) for name in ("model", "task", "split", "max_text_length")}
        metrics = types_to_dict([self.evaluation])
        return {**facts, "metrics": metrics, **self.evaluation.to_dict(), **self.environment.to_dict()}

    def lines(self) -> list[str]:
        """Return what was evaluated, and a table of metrics and counts."""
        rows: list[list[str]] = []
        for name, metric in self.evaluation.metrics.items():
            rows.append([metric.type.title(name), str(metric)])
            parts = self.evaluation.by_kind.get(name, {})
            rows += [[f"  {kind}", str(part)] for kind, part in sorted(parts.items())]
        rows += [[name.replace("_", " "), figure(count)] for name, count in self.evaluation.counts.items()]
        return [f"{self.model}, task {self.task}, split {self.split}:", *([text_table(rows)] if rows else [])]
