"""Runs the work list group by group: first it measures schedules, while nothing trains, then it trains students."""

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
from .group import Shared, Study, TeacherError, check_teacher, load_group
from .methods import METHODS
from .plan import Cell


def run_study(study: Study, cells: Sequence[Cell], *, jobs: int = 1, minutes: float | None = None) -> int:
    """Run the cells that have no result yet, and write each result at once.

    If a cell fails, that is written as its result, and the others go on.

    Args:
        study: the study.
        cells: the cells to run, in order. Those that have a result are skipped.
        jobs: how many worker processes train, each with one thread. With 1, this process trains with all its threads.
        minutes: begin no cell after this time.

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
    """Run the cells of a group, and yield each of them when it has a result."""
    able: list[Cell] = []
    for seed in dict.fromkeys(cell.seed for cell in cells):
        members = [cell for cell in cells if cell.seed == seed]
        if _is_prepared(study, members):
            able += members
        else:
            yield from members
        if _is_over(end):
            return
    ready = []
    for cell in tqdm(able, desc="Schedules", unit="cell", leave=False):
        if _is_over(end):
            break
        if _has_schedule(study, cell):
            ready.append(cell)
        else:
            yield cell
    yield from _run_in_workers(study, ready, jobs, end) if jobs > 1 else _run_here(study, ready, end)


def _run_here(study: Study, cells: Iterable[Cell], end: float | None) -> Iterator[Cell]:
    """Run cells one after another in this process."""
    for cell in cells:
        if _is_over(end):
            return
        do_cell(study, cell)
        yield cell


def _has_schedule(study: Study, cell: Cell) -> bool:
    """Find and measure the schedule of a cell. If that fails, write why, and return False."""
    try:
        calibrate(load_group(study, cell.data, cell.backbone, cell.seed), cell)
    except Exception as error:  # after any error, the other cells go on
        _write_failure(study, cell, error)
        return False
    return True


def _is_prepared(study: Study, cells: Sequence[Cell]) -> bool:
    """Make what the cells of a teacher need: the teacher, its logits and its scorer. If that fails, write why.

    The workers then find it on disk.
    """
    try:
        shared = load_group(study, cells[0].data, cells[0].backbone, cells[0].seed)
        check_teacher(shared, cells[0].group)
        if any(cell.is_trained for cell in cells):
            _ = shared.train
        if any(METHODS[cell.method].needs_scorer for cell in cells):
            _ = shared.scorer
    except TeacherError:
        raise
    except Exception as error:  # after any error, the other teachers go on
        for cell in cells:
            _write_failure(study, cell, error)
        return False
    return True


def do_cell(study: Study, cell: Cell) -> None:
    """Run a cell and write its result. If it fails, write why."""
    try:
        shared: Shared = load_group(study, cell.data, cell.backbone, cell.seed)
        result = run_cell(shared, cell, calibrate(shared, cell))
    except Exception as error:  # after any error, the other cells go on
        _write_failure(study, cell, error)
    else:
        store.write(study.output, cell.key, result)


def _run_in_workers(study: Study, cells: Iterable[Cell], jobs: int, end: float | None) -> Iterator[Cell]:
    """Give the workers one cell at a time, so that no cell begins after the end."""
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
