"""Runs one cell of the study: finds and measures its schedule, trains its student, and evaluates the student."""

import math
import shutil
import time
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import set_seed

from pumer_hf.bench.cost import measure_cost, measure_size
from pumer_hf.bench.throughput import compare_throughput
from pumer_hf.hub.trainer import training_facts
from pumer_hf.models.encoders.base import PuMerPreTrainedModel
from pumer_hf.models.families import patch_size
from pumer_hf.recipes.recipe import RecipeTrainingArguments
from pumer_hf.recipes.run_results import evaluate
from pumer_hf.recipes.runner import stage_arguments
from pumer_hf.recipes.stages import train_stage
from pumer_hf.results import Environment
from pumer_hf.training.parameters import begin_reducer_stage
from pumer_hf.tuning.curves import closest, is_close, speed_curve, spread

from . import store
from .group import Shared
from .methods import MAIN, METHODS, TRAINING_FREE, base_schedule, variant_of
from .plan import Cell
from .records import Calibration, Curve, scores
from .speeds import TOLERANCE, Option, changed, distinct_schedules

CURVE_POINTS = 6
"""How many scales of a schedule are measured. The speeds of the other scales are computed from these."""
MAX_MEASURES = 3
"""How many schedules are measured at most to find one with the target speed."""


def calibrate(shared: Shared, cell: Cell) -> Calibration:
    """Return the schedule of a cell and its speed. Read them from the results, or find, measure and write them.

    The speed does not depend on the weights, so all seeds share it. No training should run during the measurement.
    """
    output = shared.study.output
    known = store.load(output, cell.schedule_key, Calibration)
    if known is not None:
        return known
    variant, reached = variant_of(cell.method, cell.schedule_variant), True
    if cell.schedule_variant != MAIN and not variant.schedule:  # it changes the schedule of the method itself
        found = calibrate(shared, replace(cell, variant=MAIN))
        reached = found.reached
        if reached:
            assert found.option.reduction is not None, f"{cell.method}: a variant of a method that reduces nothing"
            found = measure(shared, cell, Option(changed(found.option.reduction, variant)))
    elif cell.target is None:
        found = measure(shared, cell, Option(base_schedule(cell.method, cell.backbone, variant)))
    else:
        found, reached = find(shared, cell, cell.target)
    found = replace(found, target=cell.target, reached=reached)
    store.write(output, cell.schedule_key, found)
    return found


def find(shared: Shared, cell: Cell, target: float) -> tuple[Calibration, bool]:
    """Measure the option of a method whose speed is closest to the target. Return it, and whether any option is so
    fast.

    The machine may have become faster or slower since the curve was measured. If the option is off its target by more
    than `TOLERANCE`, all speeds of the curve are multiplied by the factor that this measurement shows. Then the option
    that is closest now is measured.
    """
    curve, measured = calibrate_curve(shared, cell), []
    speeds = list(curve.speeds)
    for _ in range(MAX_MEASURES):
        best = closest(speeds, target)
        measured.append(measure(shared, cell, curve.options[best]))
        ratio = measured[-1].speed
        speeds = [speed * ratio / speeds[best] for speed in speeds]
        if is_close(ratio, target, TOLERANCE) or closest(speeds, target) == best:
            break
    nearest = min(measured, key=lambda one: abs(math.log(one.speed / target)))
    return nearest, max(speeds) >= (1 - TOLERANCE) * target


def calibrate_curve(shared: Shared, cell: Cell) -> Curve:
    """Return how fast a student is at every scale of its schedule. Read it from the results, or measure and write it.

    A few options take turns with the teacher in one run, so a change of the machine's speed affects all of them alike.
    """
    output = shared.study.output
    known = store.load(output, cell.curve_key, Curve)
    if known is not None:
        return known
    options = options_of(shared, cell)
    whole = shared.batch(cell.method)
    inputs = [whole if one.image_size is None else shared.batch(cell.method, one.image_size) for one in options]
    teacher_gflops = measure_size(shared.teacher, example_of(whole)).gflops
    students = [shared.student(option.reduction, option.image_size).eval() for option in options]
    sizes = [measure_size(student, example_of(batch)) for student, batch in zip(students, inputs, strict=True)]
    gains = [teacher_gflops / size.gflops for size in sizes]
    points = spread(len(options), CURVE_POINTS)
    throughput = compare_throughput(
        {"teacher": shared.teacher, **{str(point): students[point] for point in points}},
        whole,
        own_inputs={str(point): inputs[point] for point in points},
        warmup=1,
        seconds=2.5 * shared.study.size.benchmark_seconds,
    )
    speeds = speed_curve(gains, points, [throughput.speeds[str(point)].ratio for point in points])
    curve = Curve(tuple(options), tuple(gains), tuple(speeds), throughput, Environment.current())
    store.write(output, cell.curve_key, curve)
    return curve


def options_of(shared: Shared, cell: Cell) -> list[Option]:
    """Return the ways to run the students of a method, from the most to the least expensive."""
    schedule = base_schedule(cell.method, cell.backbone, variant_of(cell.method, cell.schedule_variant))
    student = shared.student(schedule).eval()
    if schedule is None:
        side, _ = patch_size(student.config)
        return [Option(None, size) for size in range(student.config.image_size - side, 0, -side)]
    num_text, num_image = measure_size(shared.teacher, example_of(shared.batch(cell.method))).tokens_in
    return [Option(one) for one in distinct_schedules(student, schedule, num_text, num_image)]


def example_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the first example of a batch, as a batch of one."""
    return {name: value[:1] for name, value in batch.items()}


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
        if cell.variant != TRAINING_FREE:
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
