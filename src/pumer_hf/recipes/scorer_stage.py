"""The stage of a recipe that trains the scorer of `lookahead`, between teacher and student."""

from dataclasses import replace
from typing import Any

from datasets import Dataset

from ..data.collator import Collator
from ..data.task import Task, TaskData
from ..models.bases import base_of
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.scorers import load_scorer
from ..reducers import PlainSchedule, Schedule, reducer_class
from ..reducers.lookahead import LookaheadReducer, LookaheadReductionConfig
from ..results import Environment, ScorerReport
from ..training.placement import whole_models
from .build import load_model
from .recipe import SCORER_STAGE, Recipe
from .run_plan import trained_stages
from .scorer import RESULTS_NAME, ScorerData, train_scorer

HELD_OUT = 500
"""The number of validation rows on which the scorer is compared with other methods."""


def train_recipe_scorer(task: Task, recipe: Recipe, data: TaskData, teacher: str, collator: Collator) -> PlainSchedule:
    """Train the scorer of a recipe behind its teacher, in its folder. A finished one is not trained again.

    Args:
        task: the task of the recipe.
        recipe: the recipe, in whose reduction a part of `lookahead` has no `weights`.
        data: the data. The training rows train the scorer, without their labels.
        teacher: the folder or Hub id of the teacher.
        collator: the collator of evaluation, of single texts.

    Returns:
        The reduction of the student, which names the scorer.
    """
    part = recipe.untrained_scorer
    assert part is not None and recipe.schedule is not None, "the recipe has a scorer to train"
    args = recipe.scorer_arguments()
    with whole_models(recipe.training):
        model = load_model(teacher, None, task)
    held_out: Dataset = data.validation.select(range(min(HELD_OUT, len(data.validation))))
    words = f"{len(data.train):,} examples of the recipe's data"
    train_scorer(model, part, ScorerData(data.train, held_out, collator, words), args, resume=recipe.training.resume)
    parts = [replace(one, weights=args.output_dir) if one is part else one for one in recipe.schedule.parts]
    return Schedule(tuple(parts)).to_dict()


def check_steps(recipe: Recipe) -> None:
    """Raise `ValueError` if a frozen student (`max_steps: 0`) does not go with the rest of a recipe."""
    for name in trained_stages(recipe):
        if recipe.stage(name).max_steps == 0:
            raise ValueError(
                f"training.max_steps=0 leaves the student untrained, but the stage {name} has to be trained: give it "
                "a number of steps of its own, as in teacher_training"
            )
    if recipe.training.max_steps:
        return
    methods = [reducer_class(part) for part in (recipe.schedule.parts if recipe.schedule else ())]
    learning = [method.config_class.method for method in methods if method.learns and not method.learns_apart]
    if learning:
        raise ValueError(f"training.max_steps=0: method {learning[0]!r} learns in the student's training: give steps")
    if recipe.training.train_scorer:
        raise ValueError("training.train_scorer: with max_steps=0 the student is not trained: give a number of steps")


def check_scorer(recipe: Recipe, teacher: PuMerPreTrainedModel) -> None:
    """Raise `ValueError` if a recipe asks for what its training of a scorer cannot do."""
    found = recipe.schedule.parts if recipe.schedule else ()
    parts = [part for part in found if isinstance(part, LookaheadReductionConfig)]
    for name in ("scorer_training", "train_scorer"):
        if getattr(recipe.training, name) and not parts:
            raise ValueError(f"training.{name} has no effect: the reduction has no part of method 'lookahead'")
    for part in parts:
        if part.weights is not None:
            if recipe.model.teacher is None:
                raise ValueError(
                    f"reduction.weights={part.weights!r}: a scorer fits only the model that it was trained behind: "
                    "give this model as model.teacher, or leave weights out to train a scorer"
                )
            load_scorer(base_of(teacher).host, part)  # finds what does not fit now
    if recipe.untrained_scorer is not None:
        base_of(teacher).check_answers()
        if recipe.data.streaming:
            raise ValueError("data.streaming: a scorer is trained on rows that are known: give reduction.weights")


def freeze_scorer(student: PuMerPreTrainedModel) -> None:
    """Let the scorers of a student keep their weights in its training."""
    for reducer in student.token_reduction.part_reducers:
        if isinstance(reducer, LookaheadReducer):
            reducer.requires_grad_(False)


def scorer_results(recipe: Recipe) -> dict[str, Any]:
    """Return what the training of the scorer has measured, for the results of a run. It is empty without a scorer."""
    path = recipe.stage_folder(SCORER_STAGE) / RESULTS_NAME
    if recipe.untrained_scorer is None or not path.is_file():
        return {}
    return {SCORER_STAGE: replace(ScorerReport.load(path), environment=Environment()).to_dict()}
