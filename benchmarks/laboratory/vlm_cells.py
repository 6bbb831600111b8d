"""Runs the cells of the table of pretrained decoder models, with their questions split over processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset

from pumer_hf.hub.sources import published_environment
from pumer_hf.results import Environment

from . import store
from .lookahead_results import Accuracy
from .site_speeds import CORRECTIONS, FIRST_KEEPS, Point, RowSpeeds, nearest
from .vlm_model import Form, VlmModel, form_of, shown
from .vlm_results import Prefill, VlmCell, VlmScore, VlmSettings
from .vlm_rows import Budget, OutOfReachError, VlmRow
from .vlm_scores import SCORES
from .vlm_sets import Questions

KEEPS = tuple(number / 100 for number in range(1, 100))
"""The parts of the image tokens among which the one for a speed is found."""
T = TypeVar("T")


class CellError(Exception):
    """A process could not do its part of a cell. All processes raise it together, so that none waits for another."""

    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


class Failure(NamedTuple):
    """What went wrong in a process, in plain types that can be sent to others."""

    status: str
    reason: str


class Plan(NamedTuple):
    """What all processes have to know of a cell before they answer its questions."""

    forms: list[Form]
    """The form of each draw."""
    prefill: Prefill
    image_tokens: float
    kept_tokens: float


@dataclass(frozen=True)
class CellRunner:
    """Runs cells of one model."""

    model: VlmModel
    name: str
    """The name of the model in results."""
    scorer: str | None
    """The folder of a trained scorer, for `lookahead`."""
    settings: VlmSettings

    def run(self, questions: Questions, row: VlmRow, budget: Budget) -> VlmCell:
        """Run a cell. If it fails in any process, the cell says why, and the other cells can go on."""
        cell = VlmCell(
            model=self.name,
            set=questions.name,
            title=questions.title,
            source=questions.source,
            metric=questions.metric,
            place=row.place,
            name=row.name,
            budget=budget,
            settings=self.settings,
            status=store.DONE,
            environment=published_environment(Environment.current()),
        )
        try:
            return replace(cell, score=self.score(questions, row, budget))
        except CellError as error:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return replace(cell, status=error.status, reason=error.reason)

    def score(self, questions: Questions, row: VlmRow, budget: Budget) -> VlmScore:
        """Answer the questions of a cell, and score the answers.

        Raises:
            CellError: in any process, anything went wrong.
        """
        rows = in_all(lambda: shown(questions.rows, row))
        plan = in_first(lambda: self.plan(rows, row, budget))
        score, longest = SCORES[questions.metric], self.settings.max_new_tokens or questions.max_new_tokens
        given = rows["answers"][:]
        draws, seconds = [], []
        for form in plan.forms:
            answers = self.answers(rows, form, longest)
            draws.append([score(text, right) for (text, _), right in zip(answers, given, strict=True)])
            seconds.append(fmean(time for _, time in answers))
        mean = [fmean(one) for one in zip(*draws, strict=True)]
        return VlmScore(
            accuracy=accuracy_of(mean, rows["group"][:]),
            scores=tuple(round(one, 4) for one in mean),
            draws=tuple(100 * fmean(one) for one in draws),
            seconds=fmean(seconds),
            image_tokens=plan.image_tokens,
            kept_tokens=plan.kept_tokens,
            prefill=plan.prefill,
            schedule=[public_part(part) for part in plan.forms[0].schedule],
        )

    def plan(self, rows: Dataset, row: VlmRow, budget: Budget) -> Plan:
        """Find the form of a row for a budget, and measure its prefill."""
        form = self.form(rows, row, budget)
        image_tokens, kept_tokens = self.model.tokens(rows, form)
        prefill = self.model.speeds(rows, {row.key: form})[row.key]
        schedules = row.draws(form.schedule, self.settings.draws)
        return Plan([replace(form, schedule=tuple(one)) for one in schedules], prefill, image_tokens, kept_tokens)

    def form(self, rows: Dataset, row: VlmRow, budget: Budget) -> Form:
        """Return the form of a row for a budget.

        Raises:
            OutOfReachError: the row cannot keep so few tokens, or cannot be so fast.
        """
        keep = budget.keep
        if budget.speed is not None:

            def measured(keeps: Sequence[float]) -> list[Point]:
                forms = {f"{keep}": form_of(row, keep, self.scorer) for keep in keeps}
                return [Point(float(name), found.ratio) for name, found in self.model.speeds(rows, forms).items()]

            keep = keep_for(measured, row, budget.speed)
        return form_of(row, keep, self.scorer)

    def answers(self, rows: Dataset, form: Form, max_new_tokens: int) -> list[tuple[str, float]]:
        """Return the answer to each row, and its seconds. Each process answers a part."""
        with PartialState().split_between_processes(list(range(len(rows)))) as places:
            mine = attempt(lambda: list(self.model.answers(rows, places, form, max_new_tokens)))
        return [answer for part in opened(gather_object([mine])) for answer in part]


def public_part(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part of a schedule with the name of its scorer, without the folder of this machine."""
    return {**part, "weights": Path(part["weights"]).name} if "weights" in part else part


def keep_for(measured: Callable[[Sequence[float]], list[Point]], row: VlmRow, target: float) -> float:
    """Return the part of the image tokens at which a row reaches a speed.

    Args:
        measured: measures the speed at some parts.
        row: the row.
        target: the speed.

    Raises:
        OutOfReachError: it does not come close to the speed at any part.
    """
    keeps = tuple(keep for keep in KEEPS if keep > row.lowest)
    points = measured([nearest(keeps, keep) for keep in FIRST_KEEPS])
    found = RowSpeeds(row.place, row.name, keeps, tuple(points))
    for _ in range(CORRECTIONS):
        found = found.with_points(measured([found.expected(target).keep]))
    best = found.at(target)
    if best is None:
        raise OutOfReachError(f"at most {found.limit:.2f}x")
    return best.keep


def attempt(make: Callable[[], T]) -> T | Failure:
    """Return what a function returns, or why it fails."""
    try:
        return make()
    except OutOfReachError as error:
        return Failure(store.OUT_OF_REACH, str(error))
    except Exception as error:  # after any error, the other cells go on
        return Failure(store.FAILED, f"{type(error).__name__}: {' '.join(str(error).split())}")


def opened(outcomes: Sequence[Any]) -> list[Any]:
    """Return what processes got.

    Raises:
        CellError: one of them failed.
    """
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            raise CellError(*outcome)
    return list(outcomes)


def in_first(make: Callable[[], T]) -> T:
    """Call a function in the first process, and return its result in all of them."""
    outcome = [attempt(make) if PartialState().is_main_process else None]
    broadcast_object_list(outcome)
    return opened(outcome)[0]


def in_all(make: Callable[[], T]) -> T:
    """Call a function in each process, in the first of each machine before the others, and return its result there.

    Raises:
        CellError: it failed in one of them.
    """
    with PartialState().local_main_process_first():  # the others find what it has downloaded
        mine = attempt(make)
    opened(gather_object([mine if isinstance(mine, Failure) else None]))
    return mine  # type: ignore[return-value]  # it is no failure here


def accuracy_of(scores: Sequence[float], groups: Sequence[str | None]) -> Accuracy:
    """Return the mean of scores in percent, in all and for each group."""
    names = sorted({name for name in groups if name is not None})
    by_group = {
        name: 100 * fmean(score for score, group in zip(scores, groups, strict=True) if group == name)
        for name in names
    }
    return Accuracy(100 * fmean(scores), by_group)


def key_of(model: str, questions: str, row: VlmRow, budget: Budget) -> str:
    """Return the name of the file of a cell."""
    return f"{model.replace('/', '--')}-{questions}-{row.key}-{budget.name}"


def check_settings(folder: Path, settings: VlmSettings) -> None:
    """Raise `ValueError` if a folder has cells that were measured with other settings, which cannot be compared."""
    for path in sorted(folder.glob("*.json")):
        known = store.read(folder, path.stem) or {}
        other = known.get("settings")
        mine = vars(settings)
        if other is not None and other != mine:
            names = [f"{name}={other[name]!r} (now {mine[name]!r})" for name in mine if other.get(name) != mine[name]]
            raise ValueError(
                f"--output: {path} was measured with {', '.join(names)}: give the same flags, or another folder"
            )
