"""Runs the work list: group after group, first the schedules while nothing trains, then the students."""

import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import groupby

import torch
from tqdm.auto import tqdm
from transformers.utils import logging

from pumer_hf.results import Environment

from . import store
from .cells import calibrate, run_cell
from .group import Shared, Study, check_teacher, load_group
from .plan import Cell


def run_study(study: Study, cells: Sequence[Cell], *, jobs: int = 1, minutes: float | None = None) -> int:
    """Do what is left of some cells, each written as soon as it is there. A cell that fails is written as failed, and
    the others go on.

    Args:
        study: where.
        cells: what to do, in order; those that have a result are skipped.
        jobs: worker processes that train, each with a single thread; 1 trains in this process with its threads.
        minutes: begin nothing new after this time.

    Returns:
        How many cells are left.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    left = [cell for cell in cells if store.state(study.output, cell) == store.MISSING]
    with tqdm(total=len(cells), initial=len(cells) - len(left), desc="Study", unit="cell") as progress:
        for (data, backbone), members in groupby(left, key=lambda cell: (cell.data, cell.backbone)):
            if _is_over(end):
                break
            for cell in _run_group(study, data, backbone, list(members), jobs, end):
                progress.set_postfix_str(cell.key)
                progress.update()
    return sum(store.state(study.output, cell) == store.MISSING for cell in cells)


def _run_group(
    study: Study, data: str, backbone: str, cells: list[Cell], jobs: int, end: float | None
) -> Iterator[Cell]:
    """Yields each cell of a group when it has a result."""
    try:
        shared = load_group(study, data, backbone)
        _ = shared.train  # the teacher's logits, before workers look for them
    except Exception as error:  # whatever it is, the other groups go on
        for cell in cells:
            _write_failure(study, cell, error)
            yield cell
        return
    check_teacher(shared, cells[0].group)
    ready = []
    for cell in tqdm(cells, desc="Schedules", unit="cell", leave=False):
        if _is_over(end):
            break
        try:
            calibrate(shared, cell)
            ready.append(cell)
        except Exception as error:  # whatever it is, the other cells go on
            _write_failure(study, cell, error)
            yield cell
    if jobs == 1:
        for cell in ready:
            if _is_over(end):
                return
            do_cell(study, cell)
            yield cell
    else:
        yield from _run_in_workers(study, ready, jobs, end)


def do_cell(study: Study, cell: Cell) -> None:
    """Run a cell and write its result, or that it failed and why."""
    try:
        shared: Shared = load_group(study, cell.data, cell.backbone)
        result = run_cell(shared, cell, calibrate(shared, cell))
    except Exception as error:  # whatever it is, the other cells go on
        _write_failure(study, cell, error)
    else:
        store.write(study.output, cell.key, result)


def _run_in_workers(study: Study, cells: Iterable[Cell], jobs: int, end: float | None) -> Iterator[Cell]:
    """Hands out one cell at a time, so that none begins after the end."""
    waiting = iter(cells)
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker) as pool:
        running: dict[Future[None], Cell] = {}
        while True:
            while len(running) < jobs and not _is_over(end) and (cell := next(waiting, None)) is not None:
                running[pool.submit(do_cell, study, cell)] = cell
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()  # raises if the worker died
                yield running.pop(future)


def _start_worker() -> None:
    torch.set_num_threads(1)
    logging.disable_progress_bar()


def _write_failure(study: Study, cell: Cell, error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}"
    failure = {"status": store.FAILED, "error": reason, **Environment.current().to_dict()}
    store.write(study.output, cell.key, {**cell.to_dict(), **failure})


def _is_over(end: float | None) -> bool:
    return end is not None and time.monotonic() > end
