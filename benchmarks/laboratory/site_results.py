"""The results of the study of sites, and their tables."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from pumer_hf.results import Environment, Results, markdown_table
from pumer_hf.results.environment import ENVIRONMENT_FIELDS

from .decoder_results import cell
from .lookahead_results import Accuracy
from .site_rows import ROWS, TRAINED_ON, SiteRow
from .site_speeds import RowSpeeds

ALMOST_ALL = 99.0
"""The tables say how many answers ended if it is less than this, in percent."""


@dataclass(frozen=True)
class SiteScore:
    """How many generated answers of a model are right."""

    accuracy: Accuracy
    """Answers that are right as a whole, and ended, in percent."""
    ended: float
    """Answers that the model ended, right or wrong, in percent."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SiteScore":
        """Make a score from what `asdict` returns."""
        return cls(Accuracy(**values["accuracy"]), values["ended"])


@dataclass(frozen=True)
class SiteCell:
    """A score of one model in a row."""

    seed: int
    """The seed of the training of the teacher, and of the student."""
    place: str
    name: str
    target: float | None
    """The speed for which the row was matched; None for the unreduced model."""
    is_trained: bool
    """Whether the student was trained behind the method."""
    score: SiteScore

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SiteCell":
        """Make a cell from what `asdict` returns."""
        return cls(**{**values, "score": SiteScore.from_dict(values["score"])})


@dataclass(frozen=True)
class SiteReport(Results):
    """What the study of sites has measured in one setting."""

    setting: str
    num_tokens: int
    """Image tokens of an image."""
    num_questions: int
    steps: int
    """Steps of the training."""
    batch_size: int
    """Prompts of a prefill whose speed was measured."""
    targets: tuple[float, ...]
    speeds: tuple[RowSpeeds, ...]
    baselines: dict[int, dict[str, SiteScore]]
    """The scores of the unreduced teachers by seed: as they are, and without the right image."""
    cells: tuple[SiteCell, ...]
    environment: Environment = field(default_factory=Environment)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SiteReport":
        rest = {name: value for name, value in values.items() if name not in ENVIRONMENT_FIELDS}
        return cls(
            targets=tuple(rest.pop("targets")),
            speeds=tuple(map(RowSpeeds.from_dict, rest.pop("speeds"))),
            baselines={
                int(seed): {name: SiteScore.from_dict(score) for name, score in scores.items()}
                for seed, scores in rest.pop("baselines").items()
            },
            cells=tuple(map(SiteCell.from_dict, rest.pop("cells"))),
            environment=Environment.from_dict(values),
            **rest,
        )

    def to_dict(self) -> dict[str, Any]:
        fields = ("setting", "num_tokens", "num_questions", "steps", "batch_size")
        return {
            **{name: getattr(self, name) for name in fields},
            "targets": list(self.targets),
            "speeds": [row.to_dict() for row in self.speeds],
            "baselines": {
                str(seed): {name: asdict(score) for name, score in scores.items()}
                for seed, scores in self.baselines.items()
            },
            "cells": [asdict(one) for one in self.cells],
            **self.environment.to_dict(),
        }

    def speeds_of(self, row: SiteRow) -> RowSpeeds | None:
        """Return the measured speeds of a row; None if there are none."""
        return next((one for one in self.speeds if (one.place, one.name) == (row.place, row.name)), None)

    def scores(self, name: str, place: str, target: float | None, is_trained: bool) -> list[SiteScore]:
        """Return the score of each model in a row, in the order of the seeds."""
        wanted = (name, place, target, is_trained)
        found = [one for one in self.cells if (one.name, one.place, one.target, one.is_trained) == wanted]
        return [one.score for one in sorted(found, key=lambda one: one.seed)]


def site_table(reports: Mapping[str, SiteReport]) -> str:
    """Return the tables of each report, with a heading."""
    return "\n".join(setting_section(report) for report in reports.values())


def setting_section(report: SiteReport) -> str:
    """Return the tables of one setting, one for each speed: a row for each method at each place."""
    parts = [f"### {report.setting}\n\n{note(report)}"]
    for target in sorted(report.targets):
        head = [f"{target:g} times as fast", "", "image tokens left", "speed", "untrained", "trained"]
        rows = [head]
        for row in ROWS:
            speeds = report.speeds_of(row)
            if speeds is not None:
                rows.append([row.place, row.name, *cells(report, row, speeds, target)])
        parts.append(markdown_table(rows))
    return "\n\n".join(parts) + "\n"


def cells(report: SiteReport, row: SiteRow, speeds: RowSpeeds, target: float) -> list[str]:
    """Return what the table says of a row at a speed."""
    point = speeds.at(target)
    if point is None:
        return ["", f"at most {speeds.limit:.2f}x", "", ""]
    left = f"{point.keep * report.num_tokens:.0f} of {report.num_tokens}"
    number = len(report.baselines)
    before = "learns" if row.is_learned else scored(report.scores(row.name, row.place, target, False), number)
    after = scored(report.scores(row.name, row.place, target, True), number)
    return [left, f"{point.speed:.2f}x", before, after]


def scored(scores: list[SiteScore], number: int) -> str:
    """Return the mean and the range of accuracies, how many answers ended if not almost all did, or what is missing.

    Args:
        scores: the scores of a row.
        number: how many there should be.
    """
    if not scores:
        return "not run"
    text = cell([score.accuracy.value for score in scores])
    if len(scores) < number:
        text += f", {len(scores)} of {number} models"
    ended = fmean(score.ended for score in scores)
    return text if ended >= ALMOST_ALL else f"{text} ({ended:.0f} ended)"


def note(report: SiteReport) -> str:
    """Return what the tables of a setting show, and the accuracy of the unreduced models."""
    number = len(report.baselines)
    models = "one model" if number == 1 else f"mean over {number} models, each of its own seed, and [lowest, highest]"
    scores = report.baselines.values()
    facts = []
    for name in next(iter(scores)):
        ended = fmean(one[name].ended for one in scores)
        facts.append(f"{name} {cell([one[name].accuracy.value for one in scores])} ({ended:.1f} ended)")
    trained = report.scores(TRAINED_ON, "", None, True)
    if trained:
        facts.append(f"{TRAINED_ON} {scored(trained, number)}")
    return (
        f"Generated answers that are right as a whole and ended, in percent of {report.num_questions:,} test "
        f"questions: {models}. Trained: {report.steps} steps behind the method. The speed is that of a prefill of "
        f"{report.batch_size} prompts with the image tower, on {report.environment.machine_name}. {'; '.join(facts)}."
    )
