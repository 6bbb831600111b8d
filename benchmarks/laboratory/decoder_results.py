"""The results of the study of decoder models, and their tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from pumer_hf.reducers.keeping import POSITIONS
from pumer_hf.results import Environment, Results, markdown_table
from pumer_hf.results.environment import ENVIRONMENT_FIELDS

from .lookahead_results import Accuracy


@dataclass(frozen=True)
class MethodRow:
    """The accuracy of one model with a method at one number of image tokens."""

    name: str
    kept: str
    """The part of the image tokens that is kept: `"1/9"`."""
    positions: str
    """The positions of the kept tokens, one of `POSITIONS`."""
    accuracy: Accuracy


@dataclass(frozen=True)
class TeacherResults:
    """What was measured with one model."""

    seed: int
    """The seed of its training."""
    num_tokens: int
    """Image tokens of an image."""
    baselines: dict[str, Accuracy]
    """The accuracy of the unreduced model, and of the model without the right image."""
    rows: tuple[MethodRow, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TeacherResults":
        """Make the results from what a file holds."""
        rows = tuple(MethodRow(**{**row, "accuracy": Accuracy(**row["accuracy"])}) for row in values["rows"])
        baselines = {name: Accuracy(**value) for name, value in values["baselines"].items()}
        return cls(values["seed"], values["num_tokens"], baselines, rows)


@dataclass(frozen=True)
class DecoderReport(Results):
    """What the study has measured in one setting, with models of several seeds."""

    setting: str
    split: str
    """The split of the questions."""
    num_questions: int
    teachers: tuple[TeacherResults, ...]
    environment: Environment = field(default_factory=Environment)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DecoderReport":
        rest = {name: value for name, value in values.items() if name not in ENVIRONMENT_FIELDS}
        teachers = tuple(TeacherResults.from_dict(one) for one in rest.pop("teachers"))
        return cls(teachers=teachers, environment=Environment.from_dict(values), **rest)

    def to_dict(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "split": self.split,
            "num_questions": self.num_questions,
            "teachers": [{**asdict(one), "rows": [asdict(row) for row in one.rows]} for one in self.teachers],
            **self.environment.to_dict(),
        }

    @classmethod
    def joined(cls, reports: Sequence["DecoderReport"]) -> "DecoderReport":
        """Return one report from those of single models. The environment is that of the first.

        Raises:
            ValueError: they are of different settings or questions.
        """
        first = reports[0]
        for other in reports:
            for name in ("setting", "split", "num_questions"):
                if getattr(other, name) != getattr(first, name):
                    raise ValueError(
                        f"--join: {name}={getattr(other, name)!r} and {getattr(first, name)!r}: join equal ones"
                    )
        teachers = sorted((one for report in reports for one in report.teachers), key=lambda one: one.seed)
        return cls(first.setting, first.split, first.num_questions, tuple(teachers), first.environment)

    @property
    def kept(self) -> list[str]:
        """The parts of the image tokens, from the most to the fewest."""
        return list(dict.fromkeys(row.kept for row in self.teachers[0].rows))

    @property
    def names(self) -> list[str]:
        """The names of the methods."""
        return list(dict.fromkeys(row.name for row in self.teachers[0].rows))

    def values(self, name: str, kept: str, positions: str, group: str | None = None) -> list[float]:
        """Return the accuracy of each model with a method, in all or of a group of questions."""
        return [
            row.accuracy.value if group is None else row.accuracy.by_group[group]
            for one in self.teachers
            for row in one.rows
            if (row.name, row.kept, row.positions) == (name, kept, positions)
        ]


def decoder_table(reports: Mapping[str, DecoderReport]) -> str:
    """Return the tables of each report, with a heading."""
    return "\n".join(setting_tables(report) for report in reports.values())


def setting_tables(report: DecoderReport) -> str:
    """Return the tables of one setting: a row per method, a column per number of tokens; a table per positions."""
    parts = [f"### {report.setting}\n\n{note(report)}"]
    for positions in POSITIONS:
        rows = [[f"{positions} positions", *(f"{kept} ({count(report, kept)})" for kept in report.kept)]]
        for name in report.names:
            rows.append([name, *(cell(report.values(name, kept, positions)) for kept in report.kept)])
        parts.append(markdown_table(rows))
    return "\n\n".join(parts) + "\n"


SHORT_METHODS = ("lookahead", "pumer", "diverse (dpp)", "diverse (max_min)", "tome", "random (3 draws)")
"""The methods of the short table. Those that a report lacks are left out."""
SHORT_KEPT = ("1/3", "1/9")
"""The parts of the image tokens in the short table."""


def short_table(reports: Mapping[str, DecoderReport]) -> str:
    """Return one table of a few methods in all settings, with original positions, and a note."""
    first = next(iter(reports.values()))
    columns = [(report, kept) for report in reports.values() for kept in SHORT_KEPT]
    rows = [["image tokens kept", *(f"{report.setting}, {count(report, kept)}" for report, kept in columns)]]
    unreduced = [[one.baselines["unreduced"].value for one in report.teachers] for report, _ in columns]
    rows.append(["all of them", *map(cell, unreduced)])
    for name in SHORT_METHODS:
        if name in first.names:
            rows.append([name, *(cell(report.values(name, kept, POSITIONS[0])) for report, kept in columns)])
    return f"{markdown_table(rows)}\n\n{measured_on(first)}\n"


def count(report: DecoderReport, kept: str) -> str:
    """Return how many image tokens a part is."""
    over, under = map(int, kept.split("/"))
    return f"{round(over / under * report.teachers[0].num_tokens)} tokens"


def cell(values: Sequence[float]) -> str:
    """Return the mean of accuracies, and the lowest and the highest one if there are several."""
    text = f"{fmean(values):.1f}"
    return text if len(values) < 2 else f"{text} [{min(values):.1f}, {max(values):.1f}]"


def note(report: DecoderReport) -> str:
    """Return what the tables of a setting show, and the accuracy of the unreduced models."""
    facts = []
    for name in report.teachers[0].baselines:
        known = [one.baselines[name] for one in report.teachers]
        groups = ", ".join(f"{group} {fmean(one.by_group[group] for one in known):.1f}" for group in known[0].by_group)
        facts.append(f"{name} {cell([one.value for one in known])} ({groups})")
    return f"{measured_on(report)} {'; '.join(facts)}."


def measured_on(report: DecoderReport) -> str:
    """Return on what the accuracies of a report were measured."""
    number = len(report.teachers)
    models = "one model" if number == 1 else f"mean over {number} models, each of its own seed, and [lowest, highest]"
    questions = f"{report.num_questions:,} {report.split} questions"
    return f"Accuracy in percent on {questions}, by the first token of each answer: {models}."
