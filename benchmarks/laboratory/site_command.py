"""`benchmarks/decoder_sites.py`: reductions of a decoder at the same measured speed, untrained and trained."""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers.utils import logging

from pumer_hf.data.scenes.digits import SETTINGS
from pumer_hf.hub.sources import published_environment
from pumer_hf.recipes.program import exit_on_user_error
from pumer_hf.results import Environment, check_results_file

from . import store
from .site_cells import SiteLab, load_labs
from .site_plot import plot_sites
from .site_results import SiteCell, SiteReport, SiteScore
from .site_rows import ROWS, TRAINED_ON, SiteRow, training_order
from .site_speeds import RowSpeeds
from .study_plot import load_figure

UNREDUCED_ROW = SiteRow("", TRAINED_ON, ())
"""The unreduced model, which is trained like the students."""
Work = tuple[SiteRow, float | None, bool]
"""A row, the speed that it is matched to, and whether it is trained."""


def sites_command(description: str, arguments: Sequence[str] | None = None) -> None:
    """Run the script `benchmarks/decoder_sites.py`.

    Args:
        description: the text of `--help`.
        arguments: the command line; default: `sys.argv[1:]`.
    """
    args = build_parser(description).parse_args(arguments)
    with exit_on_user_error():
        check_results_file(args.output)
        load_figure()
        seeds = args.seeds or list(range(len(args.teachers)))
        if not len(seeds) == len(args.scorers) == len(args.teachers):
            raise ValueError(f"--seeds, --scorers: give one for each of {len(args.teachers)} models")
        torch.set_num_threads(args.threads)
        logging.disable_progress_bar()
        logging.set_verbosity_error()  # else each pruner that is not trained yet is reported
        folders, scorers = dict(zip(seeds, args.teachers, strict=True)), dict(zip(seeds, args.scorers, strict=True))
        labs = load_labs(args.setting, folders, scorers, args.questions, args.steps)
        measure_speeds(labs[0], args)
        if not args.speeds_only:
            joined(args, labs[0])  # it says if the folder has results of other amounts
            run_cells(labs, args)
            report = joined(args, labs[0])
            report.save(args.output)
            plot_sites(report, args.output.with_suffix(".png"))


def build_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser with the flags of the study."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--teachers", nargs="+", required=True, metavar="FOLDER", help="models, one per seed")
    parser.add_argument("--scorers", nargs="+", required=True, metavar="FOLDER", help="a scorer for each model")
    parser.add_argument("--seeds", type=int, nargs="+", help="the seeds of the models; default: 0 1 2 ...")
    parser.add_argument("--targets", type=float, nargs="+", default=[1.2, 1.5], help="speeds; default: 1.2 1.5")
    parser.add_argument("--questions", type=int, default=1000, help="how many questions; default: 1000")
    parser.add_argument("--steps", type=int, default=200, help="steps of the training; default: 200")
    parser.add_argument("--seconds", type=float, default=3.0, help="the least time of a measurement; default: 3")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default: 1")
    parser.add_argument("--minutes", type=float, help="begin nothing new after this time; the same command continues")
    parser.add_argument("--speeds-only", action="store_true", help="end after the speeds are measured")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="a file for each result")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the results, JSON")
    return parser


def measure_speeds(lab: SiteLab, args: argparse.Namespace) -> None:
    """Measure the speeds of the rows that have no file yet."""
    watch = lab.stopwatch(args.seconds)
    missing = [row for row in ROWS if store.read(args.work, speed_name(args.setting, row)) is None]
    for place in tqdm(dict.fromkeys(row.place for row in missing), desc="Speeds"):
        rows = [row for row in missing if row.place == place]
        for row, found in zip(rows, watch.speeds(rows, args.targets), strict=True):
            store.write(args.work, speed_name(args.setting, row), {"targets": args.targets, **found.to_dict()})


def speed_name(setting: str, row: SiteRow) -> str:
    """Return the name of the file with the speeds of a row."""
    return f"{setting}-speed-{row.key}"


def read_speeds(args: argparse.Namespace, row: SiteRow) -> RowSpeeds | None:
    """Return the speeds of a row; None if they were not measured.

    Raises:
        ValueError: they were measured for other targets.
    """
    found = store.read(args.work, speed_name(args.setting, row))
    if found is None:
        return None
    if found["targets"] != args.targets:
        raise ValueError(
            f"--targets {args.targets}: {args.work} has speeds for {found['targets']}: give those, or another --work"
        )
    return RowSpeeds.from_dict(found)


def work_list(targets: Sequence[float]) -> list[Work]:
    """Return what is measured with each model, in this order: first all that needs no training.

    Args:
        targets: the speeds, in the order in which they are measured.
    """
    untrained: list[Work] = [(row, target, False) for target in targets for row in ROWS if not row.is_learned]
    trained: list[Work] = [(row, target, True) for rows in training_order() for target in targets for row in rows]
    return [*untrained, (UNREDUCED_ROW, None, True), *trained]


def cell_name(setting: str, seed: int, work: Work) -> str:
    """Return the name of the file of a cell."""
    row, target, is_trained = work
    kind = "trained" if is_trained else "untrained"
    return f"{setting}-cell-{seed}-{row.key}-{target}-{kind}"


def baseline_name(setting: str, seed: int) -> str:
    """Return the name of the file with the scores of an unreduced model."""
    return f"{setting}-baselines-{seed}"


def run_cells(labs: Sequence[SiteLab], args: argparse.Namespace) -> None:
    """Measure all cells that have no file yet. Several processes can share the work, each begins others."""
    end = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    for lab in labs:
        name = baseline_name(args.setting, lab.seed)
        if store.read(args.work, name) is None:
            store.write(args.work, name, {key: asdict(value) for key, value in lab.baselines().items()})
    for work in tqdm(work_list(args.targets), desc="Cells"):
        for lab in labs:
            if end is not None and time.monotonic() > end:
                return
            with claimed(args.work, cell_name(args.setting, lab.seed, work)) as free:
                if free is not None:
                    run_cell(lab, work, free, args)


@contextmanager
def claimed(folder: Path, name: str) -> Iterator[str | None]:
    """Claim a cell, so that no other process begins it. Yields its name, or None if it is claimed or done.

    A file marks the claim. If the process is killed, the file `*.claim` has to be removed by hand.
    """
    mark = folder / f"{name}.claim"
    if store.read(folder, name) is not None:
        yield None
        return
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        yield None
        return
    try:
        yield name
    finally:
        mark.unlink()


def run_cell(lab: SiteLab, work: Work, name: str, args: argparse.Namespace) -> None:
    """Measure a cell and write its file; do nothing if its row does not reach the speed."""
    row, target, is_trained = work
    schedule: list[dict[str, Any]] | None = None
    if target is not None:
        speeds = read_speeds(args, row)
        point = None if speeds is None else speeds.at(target)
        if point is None:
            return
        schedule = row.schedule(point.keep, lab.scorer)
    start = time.monotonic()
    model = lab.trained(schedule) if is_trained else lab.load(schedule)
    cell = SiteCell(lab.seed, row.place, row.name, target, is_trained, lab.score(model, schedule, lab.data.test))
    steps = args.steps if is_trained else 0
    amounts = {"questions": args.questions, "steps": steps, "seconds": time.monotonic() - start}
    store.write(args.work, name, {**asdict(cell), **amounts})


def joined(args: argparse.Namespace, lab: SiteLab) -> SiteReport:
    """Return the report of all files of a setting."""
    known = [read_speeds(args, row) for row in ROWS]
    cells = []
    for path in sorted(args.work.glob(f"{args.setting}-cell-*.json")):
        values = store.read(args.work, path.stem)
        if values is not None:
            del values["seconds"]
            amounts = values.pop("questions"), values.pop("steps")
            if amounts != (args.questions, args.steps if values["is_trained"] else 0):
                raise ValueError(
                    f"--questions {args.questions}, --steps {args.steps}: {path} is of {amounts[0]} questions and "
                    f"{amounts[1]} steps: give these, or another --work"
                )
            cells.append(SiteCell.from_dict(values))
    baselines = {}
    for path in sorted(args.work.glob(f"{args.setting}-baselines-*.json")):
        scores = store.read(args.work, path.stem) or {}
        seed = int(path.stem.rpartition("-")[2])
        baselines[seed] = {name: SiteScore.from_dict(score) for name, score in scores.items()}
    return SiteReport(
        setting=args.setting,
        num_tokens=lab.data.bench.side**2,
        num_questions=args.questions,
        steps=args.steps,
        batch_size=len(lab.data.test[0]["input_ids"]),
        targets=tuple(args.targets),
        speeds=tuple(one for one in known if one is not None),
        baselines=baselines,
        cells=tuple(cells),
        environment=published_environment(Environment.current()),
    )
