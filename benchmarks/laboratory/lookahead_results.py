"""The results of the study of `lookahead`, and their tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from pumer_hf.reducers.lookahead import TargetLayer, layer_words
from pumer_hf.results import Environment, Results, markdown_table
from pumer_hf.results.environment import ENVIRONMENT_FIELDS


@dataclass(frozen=True)
class Accuracy:
    """An accuracy in percent."""

    value: float
    by_group: dict[str, float] = field(default_factory=dict)
    """The accuracy of groups of questions, such as those that one place of the image answers."""


@dataclass(frozen=True)
class SeedAccuracy:
    """The accuracy with the scorer of one seed."""

    seed: int | None
    """None: the choice has no scorer."""
    accuracy: Accuracy


@dataclass(frozen=True)
class ChoiceRow:
    """The accuracy of a choice at one number of patches."""

    name: str
    kept: str
    """The part of the patches that is kept: `"1/9"`."""
    num_patches: int
    runs: tuple[SeedAccuracy, ...]
    speed: float | None = None
    """The speed as a multiple of the unreduced model's; None: not measured."""

    def values(self, group: str | None = None) -> list[float]:
        """Return the accuracy of each run, in all or of a group."""
        return [run.accuracy.value if group is None else run.accuracy.by_group[group] for run in self.runs]

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain JSON types."""
        return {**asdict(self), "runs": [asdict(run) for run in self.runs]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ChoiceRow":
        """Make a row from what `to_dict` returns."""
        runs = tuple(SeedAccuracy(run["seed"], Accuracy(**run["accuracy"])) for run in values["runs"])
        return cls(**{**values, "runs": runs})


@dataclass(frozen=True)
class LookaheadReport(Results):
    """What the study has measured with one teacher."""

    setting: str
    """The name of the data."""
    baselines: dict[str, Accuracy]
    """The accuracy of the unreduced teacher, and of the teacher without its image."""
    target_layer: TargetLayer
    rows: tuple[ChoiceRow, ...]
    num_questions: int
    environment: Environment = field(default_factory=Environment)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LookaheadReport":
        rest = {name: value for name, value in values.items() if name not in ENVIRONMENT_FIELDS}
        rows = tuple(ChoiceRow.from_dict(row) for row in rest.pop("rows"))
        baselines = {name: Accuracy(**value) for name, value in rest.pop("baselines").items()}
        return cls(rows=rows, baselines=baselines, environment=Environment.from_dict(values), **rest)

    def to_dict(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "baselines": {name: asdict(value) for name, value in self.baselines.items()},
            "target_layer": self.target_layer,
            "rows": [row.to_dict() for row in self.rows],
            "num_questions": self.num_questions,
            **self.environment.to_dict(),
        }

    @property
    def kept(self) -> list[str]:
        """The parts of the patches, from the most to the fewest."""
        return list(dict.fromkeys(row.kept for row in self.rows))

    def cells(self, name: str, group: str | None = None) -> list[str]:
        """Return the cells of a choice, one for each part of the patches."""
        by_kept = {row.kept: row for row in self.rows if row.name == name}
        return [cell(by_kept[kept], group) if kept in by_kept else "" for kept in self.kept]


def cell(row: ChoiceRow, group: str | None = None) -> str:
    """Return the mean accuracy, the lowest and the highest one if there are several seeds, and the speed."""
    values = row.values(group)
    text = f"{fmean(values):.2f}"
    if len(values) > 1:
        text += f" [{min(values):.2f}, {max(values):.2f}] n={len(values)}"
    return text if row.speed is None else f"{text}, {row.speed:.2f}x"


def lookahead_table(reports: Mapping[str, LookaheadReport]) -> str:
    """Return a table per report: a row for each choice, a column for each number of patches, and a note."""
    return "\n".join(map(report_table, reports.values()))


def report_table(report: LookaheadReport) -> str:
    """Return the table of one report.

    Groups of questions have a row each below `lookahead`, and below a row whose name has the group in it.
    """
    numbers = {row.kept: row.num_patches for row in report.rows}
    rows = [["", *(f"{kept} ({numbers[kept]} patches)" for kept in report.kept)]]
    names = list(dict.fromkeys(row.name for row in report.rows))
    for name in names:
        rows.append([name, *report.cells(name)])
        shown = groups(report) if name == "lookahead" else [group for group in groups(report) if group in name]
        rows += [[f"{name}: {group}", *report.cells(name, group)] for group in shown]
    facts = [f"{name} {accuracy_text(accuracy)}" for name, accuracy in report.baselines.items()]
    note = (
        f"Accuracy in percent on {report.num_questions:,} test questions of {report.setting}: mean over scorers of "
        "several seeds behind one frozen teacher, [lowest, highest], number of seeds, and the measured speed against "
        f"the unreduced model ({report.environment.machine_name}). {'; '.join(facts)}. The scorer predicts "
        f"{layer_words(report.target_layer)}."
    )
    return f"{markdown_table(rows)}\n\n{note}\n"


def groups(report: LookaheadReport) -> Sequence[str]:
    """Return the names of the groups of questions for which the choices were measured."""
    return list(report.rows[0].runs[0].accuracy.by_group)


def accuracy_text(accuracy: Accuracy) -> str:
    """Return an accuracy with those of its groups."""
    parts = ", ".join(f"{name} {value:.2f}" for name, value in accuracy.by_group.items())
    return f"{accuracy.value:.2f} ({parts})" if parts else f"{accuracy.value:.2f}"
