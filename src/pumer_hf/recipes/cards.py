"""Model cards of recipes: of the models that a run has trained, and of those that the recipe files define."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.arguments import DataArguments
from ..data.collator import Collator
from ..data.task import Task
from ..explain.report import explain_inputs
from ..hub.card import PICTURE_NAME, PuMerCard
from ..hub.sources import command_words, is_hub_id, may_be_hub_id, public_name
from ..hub.trainer import training_facts
from ..models.encoders.base import PuMerPreTrainedModel
from ..reading import read_object
from ..release import LICENSE
from .recipe import Recipe, parse_recipe, recipe_task
from .record import recorded

DATASETS = {
    "dataset_flickr30k": "Flickr30k",
    "digit_scenes": "digit scenes",
    "easy-vqa": "easy-VQA",
    "nlvr2": "NLVR2",
    "snli_ve": "SNLI-VE",
    "vqav2": "VQA v2",
}
"""What people call the data in a folder or a file of this name."""
RECIPE_NAME = "pumer.yaml"


def recipe_card(
    task: Task, recipe: Recipe, role: str, report: Mapping[str, Any], *, name: str, recipe_file: str | None = None
) -> PuMerCard:
    """The card of the teacher or the student of a recipe.

    Args:
        task: of the recipe.
        recipe: with the flags of the run.
        role: `"teacher"` or `"student"`.
        report: what the run wrote into its `results.json`; `{}` if there was none.
        name: heads the card.
        recipe_file: path of the file, to be named in the card.
    """
    args = recipe.stage(role)
    source = recipe.model.teacher or recipe.model.checkpoint
    return PuMerCard(
        name=name,
        backbone=recipe.model.backbone,
        task=task.name,
        role=role,
        repo_id=args.hub_model_id if args.push_to_hub else None,
        base_model=source,
        teacher=recipe.model.teacher if role == "student" else None,
        dataset=dataset_facts(recipe.data),
        reduction=recipe.schedule.to_dict() if role == "student" and recipe.schedule else None,
        training=training_facts(args),
        recipe=recipe_file,
        unit="%",
        license=None if is_hub_id(source) or recipe.data.is_own else LICENSE,
        report=dict(report),
    )


def dataset_facts(args: DataArguments) -> dict[str, Any]:
    """What the `data` block says about the data, and which split the results are of."""
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
    return {name: value for name, value in facts.items() if value not in (None, "")}


def draw_example(model: PuMerPreTrainedModel, collator: Collator, row: dict[str, Any], folder: str | Path) -> None:
    """Leave a picture of what the model keeps of a row, for the card of its folder."""
    collator = collator.for_benchmark()
    text = collator.texts(row)
    assert isinstance(text, str), "for_benchmark gives one text per row"
    inputs = {name: value.to(model.device) for name, value in collator([row]).items() if name != "labels"}
    picture, _ = explain_inputs(model, collator.encoder.processor, inputs, text)
    picture.save(Path(folder) / PICTURE_NAME)


def write_run_cards(task: Task, recipe: Recipe, report: Mapping[str, Any], folders: Mapping[str, str]) -> None:
    """Leave a card in the folder of each model that a run has trained, not of a teacher that was there before."""
    run = Path(recipe.training.output_dir).name
    for role, folder in folders.items():
        if folder == recipe.model.teacher:
            continue
        card = recipe_card(task, recipe, role, report, name=run if role == "student" else f"{run}-{role}")
        card.training = recorded(folder, "training") or card.training  # of a finished stage, that of then
        card.save(folder)


def recipe_file_card(path: Path, results: Path | None = None, name: str | None = None) -> PuMerCard:
    """The card of the student that a recipe file defines.

    Args:
        path: the recipe, which names its task.
        results: `results.json` of its run; the flags of that run count. Without one, the card says that the model has
            not been trained.
        name: heads the card; default `<folder>_<backbone>`.

    Raises:
        ValueError, FileNotFoundError: a file is missing or wrong.
    """
    task = recipe_task(path)
    report = {} if results is None else read_object(results)
    recipe = parse_recipe(task, path, [str(path), *command_flags(report.get("command", ""))])
    if not recipe.has_student:
        raise ValueError(f"{path}: it has no reduction, so it trains no student")
    name = name or f"{path.parent.name}_{recipe.model.backbone}"
    card = recipe_card(task, recipe, "student", report, name=name, recipe_file=path.as_posix())
    card.launch = recipe_launch(path)
    return card


def recipe_launch(path: Path) -> str | None:
    """The command in the comment of a recipe file, with its launcher; None if it has none."""
    found = re.search(r"^# (accelerate launch .+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else None


def command_flags(command: str) -> list[str]:
    """The flags of a recipe's command line, as results hold it."""
    words = command_words(command)
    return words[next((place for place, word in enumerate(words) if word.startswith("--")), len(words)) :]


def write_recipe_cards(folder: Path, recipes: Path, results: Path | None = None) -> list[Path]:
    """Write the cards of all `pumer.yaml` below a folder, each into a folder `<task>_<backbone>`.

    Args:
        folder: where to write.
        recipes: with `<backbone>/<task>/pumer.yaml`.
        results: with `<task>_<backbone>.json` of those that have been trained.
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
