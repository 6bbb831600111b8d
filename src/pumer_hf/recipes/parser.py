"""Recipe files and the flags that override them, read and checked. `recipe.py` has what they hold."""

import re
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ..data.task import Task
from ..data.tasks import TASKS
from ..recipe_files import find_recipe
from ..reducers import METHODS, PlainSchedule, parse_reduction
from ..reducers.keeping import KEPT
from .program import program_name
from .recipe import STAGES, ModelArguments, Recipe, RecipeTrainingArguments, check_values, field_names, nearest_name


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
    training_values = {name: values[name] for name in field_names(RecipeTrainingArguments)}
    recipe = Recipe(
        model=model_block(values),
        reduction=reduction,
        data=task.arguments(**{name: values[name] for name in field_names(task.arguments)}),
        training=RecipeTrainingArguments(**training_values),
        training_values=training_values,
    )
    for name in STAGES[:-1]:
        recipe.stage(name)  # finds wrong values now
    recipe.scorer_arguments()
    return recipe


def model_block(values: dict[str, Any]) -> ModelArguments:
    """Return the `model` block from the values of [`parse_flags`]."""
    return ModelArguments(**{name: values[name] for name in field_names(ModelArguments)})


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
            raise ValueError(f"{path}: unknown block '{name}': did you mean {nearest_name(name, ['task', *classes])}?")
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


AMOUNTS = {*KEPT, "num_keep"}
"""The fields that say how much a part keeps. It has one of them."""


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
        text = "In (0, 1]." if name in KEPT else "In [0, 1): one for all layers, or one per layer."
        group.add_argument(f"--{name}", nargs="+", type=float, help=text)
    group.add_argument(
        "--flops", type=float, help="In (0, 1): scale the schedule to this part of the unreduced multiply-adds."
    )
    for name in ("model", "data", "training"):
        parser.set_defaults(**blocks[name])
    values = flag_values(parser, arguments)
    given = {name: values[name] for name in ("method", "layers", "flops") if values[name] is not None}
    for name in ratio_names:
        if values[name] is not None:
            given[name] = values[name] if len(values[name]) > 1 else values[name][0]
    return values, with_flags(blocks["reduction"], given)


def flag_values(parser: ArgumentParser, arguments: list[str] | None) -> dict[str, Any]:
    """Return the values of all flags by name. An unknown one is a `ValueError` that names the nearest right one."""
    namespace, unknown = parser.parse_known_args(arguments)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        raise ValueError(f"unknown argument '{unknown[0]}': did you mean {nearest_name(unknown[0], flags)}?")
    return vars(namespace)


def with_flags(reduction: PlainSchedule, flags: dict[str, Any]) -> PlainSchedule | None:
    """Return the `reduction` block with the fields that flags set in its part at site `"layers"`."""
    if flags.get("method") == "none":
        return {"method": "none", **{name: value for name, value in flags.items() if name != "method"}}
    if isinstance(reduction, dict):
        kept = {} if AMOUNTS.isdisjoint(flags) else dict.fromkeys(AMOUNTS)  # one amount takes the place of another
        return {**{name: value for name, value in reduction.items() if name not in kept}, **flags} or None
    is_changed = [part.get("site", "layers") == "layers" for part in reduction]
    if flags and not any(is_changed):
        raise ValueError(f"--{next(iter(flags))}: no part of the block 'reduction' has the site 'layers'")
    return [{**part, **flags} if change else part for part, change in zip(reduction, is_changed, strict=True)]
