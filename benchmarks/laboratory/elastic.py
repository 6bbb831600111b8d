"""The study of elastic students: one student for a range of speeds against one student for each speed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pumer_hf.models.encoders.base import PuMerPreTrainedModel
from pumer_hf.recipes.build import load_model
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.recipes.runner import train_models
from pumer_hf.reducers import Schedule, TokenReducer, parse_method
from pumer_hf.reducers.lookahead import LookaheadReducer
from pumer_hf.training.answers import measured_speeds, with_config
from pumer_hf.tuning.curves import closest, speed_curve, spread

from .elastic_results import ElasticSeed, SpeedRow, alone, speed_name
from .lookahead import VQA, Bench

TARGETS = (1.3, 1.7, 2.2)
"""The speeds that are compared, as multiples of the teacher's."""
SCALES = 400
"""How many scales of a schedule to try. Far fewer leave different numbers of tokens."""
FACTORS = tuple(step / 100 for step in range(2, 101))
"""The parts of the full schedule among which the schedule of a speed is found."""
POINTS = 8
"""How many options are measured. The speeds of the others are computed from these."""
SPEED_BATCH = 512
"""Examples per forward whose speed is measured."""
Reducers = Mapping[str, TokenReducer]


@dataclass(frozen=True)
class Option:
    """One way to make the teacher faster."""

    reducers: Reducers
    """By site."""
    tokens: int
    """How many tokens leave all layers; fewer are faster."""
    value: Any
    """What makes the option: a schedule, or the number of patches that `lookahead` keeps."""


def speed_inputs(bench: Bench) -> dict[str, Tensor]:
    """Return the batch on which speeds are measured."""
    batch = bench.encoded(bench.data.test.select(range(min(SPEED_BATCH, len(bench.data.test)))))
    names = [name for name in batch[0] if name != "labels"]
    return {name: torch.cat([part[name] for part in batch]) for name in names}


def find(bench: Bench, options: Sequence[Option], targets: Sequence[float], seconds: float) -> list[Any]:
    """Return the value of the option that is closest to each target speed.

    Args:
        bench: the teacher.
        options: from the slowest to the fastest one.
        targets: speeds as multiples of the teacher's.
        seconds: how long to measure.
    """
    points = spread(len(options), POINTS)
    timed = {str(point): options[point].reducers for point in points}
    found = measured_speeds(bench.model, timed, speed_inputs(bench), seconds)
    whole = bench.model.config.num_hidden_layers * num_tokens(bench)
    curve = speed_curve([whole / one.tokens for one in options], points, [found[str(point)] for point in points])
    return [options[closest(curve, target)].value for target in targets]


def num_tokens(bench: Bench) -> int:
    """Return how many tokens come into the first layer."""
    return sum(tokens_in(bench))


def tokens_in(bench: Bench) -> tuple[int, int]:
    """Return the text tokens and the image tokens that come into the first layer."""
    return bench.batches[0]["input_ids"].shape[1], bench.num_patches + 1


def reducers_of(model: PuMerPreTrainedModel, schedule: Mapping[str, Any]) -> Reducers:
    """Return new reducers of a schedule with one part, by site."""
    part = parse_method(schedule)
    return {part.site: model.base_model.make_reducer(part).eval()}


def schedule_options(bench: Bench, schedules: Sequence[dict[str, Any]]) -> list[Option]:
    """Return an option for each schedule that leaves another number of tokens, the slowest first."""
    by_tokens: dict[int, Option] = {}
    for schedule in schedules:
        bench.model.set_reduction(schedule)
        total = sum(map(sum, bench.model.output_lengths(*tokens_in(bench))))
        by_tokens.setdefault(total, Option(reducers_of(bench.model, schedule), total, schedule))
    bench.model.set_reduction(None)
    return [by_tokens[total] for total in sorted(by_tokens, reverse=True)]


def find_schedules(bench: Bench, schedule: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Return a schedule for each of [`TARGETS`]. The last one is the full schedule, the others are parts of it."""
    whole = parse_method(schedule)
    scaled = [whole.scaled(factor).to_dict() for factor in Schedule((whole,)).factors(SCALES)]
    (full,) = find(bench, schedule_options(bench, scaled), TARGETS[-1:], seconds)
    parts = schedule_options(bench, [parse_method(full).scaled(factor).to_dict() for factor in FACTORS])
    return [*find(bench, parts, TARGETS[:-1], seconds), full]


def lookahead_options(bench: Bench, scorer: LookaheadReducer) -> list[Option]:
    """Return an option for each number of patches that `lookahead` may keep, the slowest first."""
    num_text, _ = tokens_in(bench)
    layers = bench.model.config.num_hidden_layers
    return [
        Option(at_number(scorer, number), layers * (num_text + number + 1), number)
        for number in range(bench.num_patches - 1, 0, -1)
    ]


def at_number(scorer: LookaheadReducer, number: int) -> Reducers:
    """Return the reducer of `lookahead` that keeps a number of patches."""
    config = replace(scorer.config, keep_ratio=None, num_keep=number)
    return {config.site: with_config(scorer, config)}


def measure_rows(
    bench: Bench, scorer: LookaheadReducer, schedules: Sequence[dict[str, Any]], kept: Sequence[int], seconds: float
) -> list[SpeedRow]:
    """Measure the speeds of the schedules and of `lookahead` in one interleaved run."""
    timed: dict[str, Reducers] = {}
    for target, schedule, number in zip(TARGETS, schedules, kept, strict=True):
        timed[f"{target} schedule"] = reducers_of(bench.model, schedule)
        timed[f"{target} lookahead"] = at_number(scorer, number)
    found = measured_speeds(bench.model, timed, speed_inputs(bench), seconds)
    return [
        SpeedRow(target, schedule, found[f"{target} schedule"], number, found[f"{target} lookahead"])
        for target, schedule, number in zip(TARGETS, schedules, kept, strict=True)
    ]


def train_student(
    bench: Bench, recipe_file: Path, schedule: Mapping[str, Any], folder: Path, flags: Sequence[str]
) -> str:
    """Train a student from the teacher of a bench, unless its folder has one. Return where it is.

    Args:
        bench: the teacher and the data.
        recipe_file: the recipe, whose schedule is replaced.
        schedule: the schedule of the student.
        folder: the folder of the run.
        flags: flags of the recipe.
    """
    own = ["--output_dir", str(folder), "--resume", "true", "--report_to", "none", "--disable_tqdm", "true"]
    recipe = parse_recipe(VQA, recipe_file, [str(recipe_file), *own, *flags])
    recipe = replace(recipe, reduction=dict(schedule))
    processor = bench.collator.encoder.processor  # type: ignore[attr-defined]
    collators = [VQA.collator(processor, bench.data, recipe.data, training) for training in (True, False)]
    return train_models(VQA, recipe, bench.data, bench.model, *collators)["student"]


@torch.inference_mode()
def accuracy(bench: Bench, model: PuMerPreTrainedModel) -> float:
    """Return the accuracy of a model on the test questions of a bench, in percent."""
    scores = []
    for batch in bench.batches:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        answer = model(**inputs).logits.argmax(dim=-1, keepdim=True)
        scores.append(batch["labels"].gather(1, answer).squeeze(1))
    return 100 * float(torch.cat(scores).mean())


def at_schedules(bench: Bench, folder: str, schedules: Sequence[dict[str, Any]]) -> list[float]:
    """Return the accuracy of a saved model with each schedule."""
    found = []
    for schedule in schedules:
        model = load_model(folder, schedule, VQA).eval()
        found.append(accuracy(bench, model))
    return found


def run_seed(
    bench: Bench,
    recipe_file: Path,
    rows: Sequence[SpeedRow],
    scorer: LookaheadReducer,
    work: Path,
    flags: Sequence[str],
) -> ElasticSeed:
    """Train the students of a seed, and evaluate each at all speeds.

    Args:
        bench: the teacher of the seed.
        recipe_file: the recipe of the students.
        rows: the schedules of the speeds.
        scorer: the scorer behind the teacher.
        work: the folder of the seed.
        flags: flags of the recipe, with the teacher and the seed.
    """
    schedules = [row.schedule for row in rows]
    students = {
        alone(row.target): train_student(bench, recipe_file, row.schedule, work / speed_name(row.target), flags)
        for row in rows
    }
    students["elastic"] = train_student(
        bench, recipe_file, schedules[-1], work / "elastic", [*flags, "--elastic", "0", "1"]
    )
    teacher = flags[flags.index("--teacher") + 1]
    found = {name: at_schedules(bench, folder, schedules) for name, folder in students.items()}
    found["not trained"] = at_schedules(bench, teacher, schedules)
    found["lookahead"] = []
    for row in rows:
        with bench.model.token_reduction.using(at_number(scorer, row.kept)):
            found["lookahead"].append(accuracy(bench, bench.model))
    seed = int(flags[flags.index("--seed") + 1])
    unreduced = at_schedules(bench, students["elastic"], [None])[0]  # type: ignore[list-item]
    return ElasticSeed(seed, accuracy(bench, bench.model), unreduced, found)
