"""Recipes: a yaml file with a `task` and the blocks `model`, `reduction`, `data` and `training`; flags override it."""

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, NoReturn, cast, get_args, get_type_hints

import yaml
from transformers import HfArgumentParser
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ..data.task import Task
from ..data.tasks import TASKS
from ..images import DataError
from ..models.families import FAMILIES
from ..reading import parse_json
from ..recipe_files import find_recipe
from ..reducers import METHODS, PlainSchedule, Schedule, parse_reduction
from ..training.arguments import DistillationTrainingArguments
from .program import program_name

STAGES = ("pretraining", "teacher", "reducer", "student")
"""The stages of a run, in order. Each has a folder of its own. Most runs leave some out."""


@dataclass
class ModelArguments:
    """The `model` block of a recipe."""

    _argument_group_name: ClassVar[str] = "model"

    backbone: str = field(default="vilt", metadata={"help": f"Model family: {' or '.join(FAMILIES)}."})
    checkpoint: str | None = field(
        default=None, metadata={"help": "Pretrained checkpoint (Hub id or folder) that the teacher starts from."}
    )
    teacher: str | None = field(
        default=None, metadata={"help": "Finetuned teacher checkpoint (Hub id or folder); skips the teacher stage."}
    )
    image_size: int | None = field(
        default=None,
        metadata={
            "help": "Side of the student's images in pixels, smaller than the teacher's. This is the baseline of a "
            "smaller resolution, with or without a reduction. Default: the teacher's."
        },
    )
    config: dict | str | None = field(
        default=None,
        metadata={"help": "Model config fields (JSON, or a JSON file) of a teacher that starts from scratch."},
    )
    image_mean: float = field(default=0.5, metadata={"help": "Pixel normalisation of a teacher from scratch."})
    image_std: float = field(default=0.5, metadata={"help": "Pixel normalisation of a teacher from scratch."})

    def __post_init__(self) -> None:
        self.config = _as_dict("model.config", self.config)
        if self.backbone not in FAMILIES:
            raise ValueError(f"model.backbone={self.backbone!r}: choose {' or '.join(map(repr, FAMILIES))}")
        if self.image_std <= 0:
            raise ValueError(f"model.image_std={self.image_std}: must be above 0")


@dataclass
class RecipeTrainingArguments(DistillationTrainingArguments):
    """The `training` block of a recipe: how the student trains, and what is different for the teacher."""

    _argument_group_name: ClassVar[str] = "training"

    output_dir: str = field(
        default="outputs/vqa", metadata={"help": "Folder for the teacher, the student and results.json."}
    )
    teacher_training: dict | str | None = field(
        default=None,
        metadata={"help": "Training arguments (JSON, or a JSON file) that are different in the teacher stage."},
    )
    reducer_training: dict | str | None = field(
        default=None,
        metadata={
            "help": "Training arguments (JSON, or a JSON file) that are different in a first stage of the student. "
            "In it only the reducers and the classifier learn, without TiP's continuity loss. Default: no such stage."
        },
    )
    pretraining: dict | str | None = field(
        default=None,
        metadata={
            "help": "Training arguments (JSON, or a JSON file) that are different in a first stage. In it a model "
            "from scratch learns to answer questions about digit scenes. It is for recipes on digit scenes. Default: "
            "no such stage."
        },
    )
    early_stopping_patience: int = field(
        default=0,
        metadata={"help": "Stop after this many evaluations without a better metric; 0: never. Needs eval_strategy."},
    )
    reduction_warmup_steps: int = field(
        default=0, metadata={"help": "Ramp the reduction ratios up over this many steps of the student."}
    )
    cache_teacher_logits: bool = field(
        default=False, metadata={"help": "Compute the teacher's logits once and keep them on disk."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Our collators read columns by name."})
    benchmark_seconds: float = field(
        default=10.0, metadata={"help": "How long to measure the throughput of teacher and student."}
    )
    save_minutes: float = field(
        default=5.0,
        metadata={
            "help": "Save a checkpoint for --resume this many minutes after the last one, in addition to those of "
            "save_strategy; 0: never. It is removed once there is a newer one."
        },
    )
    resume: bool = field(
        default=False,
        metadata={"help": "Continue an interrupted run: skip finished stages, go on in the unfinished one."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("teacher_training", "reducer_training", "pretraining"):
            values = _as_dict(f"training.{name}", getattr(self, name))
            checked = None if values is None else check_values(f"training.{name}", values, RecipeTrainingArguments)
            setattr(self, name, checked)
        if self.resume_from_checkpoint is not None:
            raise ValueError(
                "training.resume_from_checkpoint is not for recipes, which have several stages: use resume"
            )
        if self.early_stopping_patience < 0:
            raise ValueError(f"training.early_stopping_patience={self.early_stopping_patience}: must be at least 0")
        if self.early_stopping_patience and not self.load_best_model_at_end:
            raise ValueError("training.early_stopping_patience needs load_best_model_at_end and an eval_strategy")
        if self.reduction_warmup_steps < 0:
            raise ValueError(f"training.reduction_warmup_steps={self.reduction_warmup_steps}: must be at least 0")
        if self.save_minutes < 0:
            raise ValueError(f"training.save_minutes={self.save_minutes}: must be at least 0")
        if vars(self).get("enable_jit_checkpoint"):  # some versions of transformers have it
            raise ValueError(
                "training.enable_jit_checkpoint is not for recipes, since a stopped stage would count as finished; "
                "SIGTERM ends a recipe as Ctrl-C does, so leave it out"
            )
        for name in self.report_to or ():
            if name not in INTEGRATION_TO_CALLBACK:
                nearest = _nearest(name, [*INTEGRATION_TO_CALLBACK, "all", "none"])
                raise ValueError(f"training.report_to={name!r}: did you mean {nearest}?")


@dataclass(frozen=True)
class Recipe:
    """A parsed recipe: four blocks."""

    model: ModelArguments
    reduction: PlainSchedule | None
    data: Any
    training: RecipeTrainingArguments
    training_values: dict[str, Any]
    """The values that `training` was made from."""
    fitted: tuple[str, ...] = ()
    """Fields of `training` that are adapted to the number of rows, once the data are loaded."""

    @cached_property
    def schedule(self) -> Schedule | None:
        """The parsed schedule of `reduction`."""
        return parse_reduction(self.reduction)

    @property
    def has_student(self) -> bool:
        """Whether a student is trained, which has a reduction or smaller images."""
        return self.reduction is not None or self.model.image_size is not None

    def stage(self, name: str) -> RecipeTrainingArguments:
        """Return the training arguments of a stage, with the stage's own folder."""
        changes = {
            "pretraining": self.training.pretraining,
            "teacher": self.training.teacher_training,
            "reducer": self.training.reducer_training,
        }
        values = {**self.training_values, **(cast("dict | None", changes.get(name)) or {})}
        return RecipeTrainingArguments(**{**values, "output_dir": str(Path(self.training.output_dir) / name)})


def parse_recipe(task: Task, default: Path, arguments: list[str] | None = None) -> Recipe:
    """Read the command line of a recipe: `[FILE.yaml] [--flag value ...]`.

    Args:
        task: the task of the recipe.
        default: the yaml file to use when the command line names none.
        arguments: the command line without the program; default `sys.argv[1:]`.

    Raises:
        ValueError, FileNotFoundError: something is wrong; the message names the block, the key and the nearest right
        key.
    """
    named, flags = split_command(arguments)
    path = named or default
    return make_recipe(read_blocks(path, task), task, flags, path)


def split_command(arguments: list[str] | None = None) -> tuple[Path | None, list[str]]:
    """Return the recipe file that a command line names, if any, and the flags."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    named = find_recipe(Path(arguments.pop(0))) if arguments and not arguments[0].startswith("-") else None
    return named, arguments


def make_recipe(blocks: dict[str, Any], task: Task, flags: list[str], default: Path) -> Recipe:
    """Make a recipe from four blocks and the flags that override them.

    Args:
        blocks: see [`read_blocks`].
        task: the task of the recipe.
        flags: the command line without a recipe file.
        default: the yaml file that is used when the command line names none, for `--help`.

    Raises:
        ValueError: see [`parse_recipe`].
    """
    values, reduction = parse_flags(blocks, task, flags, default)
    if parse_reduction(reduction) is None:
        reduction = None
    training_values = {name: values[name] for name in _field_names(RecipeTrainingArguments)}
    recipe = Recipe(
        model=model_block(values),
        reduction=reduction,
        data=task.arguments(**{name: values[name] for name in _field_names(task.arguments)}),
        training=RecipeTrainingArguments(**training_values),
        training_values=training_values,
    )
    for name in STAGES[:-1]:
        recipe.stage(name)  # finds wrong values now
    return recipe


def model_block(values: dict[str, Any]) -> ModelArguments:
    """Return the `model` block from the values of [`parse_flags`]."""
    return ModelArguments(**{name: values[name] for name in _field_names(ModelArguments)})


def check_reporters(args: RecipeTrainingArguments) -> None:
    """Raise `ImportError` if a reporter of these arguments is not installed."""
    # Transformers does not look for the last two.
    installed = {*get_available_reporting_integrations(), "azure_ml", "flyte"}
    for name in args.report_to or ():
        if name not in installed:
            raise ImportError(
                f"training.report_to={name!r}: its package is not installed: pip install {name}, or set it to none"
            )


USER_ERRORS = (ValueError, OSError, ImportError)
"""The exceptions of the checks on files and values of the user."""


@contextmanager
def exit_on_user_error(kinds: tuple[type[Exception], ...] = USER_ERRORS) -> Iterator[None]:
    """End the program with a message, not a traceback, if a file or a value that the user gave is wrong.

    Args:
        kinds: the exceptions that mean this. During training and evaluation, only [`DataError`] does.
    """
    try:
        yield
    except kinds as error:
        # A worker of a data loader passes on an exception with its traceback. The message is at the end.
        message = str(error).rpartition("DataError: ")[2] if isinstance(error, DataError) else str(error)
        _end(f"{program_name()}: error: {message.strip()}")


def _end(message: str) -> NoReturn:
    """End the program with status 1 and a message. A launcher may print more after the message.

    Launchers of several processes show the content of an error file in their last lines. `accelerate launch` with a
    single process prints a traceback of its own at any exit status but 0, so the message mentions it.
    """
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if error_file is not None:
        Path(error_file).write_text(json.dumps({"message": message, "timestamp": int(time.time())}), encoding="utf-8")
    elif "ACCELERATE_MIXED_PRECISION" in os.environ:  # only the launcher sets it
        message += "\n(The launcher's own traceback says no more; `accelerate launch --quiet` leaves it out.)"
    sys.exit(message)


def read_blocks(path: Path, task: Task) -> dict[str, Any]:
    """Return the four blocks of a recipe file. Their keys are checked against the dataclasses.

    Each block is a dict. The block `reduction` may also be a list of dicts.

    Args:
        path: the file. A file that names no task is for any task.
        task: the task that the recipe must be for.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no recipe, or one for another task. The message names the block and the nearest right key.
    """
    classes: dict[str, type | None] = {
        "model": ModelArguments,
        "reduction": None,
        "data": task.arguments,
        "training": RecipeTrainingArguments,
    }
    blocks = read_yaml(path)
    if not isinstance(blocks, dict):
        raise ValueError(f"{path}: a recipe has a task and the blocks {', '.join(classes)}")
    named = named_task(path, blocks)
    blocks.pop("task", None)
    if named not in (None, task.name):
        raise ValueError(
            f"{path}: task: {named}: the recipe is for another task than this command, which is for {task.name}: take "
            f"the command for {named}, or another recipe"
        )
    for name, block in blocks.items():
        if name not in classes:
            raise ValueError(f"{path}: unknown block '{name}': did you mean {_nearest(name, ['task', *classes])}?")
        parts = block if name == "reduction" and isinstance(block, list) else [block]
        if block is not None and not all(isinstance(part, dict) for part in parts):
            raise ValueError(f"{path}: the block '{name}' must hold keys and values, got {block!r}")
        block_class = classes[name]
        if block_class is not None:
            blocks[name] = check_values(name, block, block_class)
    return {name: blocks.get(name) or {} for name in classes}


def recipe_task(path: Path) -> Task:
    """Return the task that a recipe file names. Old files name it in a comment, `recipes/train_<task>.py`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it names no task, or an unknown one.
    """
    blocks = read_yaml(path)
    in_comment = re.search(r"recipes/train_(\w+)\.py", path.read_text(encoding="utf-8"))
    name = named_task(path, blocks) if isinstance(blocks, dict) else None
    if name is None and in_comment:
        name = in_comment[1]
    if name is None or name not in TASKS:
        raise ValueError(f"{path}: task: {name}: the recipe has to name its task, one of {', '.join(TASKS)}")
    return TASKS[name]


def named_task(path: Path, blocks: dict[str, Any]) -> str | None:
    """Return the task that a recipe names, as it is written; None if the recipe names none.

    Raises:
        ValueError: the value of `task` is no name.
    """
    name = blocks.get("task")
    if name is not None and not isinstance(name, str):
        raise ValueError(f"{path}: task: {name}: must be a name, one of {', '.join(TASKS)}")
    return name


def read_yaml(path: Path) -> Any:
    """Return the content of a yaml file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not valid yaml.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such recipe file")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid yaml: {error}") from error


def check_values(block: str, values: dict[str, Any] | None, dataclass_type: type) -> dict[str, Any]:
    """Return the values of a block, checked against the fields of its dataclass.

    Strings in fields for numbers become numbers, since yaml reads `1e-3` as a string.

    Raises:
        ValueError: a key is not a field, or a value does not have the type of its field. Only plain types are checked.
    """
    field_names = _field_names(dataclass_type)
    for name in values or {}:
        if name not in field_names:
            raise ValueError(
                f"unknown key '{name}' in the block '{block}': did you mean {_nearest(name, field_names)}?"
            )
    hints, checked = get_type_hints(dataclass_type), dict(values or {})
    for name, value in checked.items():
        kinds = set(get_args(hints[name]) or (hints[name],))
        if not kinds <= {int, float, bool, str, NoneType} or type(value) in kinds:
            continue
        if float in kinds and type(value) in (int, str):
            with suppress(ValueError):
                checked[name] = float(value)
        if type(checked[name]) not in kinds:
            names = " or ".join(sorted("null" if kind is NoneType else kind.__name__ for kind in kinds))
            raise ValueError(f"{block}.{name}={value!r}: must be {names}")
    return checked


def parse_flags(
    blocks: dict[str, Any], task: Task, arguments: list[str], default: Path
) -> tuple[dict[str, Any], PlainSchedule | None]:
    """Return the values of the dataclass fields, and the reduction. They come from the flags, else from the blocks."""
    parser = HfArgumentParser(
        [ModelArguments, task.arguments, RecipeTrainingArguments],
        allow_abbrev=False,
        prog=program_name(),
        usage="%(prog)s [FILE.yaml] [--flag value ...]",
        description=f"Flags override the values of the recipe file. Without one, {default.name} is used, which is "
        "only for digit scenes. For your own data, give a file, or a model (--checkpoint or --teacher): the recipe is "
        "then made from it.",
    )
    group = parser.add_argument_group("reduction")
    group.add_argument("--method", choices=["none", *METHODS], help="Token reduction method.")
    ratio_names = sorted({name for reducer in METHODS.values() for name in reducer.config_class.ratios})
    group.add_argument("--layers", nargs="+", type=int, help="Layers that reduce.")
    for name in ratio_names:
        group.add_argument(f"--{name}", nargs="+", type=float, help="In [0, 1): one for all layers, or one per layer.")
    for name in ("model", "data", "training"):
        parser.set_defaults(**blocks[name])
    namespace, unknown = parser.parse_known_args(arguments)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        raise ValueError(f"unknown argument '{unknown[0]}': did you mean {_nearest(unknown[0], flags)}?")
    values = vars(namespace)
    given = {name: values[name] for name in ("method", "layers") if values[name] is not None}
    for name in ratio_names:
        if values[name] is not None:
            given[name] = values[name] if len(values[name]) > 1 else values[name][0]
    return values, with_flags(blocks["reduction"], given)


def with_flags(reduction: PlainSchedule, flags: dict[str, Any]) -> PlainSchedule | None:
    """Return the `reduction` block with the fields that flags set in its part at site `"layers"`."""
    if flags.get("method") == "none":
        return {"method": "none", **{name: value for name, value in flags.items() if name != "method"}}
    if isinstance(reduction, dict):
        return {**reduction, **flags} or None
    is_changed = [part.get("site", "layers") == "layers" for part in reduction]
    if flags and not any(is_changed):
        raise ValueError(f"--{next(iter(flags))}: no part of the block 'reduction' has the site 'layers'")
    return [{**part, **flags} if change else part for part, change in zip(reduction, is_changed, strict=True)]


def _field_names(dataclass_type: type) -> list[str]:
    return [item.name for item in fields(dataclass_type) if item.init]


def _nearest(name: str, names: list[str]) -> str:
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    return near[0] if near else f"one of {', '.join(names[:12])}"


def _as_dict(name: str, value: dict | str | None) -> dict | None:
    """Return the value of a dict field, which a flag gives as JSON or as a JSON file."""
    if isinstance(value, str):
        value = parse_json(value, name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name}={value!r}: must be a JSON object")
    return value
