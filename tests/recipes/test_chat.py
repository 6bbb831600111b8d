"""The recipes of decoder models: they load, train, go on after an interruption, and report what was generated."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from pumer_hf.recipes.chat import first_chat_model, parse_chat_recipe, run_chat_recipe
from transformers import AutoModelForImageTextToText, AutoProcessor

from pumer_hf.data.scenes.digits import CELL_SIZE
from pumer_hf.models.families import FAMILIES
from pumer_hf.recipes.generating import evaluate_answers
from pumer_hf.recipes.small_llava import END

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
FILES = sorted(path for path in RECIPES.glob("*/*/*.yaml") if path.relative_to(RECIPES).parts[0] not in FAMILIES)
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
DEFAULT = "recipes/llava/digit_scenes/teacher.yaml"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Trains the default recipe with a tiny model for a few steps; gives the folder of the run."""

    def run(*flags, steps=2, reports=True):
        blocks = yaml.safe_load((ROOT / DEFAULT).read_text(encoding="utf-8"))
        blocks["model"] |= {"vision_config": {**TINY, "image_size": 48, "patch_size": 8}, "text_config": TINY}
        blocks["data"] |= {"train_scenes": 8, "eval_scenes": 3}
        blocks["training"] |= {
            "output_dir": str(tmp_path / "run"),
            "max_steps": steps,
            "per_device_train_batch_size": 2,
            "logging_steps": 1,
            "save_steps": 1,
            "save_total_limit": None,
            "warmup_steps": 0,  # so that the first step changes something
            "use_cpu": True,
            "disable_tqdm": True,
        }
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(blocks), encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["train_chat.py", str(recipe), *flags])
        monkeypatch.setattr("pumer_hf.recipes.chat.use_available_cores", lambda world_size: None)  # tests run on one
        run_chat_recipe(DEFAULT)
        assert ("Written to" in capsys.readouterr().out) == reports
        return tmp_path / "run"

    return run


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-3:]))
def test_a_recipe_loads_and_its_first_line_is_its_command(path):
    name = path.relative_to(ROOT).as_posix()
    recipe = parse_chat_recipe(path, ["--use_cpu", "true"])
    vision = recipe.model.vision_config or {"image_size": recipe.model.image_size, "patch_size": CELL_SIZE}
    assert vision["image_size"] == recipe.data.grid_size * vision["patch_size"]
    assert ("cluttered" in name) == (recipe.data.setting == "cluttered")
    words = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").split()
    assert words[:3] == ["accelerate", "launch", "recipes/train_chat.py"]
    assert words[3:] == ([] if name == DEFAULT else [name])


def test_a_run_saves_a_model_that_generates_its_answers(run):
    folder = run()
    report = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert report["teacher"]["questions"] == 12
    assert {"one place", "many places"} & report["teacher"]["accuracy_by_kind"].keys()
    assert set(report["baselines"]) == {"majority", "question_only"}
    model = AutoModelForImageTextToText.from_pretrained(folder / "teacher")
    processor = AutoProcessor.from_pretrained(folder / "teacher")
    assert processor.tokenizer.eos_token_id == model.generation_config.eos_token_id
    assert processor.tokenizer.eos_token == END


def test_single_rows_train_too(run):
    run("--questions_per_image", "1")


def weights_in(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).state_dict()


def test_a_complete_model_is_evaluated_and_not_trained_again(run, monkeypatch):
    with pytest.raises(SystemExit, match="holds a run already"):
        run(steps=1) and run(steps=2)
    evaluated = []
    monkeypatch.setattr(
        "pumer_hf.recipes.chat.report_chat", lambda recipe, data, model, processor: evaluated.append(model)
    )
    folder = run("--resume", "true", steps=2, reports=False)
    assert json.loads((folder / "teacher" / "trainer_state.json").read_text())["global_step"] == 1
    torch.testing.assert_close(evaluated[0].state_dict(), weights_in(folder / "teacher"), rtol=0, atol=0)


def test_an_interrupted_training_ends_as_one_that_was_not(run):
    teacher = run(steps=3) / "teacher"
    whole = weights_in(teacher)
    for path in (teacher / "trainer_state.json", teacher / "model.safetensors"):
        path.unlink()
    shutil.rmtree(teacher / "checkpoint-3")
    assert (teacher / "checkpoint-2").is_dir()
    state = json.loads((run("--resume", "true", steps=3) / "teacher" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"]][:3] == [1, 2, 3]
    torch.testing.assert_close(weights_in(teacher), whole, rtol=0, atol=0)


def test_a_model_can_start_from_a_checkpoint(run):
    folder = run() / "teacher"
    flags = ["--checkpoint", str(folder), "--use_cpu", "true"]
    blocks = yaml.safe_load((ROOT / DEFAULT).read_text(encoding="utf-8"))
    blocks["model"] = {}
    path = folder.parent / "again.yaml"
    path.write_text(yaml.safe_dump(blocks), encoding="utf-8")
    model, processor = first_chat_model(parse_chat_recipe(path, flags).model, None)
    saved = AutoModelForImageTextToText.from_pretrained(folder)
    assert torch.equal(model.lm_head.weight, saved.lm_head.weight)
    assert processor.image_token == "<image>"
    larger = parse_chat_recipe(path, [*flags, "--image_size", "64"]).model
    model, processor = first_chat_model(larger, None)
    assert model.config.image_seq_length == 64
    assert processor.image_processor.size["height"] == 64


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_text_length", "5"], "data.max_text_length=5"),
        (["--image_std", "0"], "model.image_std=0.0"),
        (["--checkpoint", "x/y"], "model.checkpoint='x/y'"),
        (["--image_size", "64"], "model.image_size=64"),
        (["--questions_per_image", "0"], "training.questions_per_image=0"),
        (["--lerning_rate", "1"], "did you mean --learning_rate"),
    ],
)
def test_what_is_wrong_is_named(flags, message):
    with pytest.raises(ValueError, match=message):
        parse_chat_recipe(ROOT / DEFAULT, ["--use_cpu", "true", *flags])


def test_a_recipe_of_another_task_is_refused():
    with pytest.raises(ValueError, match="task: chat"):
        parse_chat_recipe(RECIPES / "vilt/digit_scenes/pumer.yaml", [])


def test_generated_answers_score_as_annotators_agree():
    from datasets import Dataset

    rows = Dataset.from_dict(
        {"answers": [["red"], ["3", "4"], ["no"]], "kind": ["a", "b", "b"], "groups": [["x"], ["x"], ["y"]]}
    )
    result = evaluate_answers([" Red", "4", "yes"], rows)
    assert result.main.value == 50
    assert {name: metric.value for name, metric in result.by_kind["accuracy"].items()} == {
        "a": 100,
        "b": 25,
        "x": 75,
        "y": 0,
    }
