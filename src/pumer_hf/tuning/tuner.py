"""`tune`: find the schedule that measures a given speed; with data, the best one of several."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..bench.progress import Progress
from ..folders import check_writable, write_json
from ..models.budget import Search
from ..models.loading import SAVED
from ..reading import read_object
from ..recipes.record import weights_of
from ..reducers.base import SITES
from ..results import Environment
from .answers import Answers, Asker, asker_of
from .candidates import candidates
from .finder import Finder, Found
from .options import TuneOptions
from .report import Conditions, Row, Tuned
from .subjects import Subject, batch_size_of, load_subject

RUNS = 3
"""How many measurements are expected until a speed is found."""
SLOWEST, STEPS = 1.2, 3
"""The lowest speed of a front, and the number of its speeds, the one that is asked for included."""


def tune(
    source: str,
    options: TuneOptions,
    *,
    work: str | Path | None = None,
    with_front: bool = False,
) -> Tuned:
    """Find the schedule with which a model is as fast as asked for, on this machine.

    The ratios of a schedule are scaled. The first guesses come from the counted FLOPs. They are measured, interleaved
    with the unreduced model, and a line through the measured speeds gives the next guess, until the measured speed is
    within 3 % of the one that is asked for. With data and no schedule, the schedules of [`candidates`] are scaled to
    this speed and compared on the rows.

    Args:
        source: a folder, or an id on the Hub, of an encoder or a decoder.
        options: what is asked for.
        work: a folder in which each candidate is kept that is finished. The same call goes on from there.
        with_front: with data, compare the candidates at lower speeds too, for [`Tuned.front`].

    Raises:
        ValueError: no schedule is as fast. The message has the highest speed, and why it is no higher. Or a schedule
            or an option is wrong.
    """
    subject = load_subject(source, options)
    if options.data is None:
        return tuned_without_data(subject)
    comparison = Comparison(subject, asker_of(subject), None if work is None else Path(work), with_front)
    try:
        return comparison.run()
    except KeyboardInterrupt:
        if work is not None:
            tqdm.write(f"What is finished is in {work}: the same call goes on from there.", file=sys.stderr)
        raise


def tuned_without_data(subject: Subject) -> Tuned:
    """Find the schedule of the only candidate."""
    search = subject.search(base_schedule(subject))
    (found,) = find(subject, search, [subject.options.speed], f"Measuring {subject.of_a_run}")
    if not found.is_reached:
        raise out_of_reach(subject, search, found)
    return report(subject, [Row.of("asked", found)])


def base_schedule(subject: Subject) -> Any:
    """Return the schedule to scale: the given one, else the checkpoint's, else the usual one of PuMer."""
    given = subject.options.reduction
    if isinstance(given, str) and given == SAVED:
        given = subject.model.config.reduction
    return subject.usual if given is None else given


def find(subject: Subject, search: Search, speeds: Sequence[float], title: str) -> list[Found]:
    """Find the schedules of a search that have some speeds. A bar shows the progress."""
    with Progress(title, RUNS * subject.measuring.seconds) as progress:
        finder = Finder(search, subject.stopwatch(search, progress.move), progress.begin)
        return finder.find(speeds)


def out_of_reach(subject: Subject, search: Search, found: Found) -> ValueError:
    """Make the error for a speed that no form of a schedule has."""
    last = len(search.options) - 1
    untouched, promised = subject.untouched(search.options[last]), 1 / search.part(last)
    why = f"{untouched:.0%} of the unreduced model's time is outside the layers that get fewer tokens"
    limit = min(1 / untouched, promised)
    if found.highest < (1 + limit) / 2:
        why = "at this size, a layer takes almost as long with few tokens as with many"
    return ValueError(
        f"speed={found.target}: the highest measured speed is {found.highest:.2f}x, although the schedule can spend "
        f"as little as {1 / promised:.3f} of the unreduced model's multiply-adds: {why}. Ask for a lower speed, give "
        f"a larger batch_size, or a schedule that begins earlier{search.earlier()}"
    )


def report(subject: Subject, rows: Sequence[Row], **values: Any) -> Tuned:
    """Make the results."""
    return Tuned(
        model=subject.source,
        speed=subject.options.speed,
        rows=tuple(rows),
        places=tuple(places_of(subject.counter.depths)),
        tokens=[list(one) for one in subject.counter.announced({})],
        conditions=conditions_of(subject),
        environment=Environment.current(),
        **values,
    )


def places_of(depths: Mapping[str, int]) -> list[str]:
    """Return the names of all places where tokens can leave, in their order. `depths` are the layers of each site."""
    words = {"tower": "layer {} of the tower", "inputs": "the inputs", "layers": "layer {}"}
    return [words[site].format(layer) for site in SITES if site in depths for layer in range(depths[site])]


def conditions_of(subject: Subject) -> Conditions:
    """Return how a subject is measured."""
    measuring = subject.measuring
    return Conditions(
        device=measuring.device,
        dtype=measuring.dtype,
        compiled=measuring.compile,
        matmul_precision=measuring.matmul_precision,
        batch_size=batch_size_of(measuring),
        text_length=subject.text_length,
        seconds=measuring.seconds,
    )


class Comparison:
    """A tuning with data.

    Args:
        subject: the model.
        asker: what asks it the rows.
        work: the folder for what is finished.
        with_front: whether lower speeds are wanted too.
    """

    def __init__(self, subject: Subject, asker: Asker, work: Path | None, with_front: bool):
        self.subject, self.asker, self.work = subject, asker, work
        speed = subject.options.speed
        lower = [SLOWEST + (speed - SLOWEST) * step / (STEPS - 1) for step in range(STEPS - 1)]
        self.speeds = [*(round(one, 3) for one in lower if with_front and speed > SLOWEST), speed]
        if work is not None:
            check_writable(work, "work")

    def run(self) -> Tuned:
        """Measure all candidates, ask them, and return the results.

        Raises:
            ValueError: none of them reaches the speed.
        """
        unreduced = Answers.from_dict(self.kept_in("unreduced", None, lambda: asdict(self.asker.answers(None))))
        rows: list[Row] = []
        left_out: dict[str, str] = {}
        bases = self.bases()
        for name, base in tqdm(bases.items(), desc="Candidates", unit="candidate", leave=False):
            made = self.kept_in(name, base, partial(self.candidate, name, base, unreduced))
            rows += [Row(**row) for row in made["rows"]]
            if made["left_out"]:
                left_out[name] = made["left_out"]
        number = len(self.asker.rows)
        values = {
            "data": f"{number:,} questions of {self.subject.options.data}",
            "examples": number,
            "accuracy": unreduced.accuracy,
            "left_out": left_out,
        }
        tuned = report(self.subject, rows, **values)
        if not tuned.ranked:
            raise self.none_reaches(rows, left_out)
        return tuned

    def bases(self) -> dict[str, Any]:
        """Return the schedules to compare, by name."""
        given = self.subject.options.reduction
        if given is None or (isinstance(given, str) and given == SAVED):
            return dict(candidates(self.subject.model.config))
        return {"asked": given}

    def candidate(self, name: str, base: Any, unreduced: Answers) -> dict[str, Any]:
        """Return the rows of a candidate in plain types, or why it does not fit the model."""
        try:
            search = self.subject.search(base)
        except ValueError as error:
            return {"rows": [], "left_out": str(error)}
        rows = []
        for found in find(self.subject, search, self.speeds, name):
            row = Row.of(name, found)
            if row.is_reached:
                answers = self.asker.answers(row.reduction)
                row = replace(row, accuracy=answers.accuracy, kept=answers.kept(unreduced))
            rows.append(asdict(row))
        return {"rows": rows, "left_out": None}

    def kept_in(self, name: str, base: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what the work folder has for a candidate, or make it and keep it there.

        The name of its file depends on all that it was made from. So the folder can serve other tunings too.
        """
        if self.work is None:
            return make()
        made_from = self.made_from(base)
        digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:8]
        path = self.work / f"{name.replace(' ', '_').replace(',', '')}-{digest}.json"
        if path.is_file():
            return read_object(path)["made"]
        made = json.loads(json.dumps(make()))
        write_json(path, {"made_from": made_from, "made": made})
        return made

    def made_from(self, base: Any) -> dict[str, Any]:
        """Return what the rows of a candidate depend on, in plain types."""
        options = self.subject.options
        data = {name: getattr(options, name) for name in ("data", "split", "image_column", "text_column", "examples")}
        made_from = {"model": weights_of(self.subject.source), **data}
        if base is not None:
            conditions = asdict(conditions_of(self.subject))
            machine = Environment.current().machine_name
            made_from |= {"reduction": base, "speeds": self.speeds, "conditions": conditions, "machine": machine}
        return json.loads(json.dumps(made_from))

    def none_reaches(self, rows: Sequence[Row], left_out: dict[str, str]) -> ValueError:
        """Make the error for a speed that no candidate has."""
        highest = max((row.highest for row in rows), default=None)
        if highest is None:
            return ValueError(f"no schedule fits the model: {'; '.join(left_out.values())}")
        fastest = next(row.name for row in rows if row.highest == highest)
        return ValueError(
            f"speed={self.subject.options.speed}: the highest measured speed of all candidates is {highest:.2f}x, of "
            f"{fastest!r}: ask for a lower speed or a larger batch_size"
        )
