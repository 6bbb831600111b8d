"""The command line of the study."""

import argparse
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import torch
from transformers.utils import logging

from pumer_hf.recipes.program import exit_on_user_error
from pumer_hf.recipes.threads import available_cores
from pumer_hf.results import Environment

from . import store
from .group import Study
from .plan import SIZES, Cell, work_list
from .shards import shard_of
from .study_plot import load_figure, plot_group
from .study_results import GroupResults
from .study_tables import study_report
from .worklist import run_study

MARKS = {store.DONE: "done", store.FAILED: "FAILED", store.OUT_OF_REACH: "out of reach", store.MISSING: "missing"}


def study_command(description: str, root: Path, arguments: Sequence[str] | None = None) -> None:
    """Run the script `benchmarks/study.py`.

    Args:
        description: the text of `--help`.
        root: the folder of the repository.
        arguments: the command line; default: `sys.argv[1:]`.
    """
    args = build_parser(description).parse_args(arguments)
    with exit_on_user_error():
        size = SIZES[args.size]
        results = args.results or root / "benchmarks" / "results" / RESULTS[args.size]
        work = args.work or root / "outputs" / "study"
        output = args.output or work / f"results-{args.size}"
        everything = work_list(size)
        if args.render:
            render_all(results, output, everything)
            return
        cells = selected(shard_of(everything, args.shard, lambda cell: (cell.group, cell.method)), args.only)
        study = Study(args.size, output, work, root / "recipes", tuple(args.teachers or ()))
        if args.list:
            print(*(f"{MARKS[store.state(output, cell)]:12}  {cell.key}" for cell in cells), sep="\n")
            return
        check(study, cells, args.jobs, args.threads)
        if args.retry_failed:
            for cell in cells:
                if store.state(output, cell) == store.FAILED:
                    store.remove(output, cell)
        if known := found(output, cells):
            print(known)
        torch.set_num_threads(args.threads or available_cores())
        logging.disable_progress_bar()  # otherwise each model that is loaded or saved shows one
        left = run_study(study, cells, jobs=args.jobs, minutes=args.minutes)
        render_all(results, output, everything)
    print(summary(results, output, cells, left))


RESULTS = {"cpu": "study", "gpu": "study_gpu", "tiny": "study_tiny"}
"""The folders in `benchmarks/results`, one per size, since speeds of different machines cannot be compared."""


def build_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser with the flags of the study."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size",
        "--setting",
        choices=SIZES,
        default="cpu",
        help="how much: cpu is ViLT and METER on digit scenes, gpu everything, tiny two cells to see that all works "
        "(default: %(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="print the work list and what is done, then end")
    parser.add_argument("--render", action="store_true", help="only make the tables and plots again")
    parser.add_argument("--only", metavar="PATTERN", help="only the cells whose name it matches, such as '*-pumer-*'")
    parser.add_argument(
        "--minutes", type=positive, help="begin nothing new after this time; the same command continues"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="train so many students at once, with one thread each; pays on small models (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="CPU threads to measure with, and to train with if --jobs is 1; default: one per core",
    )
    parser.add_argument(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="only the part of machine I of N. Each method is on one machine. Copy the files of all --output folders "
        "into one, and give --render there",
    )
    parser.add_argument(
        "--teachers",
        nargs="+",
        metavar="MODEL",
        help="trained teachers for the seeds 0, 1, ..., folders or Hub ids; default: trained by the recipe",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run the cells that failed again")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="a file per student and schedule; default: in the folder --work"
    )
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="models and caches; default: outputs/study")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="results by group, tables, plots; default: benchmarks/results/study",
    )
    return parser


def positive(text: str) -> float:
    """Read a number above 0."""
    if not float(text) > 0:
        raise ValueError(text)
    return float(text)


def selected(cells: Sequence[Cell], pattern: str | None) -> list[Cell]:
    """Return the cells whose key matches a glob; raise `ValueError` if there are none."""
    found = [cell for cell in cells if pattern is None or fnmatch(cell.key, pattern)]
    if not found:
        raise ValueError(f"--only {pattern}: no cell of this size has such a name; --list prints all")
    return found


def check(study: Study, cells: Sequence[Cell], jobs: int, threads: int | None) -> None:
    """Raise an error about the flags before hours of work.

    Raises:
        ValueError, ImportError: a flag is wrong, or matplotlib is not installed.
    """
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: must be at least 1")
    groups = sorted({cell.group for cell in cells})
    if study.teachers and len(groups) > 1:
        raise ValueError(f"--teachers: choose the cells of one data set and backbone with --only, not of {groups}")
    load_figure()


def render_all(results: Path, output: Path, cells: Sequence[Cell]) -> None:
    """Join the results by group, draw the plots, and render the tables again.

    A group without a new result keeps what is there.
    """
    for group, joined in store.join(output, cells).items():
        store.write(results, group, joined)
    names = [name for name in dict.fromkeys(cell.group for cell in cells) if store.read(results, name) is not None]
    groups = [GroupResults.load(results / f"{name}.json") for name in names]
    if not groups:
        raise FileNotFoundError(f"{results}: there is no study there yet; `python benchmarks/study.py` runs it")
    for one in groups:
        if one.has_curves:
            print(f"Drawn: {plot_group(one, results / f'{one.name}.png')}")
    (results / "README.md").write_text(study_report(groups), encoding="utf-8")


def found(output: Path, cells: Sequence[Cell]) -> str | None:
    """Say how many cells are done before a run begins; return None if no cell is done.

    The text names the machine that measured their speeds.
    """
    states = [store.state(output, cell) for cell in cells]
    known = [cell for cell, state in zip(cells, states, strict=True) if state != store.MISSING]
    if not known:
        return None
    records = [store.read(output, cell.schedule_key) or store.read(output, cell.key) for cell in known]
    machines = dict.fromkeys(Environment.from_dict(record).machine_name for record in records if record is not None)
    text = (
        f"{len(known)} of {len(cells)} cells have a result in {output} already ({counts(states)}), "
        f"measured on {'; '.join(machines)}. They are not done again."
    )
    if len(known) < len(cells):
        return text
    again = " --retry-failed runs the cells that failed again." if store.FAILED in states else ""
    return f"{text}\nSo there is nothing left to do but the tables and plots.{again}"


def counts(states: Sequence[str]) -> str:
    """Return in words how many cells are in each state."""
    return ", ".join(f"{states.count(state)} {MARKS[state]}" for state in MARKS if state in states)


def summary(results: Path, output: Path, cells: Sequence[Cell], left: int) -> str:
    """Return a line about the state of the cells after a run."""
    states = [store.state(output, cell) for cell in cells]
    more = " The same command goes on." if left else ""
    return f"{len(cells)} cells: {counts(states)}. Tables: {results / 'README.md'}.{more}"
