"""The runner of recipes. It trains teacher and student, and reports what the reduction costs and gains."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from accelerate import PartialState
from transformers import ProcessorMixin, set_seed
from transformers.utils import logging

from ..data.collator import Collator
from ..data.downloads import check_downloaded
from ..data.task import Task, TaskData
from ..data.tasks import TASKS
from ..folders import check_writable
from ..hub.push import push_folder
from ..images import DataError
from ..models.decoders.modeling import ReducedDecoder
from ..models.encoders.base import PuMerPreTrainedModel
from ..reducers import PlainSchedule
from ..results import ROLES
from ..training.parameters import begin_reducer_stage
from ..training.placement import whole_models
from ..training.trainer import BASE, check_devices
from .build import build_teacher, check_sources, load_model, teacher_labels
from .checks import check_kind, check_push, check_recipe, check_seeds, check_streaming, with_found_ratios
from .decoders import decoder_task, training_rows
from .finetuning import fit_to_rows, training_recipe
from .interrupt import ending_in_one_line
from .pretraining import is_pretrained, pretrain
from .program import exit_on_user_error, leaving_group
from .recipe import STAGES, ModelArguments, Recipe, RecipeTrainingArguments, check_reporters
from .record import begin_stage, made_from, weights_of, without_student
from .run_plan import run_plan, stage_lengths
from .run_results import report_results
from .scorer_stage import freeze_scorer, train_recipe_scorer
from .stages import check_new_run, train_stage
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
        check_seeds(recipe)
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
        if recipe.training.process_index == 0:
            push_with_results(task, recipe, folders)


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
    """Train the models of the recipe. Return the folders of `teacher` and students, by the name of their stage."""
    record = made_from(recipe, data, collator.processor)
    train = partial(
        train_stage,
        validation=data.validation,
        compute_metrics=task.metrics(data.validation, data.labels),
        lengths=stage_lengths(recipe, None if recipe.data.streaming else len(data.train)),
        lora=cast("dict | None", recipe.model.lora),
    )
    folders = {"teacher": recipe.model.teacher or str(recipe.stage_folder("teacher"))}
    if recipe.model.teacher is None:
        own = partial(train, model=teacher, eval_collator=eval_collator, processor=collator.processor)
        train_teacher(task, recipe, data, record, collator, own)
    if not recipe.has_student:
        return folders
    record["teacher"] = weights_of(folders["teacher"])
    image_size = recipe.model.image_size
    train = partial(
        train,
        train=data.train,
        collator=at_size(collator, image_size),
        eval_collator=at_size(eval_collator, image_size),
        processor=at_size(collator, image_size).processor,
        teacher_collator=None if image_size is None else collator,
    )
    unreduced = cache(partial(unreduced_teacher, task, recipe, folders["teacher"]))  # that of all students
    for one in recipe.students():
        reduction = one.reduction
        if one.untrained_scorer is not None:
            with exit_on_user_error():
                reduction = train_recipe_scorer(task, one, data, folders["teacher"], eval_collator.for_benchmark())
        folder = train_student(task, one, reduction, record, folders["teacher"], unreduced, train)
        folders[Path(folder).name] = folder
    return folders


def train_teacher(
    task: Task,
    recipe: Recipe,
    data: TaskData,
    record: Mapping[str, Any],
    collator: Any,
    train: Callable[..., None],
) -> None:
    """Train the teacher.

    Args:
        task: the task of the recipe.
        recipe: the recipe.
        data: the data.
        record: what the student is made from ([`made_from`]).
        collator: the collator of the training rows.
        train: [`train_stage`] with the model and the validation data.
    """
    args = stage_arguments(task, recipe, "teacher")
    with exit_on_user_error():
        begin_stage(args, without_student(record))
    rows, batches = data.train, collator
    if recipe.model.is_decoder:
        rows, batches = training_rows(data, collator, args.questions_per_image)
    train(args, train=rows, collator=batches)


def train_student(
    task: Task,
    recipe: Recipe,
    reduction: PlainSchedule | None,
    record: Mapping[str, Any],
    teacher: str,
    unreduced: Callable[[bool], Any],
    train: Callable[..., None],
) -> str:
    """Train a student and return its folder.

    Args:
        task: the task of the recipe.
        recipe: the recipe of this student ([`Recipe.students`]).
        reduction: its reduction, which names its trained scorer if it has one.
        record: what it is made from ([`made_from`]).
        teacher: the folder or Hub id of the teacher, with whose weights it begins.
        unreduced: returns the teacher for the training ([`unreduced_teacher`]).
        train: [`train_stage`] with the data.
    """
    # The arguments of a stage are made when it begins, since they reset the state of accelerate, which takes a plugin
    # of DeepSpeed only once. They are made before the model is loaded, since ZeRO-3 shards it.
    args = stage_arguments(task, recipe, "student" if recipe.training.reducer_training is None else "reducer")
    with exit_on_user_error():
        begin_stage(args, record)
    set_seed(args.seed)  # reducers that learn begin with random weights
    student = load_model(teacher, reduction, task)
    reduction = student.config.reduction  # without the sources of scorers, which are loaded now
    if recipe.model.image_size is not None:
        student.resize_images(recipe.model.image_size)
    train = partial(train, teacher=unreduced(args.cache_teacher_logits))
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
    return args.output_dir


def unreduced_teacher(task: Task, recipe: Recipe, folder: str, cached: bool) -> Any:
    """Return the frozen teacher of the students; [`BASE`] if low-rank adapters learn on top of it.

    Args:
        task: the task of the recipe.
        recipe: the recipe.
        folder: the folder or Hub id of the teacher.
        cached: whether its logits are computed in advance, for which it is always loaded.
    """
    if recipe.model.lora is not None and not cached:
        return BASE
    with nullcontext() if recipe.training.shard_teacher else whole_models(recipe.training):
        return load_model(folder, None, task)


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
        if name not in ROLES:
            continue  # a student of another seed
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
    to a repository. Of several students this is the first.
    """
    args = recipe.stage(name)
    if args.hub_model_id is None:
        args.hub_model_id = Path(recipe.training.output_dir).name
    if name == "teacher" and recipe.has_student:
        # The repository is for the student, unless the teacher has its own.
        teacher_id = (recipe.training.teacher_training or {}).get("hub_model_id")  # type: ignore[union-attr]
        args.push_to_hub = args.push_to_hub and teacher_id not in (None, recipe.training.hub_model_id)
    args.push_to_hub = args.push_to_hub and recipe.seed_offset == 0
    if recipe.training_values["metric_for_best_model"] is None:
        args.metric_for_best_model = task.best_metric
    metric = task.metric_types.get(str(args.metric_for_best_model).removeprefix("eval_"))
    if metric is not None and recipe.training_values.get("greater_is_better") is None:
        args.greater_is_better = metric.higher_is_better
    return args
