"""Model cards, for the models that a run has trained and for the models that recipe files define."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..data.arguments import DataArguments
from ..data.collator import Collator
from ..data.scenes.clutter import Clutter
from ..data.task import Task
from ..data.vqa import VqaDataArguments
from ..explain.report import explain_inputs
from ..hub.card import CURVE_NAME, PICTURE_NAME, PuMerCard
from ..hub.curve import draw_curve
from ..hub.sources import is_hub_id, may_be_hub_id, public_name
from ..models.encoders.base import PuMerPreTrainedModel
from ..release import LICENSE
from ..results import Report
from .parser import parse_recipe, recipe_task
from .recipe import Recipe
from .record import recorded, stage_facts

DATASETS = {
    "dataset_flickr30k": "Flickr30k",
    "digit_scenes": "digit scenes",
    "easy-vqa": "easy-VQA",
    "nlvr2": "NLVR2",
    "snli_ve": "SNLI-VE",
    "vqav2": "VQA v2",
}
"""The names of data sets, by the name of their folder or file."""
RECIPE_NAME = "pumer.yaml"


def recipe_card(
    task: Task, recipe: Recipe, role: str, report: Report, *, name: str, recipe_file: str | None = None
) -> PuMerCard:
    """Return the card of the teacher or the student of a recipe.

    Args:
        task: the task of the recipe.
        recipe: the recipe, with the flags of the run.
        role: `"teacher"` or `"student"`.
        report: the results of the run; an empty report if there was no run.
        name: the heading of the card.
        recipe_file: path of the recipe file that the card names.
    """
    args = recipe.stage(role)
    source = recipe.model.teacher or recipe.model.checkpoint
    return PuMerCard(
        name=name,
        backbone=recipe.model.backbone,
        task=None if recipe.model.is_decoder else task.name,
        role=role,
        repo_id=args.hub_model_id if args.push_to_hub and recipe.seed_offset == 0 else None,
        base_model=source,
        teacher=recipe.model.teacher if role == "student" else None,
        dataset=dataset_facts(recipe.data),
        reduction=recipe.schedule.to_dict() if role == "student" and recipe.schedule else None,
        training=stage_facts(args),
        recipe=recipe_file,
        license=None if is_hub_id(source) or recipe.data.is_own else LICENSE,
        report=report,
    )


def dataset_facts(args: DataArguments) -> dict[str, Any]:
    """Return the facts about the data in the `data` block, with the split that the results are for."""
    facts: dict[str, Any]
    if args.dataset is not None:
        name = public_name(args.dataset)
        facts = {"name": DATASETS.get(name, name), "id": args.dataset if may_be_hub_id(args.dataset) else None}
        facts |= {"split": args.test_split or args.validation_split}
        facts |= {"config": args.dataset_config, "revision": args.dataset_revision}
    elif args.train_file is not None:
        path = Path(args.train_file[0])
        name = path.stem if path.parent.name in ("", "data") else path.parent.name
        facts = {"name": DATASETS.get(name, name), "split": "test" if args.test_file else "validation"}
    else:
        facts = {"name": DATASETS["digit_scenes"], "split": "test", "scenes": args.train_scenes}
        facts |= {"grid": args.grid_size, "digits": args.num_digits, "seed": args.scene_seed}
        if isinstance(args, VqaDataArguments) and isinstance(args.scene_setting, Clutter):
            facts |= {"setting": args.setting, **asdict(args.scene_setting)}
    return {name: value for name, value in facts.items() if value not in (None, "")}


def draw_example(model: PuMerPreTrainedModel, collator: Collator, row: dict[str, Any], folder: str | Path) -> None:
    """Save a picture of what the model keeps of a row, for the card in the model's folder."""
    collator = collator.for_benchmark()
    text = collator.texts(row)
    assert isinstance(text, str), "for_benchmark gives one text per row"
    inputs = {name: value.to(model.device) for name, value in collator([row]).items() if name != "labels"}
    picture, _ = explain_inputs(model, collator.encoder.processor, inputs, text)
    picture.save(Path(folder) / PICTURE_NAME)


def write_run_cards(task: Task, recipe: Recipe, report: Report, folders: Mapping[str, str]) -> None:
    """Write a card into the folder of each model that a run has trained, but not of a teacher from elsewhere.

    `folders` are those of [`train_models`], by the name of the stage.
    """
    run = Path(recipe.training.output_dir).name
    students = {one.stage_folder("student").name: one for one in recipe.students()}
    for name, folder in folders.items():
        if folder == recipe.model.teacher:
            continue
        own, heading = students.get(name, recipe), run if name == "student" else f"{run}-{name}"
        card = recipe_card(task, own, "student" if name in students else name, report, name=heading)
        if report.seeds and name in students:
            card.seed = own.seed
        # A finished stage keeps the arguments that it ran with.
        card.training = recorded(folder, "training") or card.training
        if card.elastic is not None:
            teacher = report.evaluations["teacher"]
            draw_curve(card.elastic, teacher.main, teacher.main_name).save(Path(folder) / CURVE_NAME)
        card.save(folder)


def recipe_file_card(path: Path, results: Path | None = None, name: str | None = None) -> PuMerCard:
    """Return the card of the student that a recipe file defines.

    Args:
        path: the recipe file, which names its task.
        results: `results.json` of a run of the recipe, whose flags are used too. Without it, the card says that the
            model has not been trained.
        name: the heading of the card; default `<folder>_<backbone>`.

    Raises:
        ValueError, FileNotFoundError: a file is missing or wrong.
    """
    task = recipe_task(path)
    report = Report() if results is None else Report.load(results)
    command = report.environment.command
    recipe = parse_recipe(task, path, [str(path), *(command.flags if command else ())])
    if not recipe.has_student:
        raise ValueError(f"{path}: it has no reduction, so it trains no student")
    name = name or f"{path.parent.name}_{recipe.model.backbone}"
    card = recipe_card(task, recipe, "student", report, name=name, recipe_file=path.as_posix())
    card.launch = recipe_launch(path)
    return card


def recipe_launch(path: Path) -> str | None:
    """Return the command with its launcher in the comment of a recipe file; None if there is none."""
    found = re.search(r"^# (accelerate launch .+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else None


def write_recipe_cards(folder: Path, recipes: Path, results: Path | None = None) -> list[Path]:
    """Write the card of each `pumer.yaml` below a folder, into a folder `<task>_<backbone>`.

    Args:
        folder: the folder to write into.
        recipes: the folder with `<backbone>/<task>/pumer.yaml`.
        results: the folder with `<task>_<backbone>.json` of the recipes that have been trained.
    """
    files = sorted(recipes.glob(f"*/*/{RECIPE_NAME}"))
    if not files:
        raise FileNotFoundError(f"{recipes}: there is no <backbone>/<task>/{RECIPE_NAME} in it")
    written = []
    for path in files:
        name = f"{path.parent.name}_{path.parent.parent.name}"
        measured = None if results is None else results / f"{name}.json"
        card = recipe_file_card(path, measured if measured and measured.is_file() else None, name)
        card.save(folder / name)
        written.append(folder / name)
    return written
