"""The recipe of a run on the user's own data if the command line names no recipe file.

It is made from the model and the data. The default recipes of the scripts are for digit scenes. They suit neither the
pictures and texts of other data nor the number of rows.
"""

import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, IterableDataset

from ..data.arguments import OWN_DATA, SCENES
from ..data.downloads import check_downloaded
from ..data.task import Task
from ..encoding import TEXT_LENGTH, EncodingRecord, checkpoint_record, saved_record
from ..models.families import DECODERS, FAMILIES
from ..models.loading import naming, schedule_of
from ..recipe_files import recipe_folder, recipe_name
from ..reducers import METHODS
from .build import trained_backbone
from .parser import make_recipe, model_block, parse_flags, parse_recipe, read_blocks, split_command
from .program import program_words
from .recipe import ModelArguments, Recipe, RecipeTrainingArguments

LLAVA = "llava"
FITTED = ("per_device_train_batch_size", "early_stopping_patience")
"""The fields that depend on the number of rows, unless a flag sets them."""
MIN_STEPS, MIN_BATCH = 8, 4
"""With few rows, batches are smaller, so that an epoch has at least `MIN_STEPS`. No batch is below `MIN_BATCH`."""


def training_recipe(task: Task, arguments: list[str] | None = None) -> Recipe:
    """Return the recipe of a command line, `[FILE.yaml] [--flag value ...]`.

    A recipe file that is named is used as it is, but a file for digit scenes is an error with own data. Without a
    file, digit scenes have a default recipe ([`default_recipe`]), and own data need a model. Their recipe is then the
    paper's recipe for the model's family and the task, with these changes; flags override it:

    - The image size is that of the model's processor. Texts and images are made as the processor's record says
      ([`EncodingRecord`]). A pretrained model without a record gets squares, as in the paper.
    - If the model has another depth than the paper's model, the layers that reduce are at the same relative depth
      ([`schedule_of`]).
    - Images are not augmented, and all answers become labels.
    - Without a GPU, no separate processes load the data.
    - The batch size depends on the number of rows ([`fit_to_rows`]).

    Args:
        task: the task to train for.
        arguments: the command line without the program; default `sys.argv[1:]`.

    Raises:
        ValueError, FileNotFoundError: see [`parse_recipe`]; or own data are given with neither a file nor a model, or
            with a file for digit scenes.
    """
    default = default_recipe(task)
    named, flags = split_command(arguments)
    given = given_flags(flags)
    own = [name for name in OWN_DATA if name in given]
    start = read_blocks(named or default, task)
    if not own or (named is not None and not is_for_scenes(start["data"])):
        return parse_recipe(task, default, arguments)
    values, _ = parse_flags(start, task, flags, default)
    model = model_block(values)
    source = model.teacher or model.checkpoint
    if named is not None:
        reason = f"data.{own[0]} is given, but {shown(named)} is for digit scenes only"
        raise other_command(reason, task, model, flags)
    if source is None:
        reason = (
            f"data.{own[0]} is given, but no model to start from (model.checkpoint or model.teacher) and no recipe "
            "file. The default recipe is for digit scenes only"
        )
        raise other_command(reason, task, model, flags)
    path, blocks = finetuning_blocks(task, model, given)
    if values["method"] not in (None, blocks["reduction"]["method"]) and model.backbone not in DECODERS:
        sites = METHODS[values["method"]].config_class.sites if values["method"] != "none" else ("layers",)
        # The ratios are for the paper's method.
        where = {"layers": blocks["reduction"]["layers"]} if "layers" in sites else {"site": sites[0]}
        blocks["reduction"] = where
    recipe = make_recipe(blocks, task, flags, default)
    if recipe.training.process_index == 0:
        print(f"No recipe file is named: the recipe is made from {source} and from {shown(path)}; flags override it.")
    return replace(recipe, fitted=tuple(name for name in FITTED if name not in given))


def finetuning_blocks(task: Task, model: ModelArguments, given: Collection[str]) -> tuple[Path, dict[str, Any]]:
    """Return the four blocks of a recipe for own data, and the file of the paper that its training comes from.

    Args:
        task: the task to train for.
        model: the `model` block from the flags, with a teacher or a checkpoint.
        given: the names of all flags.
    """
    role = "checkpoint" if model.teacher is None else "teacher"
    source = str(model.teacher or model.checkpoint)
    check_downloaded(task.arguments(), source)
    backbone, _ = trained_backbone(f"model.{role}", source, task if role == "teacher" else None)
    path = paper_recipe(backbone, task)
    if backbone in DECODERS:
        return path, decoder_blocks(backbone, path, task, given)
    with naming(f"model.{role}={source!r}", source, "model"):
        config = FAMILIES[backbone].config_class.from_pretrained(source)
    longest = config.max_text_length
    if role == "teacher":  # its logits need the inputs that it was trained with
        record = checkpoint_record(source, longest)
    else:
        record = saved_record(source) or EncodingRecord(min(TEXT_LENGTH, longest))
    return path, {
        "model": {"backbone": backbone},
        "reduction": schedule_of(config, task.name),
        "data": {"max_text_length": record.max_text_length, "keep_aspect_ratio": record.keep_aspect_ratio},
        "training": training_block(path, task, given),
    }


def decoder_blocks(backbone: str, path: Path, task: Task, given: Collection[str]) -> dict[str, Any]:
    """Return the blocks of a recipe for own data and a decoder: those of a file for the public data.

    Args:
        backbone: the family.
        path: the file.
        task: the task.
        given: the names of all flags.
    """
    blocks = read_blocks(path, task)
    model = {"backbone": backbone, "lora": blocks["model"]["lora"]}
    training = training_block(path, task, given)
    return {"model": model, "reduction": blocks["reduction"], "data": {}, "training": training}


def given_flags(flags: Sequence[str]) -> set[str]:
    """Return the names of flags: `{"train_file"}` for `["--train-file", "a.jsonl"]` and `["--train_file=a.jsonl"]`."""
    words = (word.partition("=")[0] for word in flags if word.startswith("--"))
    return {word.removeprefix("--").replace("-", "_") for word in words}


def default_recipe(task: Task, backbone: str = "vilt") -> Path:
    """Return the file with the recipe of a task on digit scenes.

    Args:
        task: the task.
        backbone: a family that has such a file.
    """
    return recipe_folder() / backbone / task.scenes_folder / "pumer.yaml"


def paper_recipe(backbone: str, task: Task) -> Path:
    """Return the file with the recipe for a family and a task, on the data of the paper.

    A decoder whose family has no file of its own has that of LLaVA.
    """
    path = recipe_folder() / backbone / task.paper_folder / "pumer.yaml"
    other = recipe_folder() / LLAVA / task.paper_folder / "pumer.yaml"
    return other if backbone in DECODERS and not path.is_file() else path


def training_block(path: Path, task: Task, given: Collection[str]) -> dict[str, Any]:
    """Return the `training` block of one of the paper's files, changed for own data.

    Args:
        path: the file.
        task: the task of the file.
        given: the names of the flags on the command line. They also override the block's values for the teacher.
    """
    block = read_blocks(path, task)["training"]
    block |= {"output_dir": f"outputs/own-data-{task.name}"}
    changes = block.get("teacher_training") or {}
    block |= {"teacher_training": {name: value for name, value in changes.items() if name not in given}}
    if not torch.cuda.is_available():
        block |= {"dataloader_num_workers": 0}
    return block


def fit_to_rows(recipe: Recipe, train: Dataset | IterableDataset) -> Recipe:
    """Return the recipe with the fields that depend on the number of training rows ([`training_recipe`]).

    With few rows, batches are smaller, so that an epoch has several steps. No stage stops early then, since the first
    epochs say little. The rows of a stream are not counted.
    """
    if not recipe.fitted or not isinstance(train, Dataset):
        return recipe
    args = recipe.training
    most = len(train) // (MIN_STEPS * args.world_size * args.gradient_accumulation_steps)
    if most >= args.per_device_train_batch_size:
        return recipe
    power = 1 << max(most.bit_length() - 1, 0)  # the highest power of two up to `most`
    fitting = {"per_device_train_batch_size": max(power, MIN_BATCH), "early_stopping_patience": 0}
    values = {**recipe.training_values, **{name: fitting[name] for name in recipe.fitted}}
    return replace(recipe, training=RecipeTrainingArguments(**values), training_values=values)


def is_for_scenes(data: Collection[str]) -> bool:
    """Whether a recipe file is for digit scenes: its `data` block has fields of scenes, and no fields of own data."""
    return any(name in data for name in SCENES) and not any(name in data for name in OWN_DATA)


def other_command(reason: str, task: Task, model: ModelArguments, flags: Sequence[str]) -> ValueError:
    """Return the error of own data with a recipe for digit scenes. It shows the commands to use instead.

    If there is a model to start from, it shows one command, else two.

    Args:
        reason: what is wrong.
        task: the task to train for.
        model: the `model` block.
        flags: the flags of the user, which the commands keep.
    """
    command = launch_words()
    if model.teacher or model.checkpoint:
        return ValueError(
            f"{reason}, so leave that file out; the recipe is then made from the model:\n"
            f"  {shlex.join([*command, *flags])}"
        )
    checkpoint = read_blocks(paper_recipe(model.backbone, task), task)["model"]["checkpoint"]
    finetuning = f"to finetune a pretrained model: {shlex.join([*command, '--checkpoint', checkpoint, *flags])}"
    scratch = recipe_folder() / model.backbone / "own_data" / "scratch.yaml"
    if not scratch.is_file():
        return ValueError(f"{reason}; {finetuning}")
    return ValueError(
        f"{reason}, so choose one of two commands:\n"
        f"  {finetuning}\n"
        f"  to train a small model from scratch: {shlex.join([*command, shown(scratch), *flags])}"
    )


def launch_words() -> list[str]:
    """Return the words that start this program, without its arguments, as one would type them."""
    first, *rest = program_words()
    return [first, *rest] if rest else ["accelerate", "launch", shown(Path(first))]


def shown(path: Path) -> str:
    """Return a path as one would type it.

    This is the name of a recipe file of this package, the relative path of a file in the working directory, or the
    whole path of any other file.
    """
    path = path.absolute()
    relative = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return recipe_name(path) or str(relative)
