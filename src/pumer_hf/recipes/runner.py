"""The runner of recipes. It trains teacher and student, and reports what the reduction costs and gains."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from accelerate import PartialState
from transformers import EvalPrediction, ProcessorMixin, set_seed
from transformers.utils import logging

from ..bench.cost import measure_cost
from ..data.collator import Collator
from ..data.downloads import check_downloaded
from ..data.task import Task, TaskData
from ..data.tasks import TASKS
from ..folders import check_writable
from ..hub.push import push_folder
from ..images import DataError
from ..metrics.vqa import accuracy_report, token_report
from ..models.decoders.modeling import ReducedDecoder
from ..models.encoders.base import PuMerPreTrainedModel
from ..results import IMAGE_TOKENS, Environment, Evaluation, Report
from ..training.parameters import begin_reducer_stage
from ..training.placement import whole_models
from ..training.trainer import BASE, check_devices
from .build import build_teacher, check_sources, load_model, saved_reduction, teacher_labels
from .cards import draw_example, write_run_cards
from .checks import check_kind, check_push, check_recipe, check_streaming, with_found_ratios
from .decoders import QuestionCollator, decoder_task, draw_decoder, prefill_inputs, training_rows
from .elastic import elastic_evaluations, elastic_results
from .finetuning import fit_to_rows, training_recipe
from .interrupt import ending_in_one_line
from .pretraining import is_pretrained, pretrain
from .program import exit_on_user_error, leaving_group
from .recipe import STAGES, ModelArguments, Recipe, RecipeTrainingArguments, check_reporters
from .record import begin_stage, made_from, weights_of, without_student
from .report import format_report
from .run_plan import run_plan, stage_lengths
from .scorer_stage import freeze_scorer, scorer_results, train_recipe_scorer
from .stages import check_new_run, predict, train_stage
from .threads import use_available_cores

logger = logging.get_logger(__name__)


@leaving_group()
def run_recipe(task: str, arguments: list[str] | None = None) -> None:
    """Run a recipe: train teacher and student, and report. If something is wrong, the program ends with one line.

    Args:
        task: the name of the task to train for: `"vqa"`.
        arguments: `[FILE.yaml] [--flag value ...]`; default `sys.argv[1:]`. For the recipe without a file, see
            [`training_recipe`].
    """
    with ending_in_one_line():
        run_stages(TASKS[task], arguments)


def run_stages(task: Task, arguments: list[str] | None) -> None:
    """Do the work of [`run_recipe`], without its handling of Ctrl-C and SIGTERM."""
    with exit_on_user_error():
        recipe = training_recipe(task, arguments)
        if recipe.model.is_decoder:
            task = decoder_task(task, recipe.model.backbone)
        check_devices(recipe.training)
        open_output_folder(recipe.training)
        for args in (recipe.training, *map(recipe.stage, STAGES[:-1])):
            check_reporters(args)
            check_push(args)
        check_streaming(recipe)
        check_kind(recipe)
        check_downloaded(recipe.data, recipe.model.checkpoint)
        check_sources(recipe.model, task)
        data = task.load(recipe.data, teacher_labels(recipe.model))
        recipe = fit_to_rows(recipe, data.train)
        texts = training_texts(task, recipe, data)
    if recipe.training.device.type == "cpu":
        use_available_cores(recipe.training.world_size)

    with exit_on_user_error():
        teacher, processor = first_model(recipe.model, task, recipe, data, texts)
        recipe = with_found_ratios(recipe, teacher)
        check_recipe(recipe, teacher, task.collator(processor, data, recipe.data, True))
    if recipe.training.process_index == 0:
        print(run_plan(task, recipe, data, teacher, processor), flush=True)
    if is_pretrained(recipe):
        pretrained = pretrain(recipe, texts, stage_lengths(recipe, len(data.train)))  # never streamed
        with exit_on_user_error():
            teacher, processor = first_model(pretrained, task, recipe, data, texts)
    collator, eval_collator = (task.collator(processor, data, recipe.data, training) for training in (True, False))
    with exit_on_user_error((DataError,)):
        folders = train_models(task, recipe, data, teacher, collator, eval_collator)
        collators = {"teacher": eval_collator, "student": at_size(eval_collator, recipe.model.image_size)}
        report_results(task, recipe, data, folders, collators)


def first_model(
    args: ModelArguments, task: Task, recipe: Recipe, data: TaskData, texts: list[str]
) -> tuple[PuMerPreTrainedModel, ProcessorMixin]:
    """Return the teacher before its training, the same at each call, and its processor."""
    set_seed(recipe.training.seed)
    return build_teacher(args, data.labels, texts, recipe.data.max_text_length, task)


def open_output_folder(args: RecipeTrainingArguments) -> None:
    """Make the folder of a run, and check that files can be written there, before any work is done.

    Raises:
        FileExistsError: it holds a run, and `args.resume` is not set.
        ValueError: the folder cannot be made or written to.
    """
    folder = Path(args.output_dir)
    check_new_run(args)
    PartialState().wait_for_everyone()  # no process changes the folder before all have checked it
    check_writable(folder, "training.output_dir")
    if args.resume and not any((folder / name).is_dir() for name in STAGES):
        logger.warning("--resume: %s holds no stage of a run, so all begins anew", folder)


def report_results(
    task: Task, recipe: Recipe, data: TaskData, folders: dict[str, str], collators: dict[str, Collator]
) -> None:
    """Evaluate and measure the models of a run, and write, print and push the results."""
    with whole_models(recipe.training):
        models = {
            name: load_model(folder, saved_reduction(name, folder), task).to(recipe.training.device)
            for name, folder in folders.items()
        }
    evaluations = {
        name: evaluate(task, recipe.training, model, data, collators[name]) for name, model in models.items()
    }
    factors, elastic = recipe.training.elastic, None
    if factors is not None:
        again = partial(evaluate, task, recipe.training, models["student"], data, collators["student"])
        at_factors = elastic_evaluations(factors, models["student"], again)
    if recipe.training.process_index == 0:
        batch_of = partial(benchmark_batch, recipe.training, data)
        batches = {name: batch_of(collators[name]) for name in models}
        examples = {name: batch_of(collators[name], size=1) for name in models}
        seconds = recipe.training.benchmark_seconds
        if factors is not None:
            elastic = elastic_results(at_factors, models, batches, examples, seconds)
        baselines = {} if recipe.data.streaming else task.baselines(data)
        main = evaluations["teacher"].main.type
        report = Report(
            evaluations=evaluations,
            cost=measure_cost(models, batches["teacher"], seconds, batches, examples),
            environment=Environment.current(),
            baselines={name: main.of(value) for name, value in baselines.items()},
            missing_images=dict(data.missing_images),
            elastic=elastic,
            other=scorer_results(recipe),
        )
        print(format_report(report), report.finish(Path(recipe.training.output_dir) / "results.json"), sep="\n")
        if recipe.reduction is not None:
            draw: Callable[..., None] = (
                partial(draw_decoder, recipe.training) if recipe.model.is_decoder else draw_example
            )
            draw(models["student"], collators["student"], data.test[0], folders["student"])
        write_run_cards(task, recipe, report, folders)
        push_with_results(task, recipe, folders)


def training_texts(task: Task, recipe: Recipe, data: TaskData) -> list[str]:
    """Return the texts for the vocabulary of a model from scratch; [] if there is a model already."""
    if recipe.model.teacher or recipe.model.checkpoint:
        return []
    return list(task.texts(data.train))


def train_models(
    task: Task,
    recipe: Recipe,
    data: TaskData,
    teacher: PuMerPreTrainedModel | ReducedDecoder,
    collator: Any,
    eval_collator: Any,
) -> dict[str, str]:
    """Train the models of the recipe. Return the folders of the `teacher` and, if there is one, the `student`."""
    record = made_from(recipe, data, collator.processor)
    train = partial(
        train_stage,
        validation=data.validation,
        compute_metrics=task.metrics(data.validation, data.labels),
        lengths=stage_lengths(recipe, None if recipe.data.streaming else len(data.train)),
        lora=cast("dict | None", recipe.model.lora),
    )
    # The arguments of a stage are made when it begins, since they reset the state of accelerate, which takes a plugin
    # of DeepSpeed only once. They are made before the model is loaded, since ZeRO-3 shards it.
    if recipe.model.teacher is None:
        args = stage_arguments(task, recipe, "teacher")
        with exit_on_user_error():
            begin_stage(args, without_student(record))
        rows, batches = data.train, collator
        if recipe.model.is_decoder:
            rows, batches = training_rows(data, collator, args.questions_per_image)
        train(args, teacher, train=rows, collator=batches, eval_collator=eval_collator, processor=collator.processor)
        folders = {"teacher": args.output_dir}
    else:
        folders = {"teacher": recipe.model.teacher}
    if not recipe.has_student:
        return folders
    record["teacher"] = weights_of(folders["teacher"])
    reduction = recipe.reduction
    if recipe.untrained_scorer is not None:
        with exit_on_user_error():
            reduction = train_recipe_scorer(task, recipe, data, folders["teacher"], eval_collator.for_benchmark())
    args = stage_arguments(task, recipe, "student" if recipe.training.reducer_training is None else "reducer")
    with exit_on_user_error():
        begin_stage(args, record)
    student = load_model(folders["teacher"], reduction, task)
    reduction = student.config.reduction  # without the sources of scorers, which are loaded now
    image_size = recipe.model.image_size
    if image_size is not None:
        student.resize_images(image_size)
    frozen: Any = BASE
    if recipe.model.lora is None or args.cache_teacher_logits:
        with nullcontext() if recipe.training.shard_teacher else whole_models(recipe.training):
            frozen = load_model(folders["teacher"], None, task)
    train = partial(
        train,
        train=data.train,
        collator=at_size(collator, image_size),
        eval_collator=at_size(eval_collator, image_size),
        processor=at_size(collator, image_size).processor,
        teacher=frozen,
        teacher_collator=None if image_size is None else collator,
    )
    if recipe.training.reducer_training is not None:
        train_reducer(args, student, train)
        folder = args.output_dir
        args = stage_arguments(task, recipe, "student")
        with exit_on_user_error():
            begin_stage(args, record)
        student = load_model(folder, reduction, task)
    if not args.train_scorer:
        freeze_scorer(student)
    if recipe.budget is not None:
        student.config.budget = recipe.budget
    train(args, student)
    return {**folders, "student": args.output_dir}


def train_reducer(args: RecipeTrainingArguments, student: PuMerPreTrainedModel, train: Callable[..., None]) -> None:
    """Train a first stage of the student, in which only the reducers and the head learn (TiP, Appendix A.1).

    There is no continuity loss in this stage.
    """
    args.push_to_hub = False  # the repository is the student's
    begin_reducer_stage(student)
    if not args.train_scorer:
        freeze_scorer(student)
    train(args, student)


def at_size(collator: Collator, image_size: int | None) -> Collator:
    """Return the collator with another image size; None keeps the size."""
    return collator if image_size is None else replace(collator, encoder=collator.encoder.at_size(image_size))


def push_with_results(task: Task, recipe: Recipe, folders: dict[str, str]) -> None:
    """Push the models that the stages have pushed again, now that their cards have results."""
    for name, folder in folders.items():
        args = stage_arguments(task, recipe, name)
        if args.push_to_hub and folder == args.output_dir:
            commit = push_folder(
                folder,
                str(args.hub_model_id),
                private=args.hub_private_repo,
                revision=args.hub_revision,
                commit_message="Results",
                token=args.hub_token,
            )
            print(f"Pushed to {commit.commit_url}")


def stage_arguments(task: Task, recipe: Recipe, name: str) -> RecipeTrainingArguments:
    """Return the training arguments of a stage.

    The best model is the one with the best metric of the task, unless the recipe names a metric. Only one stage pushes
    to a repository.
    """
    args = recipe.stage(name)
    if args.hub_model_id is None:
        args.hub_model_id = Path(recipe.training.output_dir).name
    if name == "teacher" and recipe.has_student:
        # The repository is for the student, unless the teacher has its own.
        teacher_id = (recipe.training.teacher_training or {}).get("hub_model_id")  # type: ignore[union-attr]
        args.push_to_hub = args.push_to_hub and teacher_id not in (None, recipe.training.hub_model_id)
    if recipe.training_values["metric_for_best_model"] is None:
        args.metric_for_best_model = task.best_metric
    metric = task.metric_types.get(str(args.metric_for_best_model).removeprefix("eval_"))
    if metric is not None and recipe.training_values.get("greater_is_better") is None:
        args.greater_is_better = metric.higher_is_better
    return args


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
