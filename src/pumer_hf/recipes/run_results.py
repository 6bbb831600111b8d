"""The results of a run: its models are evaluated and measured, and the figures are written and printed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import EvalPrediction

from ..bench.cost import measure_cost
from ..data.collator import Collator
from ..data.task import Task, TaskData
from ..metrics.vqa import accuracy_report, token_report
from ..models.encoders.base import PuMerPreTrainedModel
from ..results import IMAGE_TOKENS, Environment, Evaluation, Report
from ..training.placement import whole_models
from .build import load_model, saved_reduction
from .cards import draw_example, write_run_cards
from .decoders import QuestionCollator, draw_decoder, prefill_inputs
from .elastic import elastic_evaluations, elastic_results
from .known import known_results
from .recipe import Recipe, RecipeTrainingArguments
from .report import format_report
from .scorer_stage import scorer_results
from .stages import predict


def report_results(
    task: Task, recipe: Recipe, data: TaskData, folders: Mapping[str, str], collators: Mapping[str, Collator]
) -> None:
    """Evaluate and measure the models of a run, and write and print the results.

    Args:
        task: the task of the recipe.
        recipe: the recipe.
        data: the data.
        folders: the folder of each model, by the name of its stage.
        collators: the collators of the evaluation, of `"teacher"` and `"student"`.
    """
    args = recipe.training
    teacher = trained_model(task, args, "teacher", folders["teacher"])
    evaluation = evaluate(task, args, teacher, data, collators["teacher"])
    reports = {
        one.seed: student_report(task, one, data, teacher, folders, collators) for one in recipe.students() or [recipe]
    }
    if args.process_index == 0:
        baselines = {} if recipe.data.streaming else task.baselines(data)
        report = Report.of_seeds(reports)
        report = replace(
            report,
            evaluations={"teacher": evaluation, **report.evaluations},
            baselines={name: evaluation.main.type.of(value) for name, value in baselines.items()},
            missing_images=dict(data.missing_images),
        )
        print(format_report(report), report.finish(Path(args.output_dir) / "results.json"), sep="\n")
        write_run_cards(task, recipe, report, folders)
        print(*known_results(recipe, report), sep="\n", end="")


def trained_model(task: Task, args: RecipeTrainingArguments, role: str, folder: str) -> Any:
    """Load a model that a run has trained, or its given teacher, as a whole on the device of the run."""
    with whole_models(args):
        return load_model(folder, saved_reduction(role, folder), task).to(args.device)


def student_report(
    task: Task,
    recipe: Recipe,
    data: TaskData,
    teacher: Any,
    folders: Mapping[str, str],
    collators: Mapping[str, Collator],
) -> Report:
    """Evaluate a student, draw what it keeps of an example, and measure what it and its teacher cost.

    Args:
        task: the task of the recipe.
        recipe: the recipe of the student ([`Recipe.students`]); that of a teacher without a student is measured alone.
        data: the data.
        teacher: the model.
        folders, collators: as in [`report_results`].

    Returns:
        The report without the teacher's evaluation. It is empty except in the first process.
    """
    args, models, evaluations, at_factors = recipe.training, {"teacher": teacher}, {}, {}
    folder = folders.get(recipe.stage_folder("student").name)
    if folder is not None:
        models["student"] = student = trained_model(task, args, "student", folder)
        again = partial(evaluate, task, args, student, data, collators["student"])
        evaluations["student"] = again()
        if args.elastic is not None and recipe.seed_offset == 0:
            at_factors = elastic_evaluations(args.elastic, student, again)
    report = Report()
    if args.process_index == 0:
        if folder is not None and recipe.reduction is not None:
            draw: Callable[..., None] = partial(draw_decoder, args) if recipe.model.is_decoder else draw_example
            draw(models["student"], collators["student"], data.test[0], folder)
        batch_of = partial(benchmark_batch, args, data)
        batches = {name: batch_of(collators[name]) for name in models}
        examples = {name: batch_of(collators[name], size=1) for name in models}
        seconds = args.benchmark_seconds
        report = Report(
            evaluations=evaluations,
            elastic=elastic_results(at_factors, models, batches, examples, seconds) if at_factors else None,
            cost=measure_cost(models, batches["teacher"], seconds, batches, examples),
            environment=Environment.current(),
            other=scorer_results(recipe),
        )
    PartialState().wait_for_everyone()  # no process computes while the first one measures
    return report


def evaluate(
    task: Task, args: RecipeTrainingArguments, model: PuMerPreTrainedModel, data: TaskData, collator: Collator
) -> Evaluation:
    """Evaluate a model on the test data; `task.metric_types` gives the units of its metrics.

    If it depends on the data how many image tokens stay, their mean number per example is a metric too.
    """
    types = {**task.metric_types, **IMAGE_TOKENS}
    if task.evaluate is not None:
        return Evaluation.from_dict(task.evaluate(args, model, data.test, collator), types)
    logits, targets, image_tokens = predict(args, model, data.test, collator)
    assert targets is not None, "every split of a task has labels"
    metrics = task.metrics(data.test, data.labels)(EvalPrediction(predictions=logits, label_ids=targets))
    counts = accuracy_report(logits, targets, data.test) if "accuracy" in metrics else {"questions": len(logits)}
    tokens = {} if image_tokens is None else token_report(image_tokens, data.test)
    return Evaluation.from_dict({**counts, **metrics, **tokens}, types)


def benchmark_batch(
    args: RecipeTrainingArguments, data: TaskData, collator: Any, size: int | None = None
) -> dict[str, Any]:
    """Return a batch of the first test rows, repeated if there are too few, without labels, on the device.

    Args:
        args: the training arguments.
        data: the data.
        collator: the collator of the evaluation.
        size: how many rows; None: those of a batch of the evaluation.
    """
    number = args.per_device_eval_batch_size if size is None else size
    rows = list(data.test.select([index % len(data.test) for index in range(number)]))
    batch = collator.for_benchmark()(rows)
    inputs = {name: value.to(args.device) for name, value in batch.items() if name != "labels"}
    return prefill_inputs(inputs) if isinstance(collator, QuestionCollator) else inputs
