"""Runs one cell of the study: finds and measures its schedule, trains its student, and evaluates the student."""

import shutil
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import set_seed

from pumer_hf.bench.cost import measure_cost
from pumer_hf.bench.throughput import compare_throughput
from pumer_hf.hub.trainer import training_facts
from pumer_hf.models.budget import Search
from pumer_hf.models.encoders.base import PuMerPreTrainedModel
from pumer_hf.models.families import patch_size
from pumer_hf.recipes.recipe import RecipeTrainingArguments
from pumer_hf.recipes.run_results import evaluate
from pumer_hf.recipes.runner import stage_arguments
from pumer_hf.recipes.scorer_stage import freeze_scorer
from pumer_hf.recipes.stages import train_stage
from pumer_hf.reducers import PlainSchedule, parse_reduction
from pumer_hf.results import Environment
from pumer_hf.training.parameters import begin_reducer_stage
from pumer_hf.tuning.curves import closest
from pumer_hf.tuning.finder import Finder

from . import store
from .group import Shared
from .methods import MAIN, METHODS, base_schedule, variant_of
from .plan import Cell
from .records import TOLERANCE, Calibration, Option, scores


def calibrate(shared: Shared, cell: Cell) -> Calibration:
    """Return the schedule of a cell and its speed. Read them from the results, or find, measure and write them.

    The speed does not depend on the weights, so all seeds share it. No training should run during the measurement.
    """
    output = shared.study.output
    known = store.load(output, cell.schedule_key, Calibration)
    if known is not None:
        return known
    variant, reached = variant_of(cell.method, cell.schedule_variant), True
    if variant.fields:  # it changes the schedule of the method itself
        found = calibrate(shared, replace(cell, variant=MAIN))
        reached = found.reached
        if reached:
            assert isinstance(found.option.reduction, dict), f"{cell.method}: an ablation is of a schedule of one part"
            found = measure(shared, cell, Option({**found.option.reduction, **variant.fields}))
    elif cell.target is None:
        found = measure(shared, cell, Option(base_schedule(cell.method, cell.backbone, variant)))
    else:
        found, reached = find(shared, cell, cell.target)
    found = replace(found, target=cell.target, reached=reached)
    store.write(output, cell.schedule_key, found)
    return found


def find(shared: Shared, cell: Cell, target: float) -> tuple[Calibration, bool]:
    """Find the schedule of a method whose measured speed is closest to the target, and measure what it costs.

    Returns:
        What it costs, and whether any schedule of the method is so fast.
    """
    schedule = base_schedule(cell.method, cell.backbone, variant_of(cell.method, cell.schedule_variant))
    if schedule is None:
        return find_size(shared, cell, target)
    if cell.search_key not in shared.found:
        targets = shared.study.targets(cell)
        shared.found[cell.search_key] = dict(
            zip(targets, make_finder(shared, cell, schedule).find(targets), strict=True)
        )
    found = shared.found[cell.search_key][target]
    size = shared.smaller(METHODS[cell.method].image_part)
    return measure(shared, cell, Option(found.schedule.to_dict(), size)), found.highest >= (1 - TOLERANCE) * target


def make_finder(shared: Shared, cell: Cell, schedule: PlainSchedule) -> Finder:
    """Return what finds the scaled form of a schedule for a speed."""
    size = shared.smaller(METHODS[cell.method].image_part)
    model = shared.teacher if size is None else shared.student(None, size)
    parsed = parse_reduction(schedule)
    assert parsed is not None, "there is something to scale"
    search = Search(replace(parsed, flops=0.5), model.token_reduction.model.flops_counter())

    def speeds(wanted: Sequence[int]) -> list[float]:
        return measure_speeds(shared, cell, [Option(search.options[index].to_dict(), size) for index in wanted])

    return Finder(search, speeds, tolerance=TOLERANCE)


def find_size(shared: Shared, cell: Cell, target: float) -> tuple[Calibration, bool]:
    """Do the same as [`find`] for images of another size. All sizes are measured."""
    side, _ = patch_size(shared.teacher.config)
    options = [Option(None, size) for size in range(shared.teacher.config.image_size - side, 0, -side)]
    speeds = measure_speeds(shared, cell, options)
    return measure(shared, cell, options[closest(speeds, target)]), max(speeds) >= (1 - TOLERANCE) * target


def measure_speeds(shared: Shared, cell: Cell, options: Sequence[Option]) -> list[float]:
    """Measure how many times as fast as the teacher some options are, interleaved in one run."""
    students = {
        str(number): shared.student(one.reduction, one.image_size).eval() for number, one in enumerate(options)
    }
    whole = shared.batch(cell.method)
    sizes = {str(number): one.image_size for number, one in enumerate(options)}
    throughput = compare_throughput(
        {"teacher": shared.teacher, **students},
        whole,
        own_inputs={name: whole if size is None else shared.batch(cell.method, size) for name, size in sizes.items()},
        warmup=1,
        seconds=shared.study.size.benchmark_seconds * (1 + len(options)) / 2,
    )
    return [throughput.speeds[name].ratio for name in students]


def measure(shared: Shared, cell: Cell, option: Option) -> Calibration:
    """Measure what an option costs compared with the teacher, interleaved in one run ([`measure_cost`])."""
    student = shared.student(option.reduction, option.image_size).eval()
    smaller = None if option.image_size is None else shared.batch(cell.method, option.image_size)
    cost = measure_cost(
        {"teacher": shared.teacher, "student": student},
        shared.batch(cell.method),
        shared.study.size.benchmark_seconds,
        own_inputs=None if smaller is None else {"student": smaller},
    )
    return Calibration(Option(student.config.reduction, option.image_size), cost, Environment.current())


def run_cell(shared: Shared, cell: Cell, schedule: Calibration) -> dict[str, Any]:
    """Train the student of a cell from the teacher, and evaluate it on the test split.

    Args:
        shared: what the cells of its group share.
        cell: the cell to run.
        schedule: from [`calibrate`].

    Returns:
        The content of the result file, as plain JSON types. If the target speed is out of reach, no student is
        trained. The output of the training goes to a log file next to the student's folder.
    """
    option = schedule.option
    result: dict[str, Any] = {**cell.to_dict(), "reduction": option.reduction}
    result |= {"image_size": option.image_size, "speed": schedule.speed}
    if not schedule.reached:
        return {**result, "status": store.OUT_OF_REACH, **Environment.current().to_dict()}
    args = student_arguments(shared, cell)
    set_seed(args.seed)
    student = shared.student(option.reduction, option.image_size)
    start, log = time.perf_counter(), Path(f"{args.output_dir}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream, redirect_stdout(stream):
        if cell.is_trained:
            train(shared, cell, args, student, option.image_size)
            result["training"] = {**training_facts(args), "seconds": round(time.perf_counter() - start, 1)}
        collator = shared.collator(cell.method, option.image_size)
        evaluation = evaluate(shared.task, args, student, shared.data, collator)
    result |= {"status": store.DONE, **scores(evaluation)}
    return {**result, **schedule.cost.to_dict(), **Environment.current().to_dict()}


def train(
    shared: Shared, cell: Cell, args: RecipeTrainingArguments, student: PuMerPreTrainedModel, image_size: int | None
) -> None:
    """Train a student in place, and save it in its folder.

    In TiP, a first part of the steps trains only the pruners and the head (its Appendix A.1).
    """
    stage = partial(
        train_stage,
        train=shared.train,
        validation=shared.data.validation,
        collator=shared.collator(cell.method, image_size, training=True),
        eval_collator=shared.collator(cell.method, image_size),
        processor=shared.sized_processor(image_size),
        compute_metrics=shared.task.metrics(shared.data.validation, shared.data.labels),
        teacher=shared.live_teacher,
    )
    shutil.rmtree(args.output_dir, ignore_errors=True)  # left by a run that was killed
    first = METHODS[cell.method].first_stage
    if first:
        schedule = student.config.reduction
        begin_reducer_stage(student)
        args = student_arguments(shared, cell, first, "-first")
        shutil.rmtree(args.output_dir, ignore_errors=True)
        stage(args, student)
        student.set_reduction(schedule)
        student.requires_grad_(True)
        freeze_scorer(student)
    stage(student_arguments(shared, cell, 1 - first), student)


def student_arguments(shared: Shared, cell: Cell, part: float = 1.0, suffix: str = "") -> RecipeTrainingArguments:
    """Return the student's training arguments for a part of its steps, with its own folder.

    They are the recipe's arguments, changed by the size of the study, the seed and the variant.
    """
    values: dict[str, Any] = {
        **shared.recipe.training_values,
        **shared.study.size.student,
        **variant_of(cell.method, cell.variant).training,
        "seed": cell.seed,
        "save_strategy": "no",  # a killed cell starts again from the beginning: it takes a minute
        "disable_tqdm": True,
        "cache_teacher_logits": False,  # the rows have the logits
    }
    values["max_steps"] = max(round(part * values["max_steps"]), 1)
    return stage_arguments(shared.task, replace(shared.recipe, training_values=values), cell.key + suffix)
