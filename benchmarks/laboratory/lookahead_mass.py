"""The study of `keep_mass`: as many patches as each question needs, beside the same number for every question."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pumer_hf.metrics.vqa import members_of
from pumer_hf.recipes.stages import kept_image_tokens
from pumer_hf.reducers.lookahead import LookaheadReducer, LookaheadReductionConfig
from pumer_hf.results import Environment, Results, markdown_table
from pumer_hf.results.environment import ENVIRONMENT_FIELDS
from pumer_hf.training.answers import measured_speeds, with_config

from .lookahead import SPEED_BATCH, Bench, train_scorer

MASSES = (0.5, 0.7, 0.8, 0.9)
"""The parts of the predicted attention that are kept in the table."""
SHOWN = 0.8
"""The part for which the table has a row for each kind of question."""
LEAST = {"": 0.0, "at least a ninth": 1 / 9}
"""The fewest patches that a question keeps, as a part of all, by what the table calls it."""


@dataclass(frozen=True)
class ByKind:
    """A mean over all questions, and over those of each kind."""

    value: float
    by_kind: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, values: np.ndarray, members: Mapping[str, np.ndarray]) -> "ByKind":
        """Return the means of values, float (N,). `members` says which questions are of a kind, bool (N,)."""
        return cls(float(values.mean()), {name: float(values[rows].mean()) for name, rows in members.items()})


@dataclass(frozen=True)
class MassRun:
    """A row of the table, with one teacher and the scorer that was trained behind it."""

    seed: int
    accuracy: ByKind
    """In percent."""
    patches: ByKind
    """How many patches a question keeps."""


@dataclass(frozen=True)
class MassRow:
    """A choice of patches, with several teachers."""

    keep_mass: float | None
    """The part of the predicted attention that is kept. None: the unreduced model."""
    fixed: bool = False
    """Whether every question keeps as many patches: the mean number with this `keep_mass`, rounded up."""
    least: str = ""
    """The fewest patches that a question keeps, one of [`LEAST`]."""
    runs: tuple[MassRun, ...] = ()
    speed: float | None = None
    """The speed as a multiple of the unreduced model's; None: not measured."""

    def mean(self, name: str, kind: str | None = None) -> float:
        """Return the mean of `accuracy` or `patches` over the runs, of all questions or of a kind."""
        found = [getattr(run, name) for run in self.runs]
        return fmean(one.value if kind is None else one.by_kind[kind] for one in found)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MassRow":
        """Make a row from its plain form."""
        runs = (MassRun(run["seed"], ByKind(**run["accuracy"]), ByKind(**run["patches"])) for run in values["runs"])
        return cls(**{**values, "runs": tuple(runs)})


@dataclass(frozen=True)
class MassReport(Results):
    """What the study has measured in one setting."""

    setting: str
    num_patches: int
    num_questions: int
    rows: tuple[MassRow, ...]
    environment: Environment = field(default_factory=Environment)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MassReport":
        rest = {name: value for name, value in values.items() if name not in ENVIRONMENT_FIELDS}
        rows = tuple(MassRow.from_dict(row) for row in rest.pop("rows"))
        return cls(rows=rows, environment=Environment.from_dict(values), **rest)

    def to_dict(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "num_patches": self.num_patches,
            "num_questions": self.num_questions,
            "rows": [{**asdict(row), "runs": [asdict(run) for run in row.runs]} for row in self.rows],
            **self.environment.to_dict(),
        }

    def row(self, keep_mass: float | None, fixed: bool = False, least: str = "") -> MassRow:
        """Return the row of a choice."""
        return next(row for row in self.rows if (row.keep_mass, row.fixed, row.least) == (keep_mass, fixed, least))


@torch.inference_mode()
def measured(bench: Bench, reducers: Mapping[MassRow, LookaheadReducer | None], seed: int) -> dict[MassRow, MassRun]:
    """Return the accuracy and the number of patches of each row, with the teacher of a bench."""
    members = members_of(bench.data.test)
    scores: dict[MassRow, list[Tensor]] = {row: [] for row in reducers}
    patches: dict[MassRow, list[int]] = {row: [] for row in reducers}
    for batch in tqdm(bench.batches, desc="Evaluating", leave=False):
        labels = batch["labels"]
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        for row, reducer in reducers.items():
            with bench.model.token_reduction.using({} if reducer is None else {"inputs": reducer}):
                outputs = bench.model(**inputs)
            scores[row].append(labels.gather(1, outputs.logits.argmax(dim=-1, keepdim=True)).squeeze(1))
            kept = None if reducer is None else reducer.config.num_kept_patches(bench.num_patches)
            all_the_same = bench.num_patches if kept is None else kept
            patches[row] += kept_image_tokens(outputs.reduction or ()) or [all_the_same] * len(labels)
    return {
        row: MassRun(
            seed,
            ByKind.of(100 * torch.cat(scores[row]).double().numpy(), members),
            ByKind.of(np.array(patches[row]), members),
        )
        for row in reducers
    }


def config_of(
    bench: Bench, config: LookaheadReductionConfig, row: MassRow, patches: float = 0.0
) -> LookaheadReductionConfig:
    """Return the config of a row. `patches` is the mean number of a row in which each question keeps as many."""
    if row.fixed:
        return config.with_amount(num_keep=ceil(patches))
    least = max(round(LEAST[row.least] * bench.num_patches), 1)
    return config.with_amount(keep_mass=row.keep_mass, min_keep=least)


def mass_runs(bench: Bench, reducer: LookaheadReducer, seed: int) -> dict[MassRow, MassRun]:
    """Measure all rows of the table with one teacher and one scorer. The keys have no runs."""
    by_mass: dict[MassRow, LookaheadReducer | None] = {MassRow(None): None}
    for row in (MassRow(mass, False, least) for mass in MASSES for least in LEAST):
        by_mass[row] = with_config(reducer, config_of(bench, reducer.config, row))
    found = measured(bench, by_mass, seed)
    fixed: dict[MassRow, LookaheadReducer | None] = {}
    for row, run in found.items():
        if row.keep_mass is not None:
            same = replace(row, fixed=True)
            fixed[same] = with_config(reducer, config_of(bench, reducer.config, same, run.patches.value))
    return {**found, **measured(bench, fixed, seed)}


def mass_report(
    setting: str, benches: Mapping[int, Bench], training: Mapping[str, Any], folder: Path, seconds: float
) -> MassReport:
    """Train a scorer behind each teacher, and measure.

    Args:
        setting: the name of the data.
        benches: a teacher with its data by seed.
        training: the arguments `steps` and `fields` of [`train_scorer`].
        folder: where the trained scorers are kept.
        seconds: how long the speed of all rows is measured, with the first teacher.
    """
    runs: dict[MassRow, list[MassRun]] = {}
    speeds: dict[MassRow, float] = {}
    for seed, bench in benches.items():
        reducer = train_scorer(bench, bench.data.train, seed, folder=folder, **training)
        for row, run in mass_runs(bench, reducer, seed).items():
            runs.setdefault(row, []).append(run)
        if not speeds:
            speeds = mass_speeds(bench, reducer, {row: of_row[0] for row, of_row in runs.items()}, seconds)
    first = next(iter(benches.values()))
    rows = (replace(row, runs=tuple(of_row), speed=speeds.get(row)) for row, of_row in runs.items())
    return MassReport(setting, first.num_patches, len(first.data.test), tuple(rows))


def mass_speeds(
    bench: Bench, reducer: LookaheadReducer, runs: Mapping[MassRow, MassRun], seconds: float
) -> dict[MassRow, float]:
    """Measure the speed of each row on a batch of test questions, against the unreduced model, interleaved."""
    timed = {}
    for row, run in runs.items():
        if row.keep_mass is not None:
            config = config_of(bench, reducer.config, row, run.patches.value)
            timed[repr(row)] = {"inputs": with_config(reducer, config)}
    rows = bench.data.test.select(range(SPEED_BATCH))
    inputs = {name: value for name, value in bench.encoded(rows)[0].items() if name != "labels"}
    found = measured_speeds(bench.model, timed, inputs, seconds)
    return {row: found[repr(row)] for row in runs if repr(row) in found}


def mass_table(reports: Mapping[str, MassReport]) -> str:
    """Return a table per report, and a note."""
    return "\n".join(map(report_table, reports.values()))


def report_table(report: MassReport) -> str:
    """Return the table of one report: the choices in all, then the kinds of questions at one `keep_mass`."""
    rows = [["keep_mass", "patches", "each its own number", "the same for all"]]
    for mass in MASSES:
        for least in LEAST:
            name = ", ".join([f"{mass:g}", *filter(None, [least])])
            own, fixed = (report.row(mass, one, least) for one in (False, True))
            rows.append([name, patches_cell(own), accuracy_cell(report, own), accuracy_cell(report, fixed)])
    unreduced, least = report.row(None), list(LEAST)[-1]
    kinds = [["", "patches", "each its own number", "the same for all", "unreduced"]]
    for kind in unreduced.runs[0].accuracy.by_kind:
        own, fixed = (report.row(SHOWN, one, least) for one in (False, True))
        accuracies = [f"{row.mean('accuracy', kind):.2f}" for row in (own, fixed, unreduced)]
        kinds.append([kind.replace("_", " "), f"{own.mean('patches', kind):.1f}", *accuracies])
    values = [run.accuracy.value for run in unreduced.runs]
    note = (
        f"Accuracy in percent on {report.num_questions:,} test questions of {report.setting}, whose images have "
        f"{report.num_patches} patches: the mean over {len(values)} teachers, each with its own scorer, and "
        f"[lowest, highest] of the change against the unreduced model ({spread(values)}). 'The same for all' keeps "
        "the mean number of patches, rounded up, for every question. The speed is that of one teacher on a batch of "
        f"{SPEED_BATCH} questions, padded to the longest, against the unreduced model "
        f"({report.environment.machine_name})."
    )
    below = f"By kind of question, at keep_mass {SHOWN:g}, {least}:"
    return f"{markdown_table(rows)}\n\n{note}\n\n{below}\n\n{markdown_table(kinds)}\n"


def accuracy_cell(report: MassReport, row: MassRow) -> str:
    """Return the accuracy of a row, its change against the unreduced model, and its speed."""
    base = [run.accuracy.value for run in report.row(None).runs]
    changes = [run.accuracy.value - one for run, one in zip(row.runs, base, strict=True)]
    text = f"{row.mean('accuracy'):.2f} [{min(changes):+.2f}, {max(changes):+.2f}]"
    return text if row.speed is None else f"{text}, {row.speed:.2f}x"


def patches_cell(row: MassRow) -> str:
    """Return how many patches a question keeps on average, with the lowest and the highest of the teachers."""
    values = [run.patches.value for run in row.runs]
    return f"{fmean(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


def spread(values: Sequence[float]) -> str:
    """Return the mean of accuracies, the lowest and the highest one."""
    return f"{fmean(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
