"""Every recipe file: it names itself, builds its model at full size, and trains a step with a tiny model."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny import meter_fields, vilt_fields
from transformers import set_seed

from pumer_hf.data.nlvr2 import NLVR2
from pumer_hf.data.retrieval import RETRIEVAL
from pumer_hf.data.snli_ve import SNLI_VE
from pumer_hf.data.vqa import VQA
from pumer_hf.models.families import DECODERS, FAMILIES
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.recipes.recipe import ModelArguments
from pumer_hf.recipes.runner import run_recipe
from pumer_hf.reducers import METHODS

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = sorted(path.relative_to(RECIPES) for family in FAMILIES for path in RECIPES.glob(f"{family}/*/*.yaml"))
DECODER_FILES = sorted(path.relative_to(RECIPES) for row in DECODERS for path in RECIPES.glob(f"{row}/*/*.yaml"))
"""The recipes of decoder models, which test_decoders.py trains."""
PAPER_TASKS = {"vqav2": VQA, "nlvr2": NLVR2, "snli_ve": SNLI_VE, "retrieval": RETRIEVAL}
PAPER = [path for path in FILES if path.parts[1] in PAPER_TASKS]
SCRIPTS = {"nlvr2": "train_nlvr2.py", "snli_ve": "train_snli_ve.py", "retrieval": "train_retrieval.py"}


def read(path):
    return yaml.safe_load((RECIPES / path).read_text(encoding="utf-8"))


def test_both_backbones_have_all_tasks_with_and_without_reduction():
    expected = {Path(b, t, f"{m}.yaml") for b in FAMILIES for t in PAPER_TASKS for m in ("finetune", "pumer")}
    expected |= {Path(b, "vqav2", "tip.yaml") for b in FAMILIES}
    assert set(PAPER) == expected


def test_every_method_has_a_recipe_on_digit_scenes():
    schedules = [read(path)["reduction"] for path in FILES if path.parts[1] == "digit_scenes"]
    methods = {schedule["method"] for schedule in schedules if isinstance(schedule, dict)}
    assert methods == {"none", *METHODS}  # none: smaller images


@pytest.mark.parametrize("path", [*FILES, *DECODER_FILES], ids=str)
def test_the_first_line_is_the_command(path):
    task = next((task for task in SCRIPTS if path.parts[1].endswith(task)), None)
    first = (RECIPES / path).read_text(encoding="utf-8").splitlines()[0]
    words = first.removeprefix("# ").split()
    script = SCRIPTS.get(task, "train_vqa.py")
    assert words[:2] == ["accelerate", "launch"]
    assert f"recipes/{script}" in words
    assert words[-1] in (f"recipes/{path}", f"recipes/{script}")  # the latter: it is the script's default
    assert all((RECIPES.parent / word).is_file() for word in words if word.startswith("recipes/"))


@pytest.mark.parametrize("path", [path for path in PAPER if path.stem == "finetune"], ids=str)
def test_methods_differ_in_the_reduction_only(path):
    plain, pumer = read(path), read(path.with_name("pumer.yaml"))
    assert plain.pop("reduction") != pumer.pop("reduction")
    assert plain["training"].pop("output_dir") != pumer["training"].pop("output_dir")
    assert plain == pumer


@pytest.mark.parametrize("path", PAPER, ids=str)
def test_the_model_of_a_recipe_builds_at_full_size(path):
    backbone, task = FAMILIES[path.parts[0]], PAPER_TASKS[path.parts[1]]
    config = backbone.config_class(reduction=read(path)["reduction"], **task.model_config)
    with torch.device("meta"):
        model = backbone.heads[task.head](config)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert num_parameters > (300e6 if path.parts[0] == "meter" else 100e6)
    assert (model.reduction is None) == (path.stem == "finetune")


@pytest.fixture(scope="module")
def tiny_checkpoints(tmp_path_factory):
    """A tiny pretrained model of each backbone, as deep as the paper's."""
    configs = {"vilt": vilt_fields(), "meter": meter_fields({"max_position_embeddings": 42})}
    for config in configs.values():
        del config["num_hidden_layers"]  # the default, that of the paper
    folders = {}
    for backbone, config in configs.items():
        set_seed(0)
        folders[backbone] = tmp_path_factory.mktemp(backbone)
        words = ["left right image shows a red green blue three seven in the top and"]
        args = ModelArguments(backbone=backbone, config=config)
        model, processor = build_teacher(args, ["x", "y"], words, 40, SNLI_VE)
        model.base_model.save_pretrained(folders[backbone])
        processor.save_pretrained(folders[backbone])
    return folders


@pytest.fixture
def train_a_step(tmp_path, monkeypatch, capsys):
    """Runs a recipe, as blocks, for two steps per stage on a few scenes; gives the folder of its run."""

    def train(task, blocks):
        stages = [
            name for name in ("teacher_training", "reducer_training", "scorer_training") if name in blocks["training"]
        ]
        blocks["data"] |= {"train_scenes": 8, "eval_scenes": 4}
        blocks["training"] |= {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 2,
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 4,
            "dataloader_num_workers": 0,
            "use_cpu": True,
            "report_to": "none",
            "benchmark_seconds": 0.05,
            **{name: {"max_steps": 2} for name in stages},
            **({"scorer_training": {"max_steps": 2, "answer_steps": 2}} if "scorer_training" in stages else {}),
        }
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(blocks), encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["train.py", str(recipe)])
        monkeypatch.setattr("pumer_hf.recipes.runner.use_available_cores", lambda world_size: None)  # tests run on one
        run_recipe(task.name)
        assert "Written to" in capsys.readouterr().out
        return tmp_path / "run"

    return train


# One of each backbone and task, among them one of each kind of stages. The others differ from these in the reduction.
OTHER_METHODS = {("vilt", "nlvr2"): "finetune", ("meter", "vqav2"): "tip"}
TRAINED = [path for path in PAPER if path.stem == OTHER_METHODS.get(path.parts[:2], "pumer")]


def test_one_recipe_of_each_backbone_and_task_is_trained():
    assert sorted(path.parts[:2] for path in TRAINED) == sorted((b, t) for b in FAMILIES for t in PAPER_TASKS)


# Quick are each backbone, each task and each kind of stages.
SLOWLY = {("vilt", "snli_ve"), ("meter", "nlvr2"), ("meter", "retrieval")}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if path.parts[:2] in SLOWLY else []) for path in TRAINED],
    ids=str,
)
def test_a_recipe_trains_a_step(path, tiny_checkpoints, train_a_step):
    blocks = read(path)
    blocks["model"]["checkpoint"] = str(tiny_checkpoints[path.parts[0]])
    blocks["data"] = {
        name: value
        for name, value in blocks["data"].items()
        if not name.endswith(("_file", "_dir")) and name not in ("rand_augment", "min_answer_count")
    }
    folder = train_a_step(PAPER_TASKS[path.parts[1]], blocks)
    stages = {"finetune": ["teacher"], "tip": ["teacher", "reducer", "student"]}.get(path.stem, ["teacher", "student"])
    assert sorted(stage.name for stage in folder.iterdir() if stage.is_dir()) == sorted(stages)


@pytest.mark.parametrize("path", PAPER, ids=str)
def test_a_recipe_says_what_to_download_before_it_says_that_a_file_is_missing(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", str(RECIPES / path), "--use_cpu", "true"])
    with pytest.raises(SystemExit) as error:
        run_recipe(PAPER_TASKS[path.parts[1]].name)
    told, blocks = str(error.value), read(path)
    data = blocks["data"]
    files = {file for name, value in data.items() if name.endswith("_file") for file in value}
    assert told.startswith("train.py: error: download first:\n")
    lines = [line.strip() for line in told.splitlines() if line.startswith("  ")]
    assert all(re.match(r"https?://\S+ \(.+\)$", line) for line in lines)
    for folder in (*(str(Path(file).parent) for file in files), data["image_dir"]):
        assert any(line.endswith(f" {folder})") for line in lines), folder
    checkpoint = blocks["model"]["checkpoint"]
    assert any(checkpoint in line for line in lines) == (path.parts[0] == "meter")
    comment = next((line for line in (RECIPES / path).read_text().splitlines() if "pumer-hf convert" in line), "")
    assert comment.partition("pumer-hf")[2] in told  # the same command
    assert len(lines) == len(files) + (2 if path.parts[1] == "vqav2" else 1) + (path.parts[0] == "meter")


SCENES = [path for path in FILES if path.parts[1].startswith("digit_scenes")]


@pytest.mark.parametrize("path", SCENES, ids=str)
def test_the_models_of_a_recipe_on_digit_scenes_build(path):
    """With the reduction of the file on a model of its size, and the training block as the stages get it."""
    task = next((task for task in (NLVR2, SNLI_VE, RETRIEVAL) if path.parts[1].endswith(task.name)), VQA)
    recipe = parse_recipe(task, RECIPES / path, ["--use_cpu", "true"])
    backbone = FAMILIES[path.parts[0]]
    config = backbone.config_class(reduction=recipe.reduction, **task.model_config, **recipe.model.config)
    with torch.device("meta"):
        model = backbone.heads[task.head](config)
    assert (model.reduction is None) == (path.stem == "smaller_images")
    is_frozen = path.stem in ("lookahead", "diverse", "relevant_diverse", "grid")
    assert recipe.stage("teacher").max_steps > recipe.training.max_steps
    assert (recipe.training.max_steps == 0) == is_frozen
    assert (recipe.untrained_scorer is None) == (path.stem != "lookahead")


# Whose stages or data are of another kind; `pumer.yaml` of ViLT is the default, which test_train_vqa.py trains.
WITH_MORE = [
    "vilt/digit_scenes/tip.yaml",
    "vilt/digit_scenes/elastic.yaml",
    "vilt/digit_scenes/grounded.yaml",
    "vilt/digit_scenes/smaller_images.yaml",
]


@pytest.mark.parametrize("path", [*WITH_MORE, "meter/digit_scenes/pumer_tower.yaml"])
def test_a_recipe_on_digit_scenes_trains_a_step(path, train_a_step):
    blocks = read(path)
    blocks["data"]["unknown_answers"] = "ignore"
    report = json.loads((train_a_step(VQA, blocks) / "results.json").read_text(encoding="utf-8"))
    assert report["gflops"]["student"] < report["gflops"]["teacher"]
