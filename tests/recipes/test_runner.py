"""What a recipe refuses before it trains, and students with smaller images."""

import errno
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from tiny_tasks import REDUCTION, tiny

from pumer_hf import wheel
from pumer_hf.data.vqa import VQA, VqaDataArguments
from pumer_hf.folders import write_json
from pumer_hf.inputs import resized_processor
from pumer_hf.recipes.checks import check_image_size, check_method, check_push, check_recipe, with_found_ratios
from pumer_hf.recipes.recipe import ModelArguments, Recipe, RecipeTrainingArguments, check_reporters
from pumer_hf.recipes.runner import open_output_folder

SCENES = VqaDataArguments(train_scenes=8, eval_scenes=4, unknown_answers="ignore")
TIP = {"method": "tip", "layers": [1], "prune_ratio": 0.5}


def recipe_of(tmp_path, reduction=None, data=None, model=None, **training):
    values = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none", **training}
    args = RecipeTrainingArguments(**values)
    return Recipe(ModelArguments(**(model or {})), reduction, VqaDataArguments(**(data or {})), args, values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reduction": REDUCTION, "reducer_training": {}}, "training.reducer_training .*method"),
        ({"reduction": TIP, "reduction_warmup_steps": 5}, "training.reduction_warmup_steps .*method"),
        ({"reduction": {**TIP, "method": "grounded"}}, "'grounded' .*data.image_saliency"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1: .* PuMerViltForQuestionAnswering"),
        ({"model": {"image_size": 20}}, "model.image_size=20: .*8"),
        ({"model": {"image_size": 0}}, "model.image_size=0: .*8"),
    ],
)
def test_what_does_not_fit_is_found_before_training(arguments, message, tmp_path):
    model, processor = tiny("vilt", reduction=None)
    recipe = recipe_of(tmp_path, **arguments)
    collator = VQA.collator(
        processor,
        VQA.load(SCENES, None),
        recipe.data,
        True,
    )
    with pytest.raises(ValueError, match=message):
        check_image_size(recipe, model, collator)
        check_method(recipe, model, collator)


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_a_model_learns_to_take_smaller_images(backbone, tmp_path):
    model, processor = tiny(backbone, reduction=None)
    model.resize_images(24)
    smaller = resized_processor(processor, 24)
    model.save_pretrained(tmp_path)
    smaller.save_pretrained(tmp_path)
    row = {"question": "what digit is red?", "answers": ["7"], "origin": "a row"}
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    row["image"] = {"bytes": (tmp_path / "scene.png").read_bytes(), "path": None}
    collator = VQA.collator(
        smaller,
        VQA.load(SCENES, None),
        VqaDataArguments(),
        False,
    )
    batch = {name: value for name, value in collator([row]).items() if name != "labels"}
    assert batch["pixel_values"].shape == (1, 3, 24, 24)
    outputs = model.eval()(**batch, output_hidden_states=True)
    assert outputs.hidden_states[0].shape[1] == batch["input_ids"].shape[1] + 1 + 9
    loaded = type(model).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**batch).logits, outputs.logits)
    assert loaded.config.image_size == 24


# The output folder, before the work


@pytest.fixture
def args_for():
    return lambda folder, **values: RecipeTrainingArguments(output_dir=str(folder), use_cpu=True, **values)


def test_the_output_folder_is_made_before_the_work(args_for, tmp_path):
    open_output_folder(args_for(tmp_path / "new" / "run"))
    assert list((tmp_path / "new" / "run").iterdir()) == []


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("name", ["file", "file/run", "file/run/deeper"])
def test_an_output_folder_that_cannot_be_made_is_named(name, resume, args_for, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=f"training.output_dir: .*{tmp_path / name} "):
        open_output_folder(args_for(tmp_path / name, resume=resume))


@pytest.mark.parametrize("there", [True, False])
def test_an_output_folder_that_cannot_be_written_to_is_named(there, args_for, tmp_path, monkeypatch):
    def refuse(**kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pumer_hf.folders.TemporaryFile", refuse)
    if there:
        (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match=rf"training.output_dir: .*{tmp_path / 'run'} \(Read-only"):
        open_output_folder(args_for(tmp_path / "run"))


def test_a_folder_with_a_run_is_refused_without_resume(args_for, tmp_path):
    (tmp_path / "teacher").mkdir()
    with pytest.raises(FileExistsError, match=f"{tmp_path} .*--resume"):
        open_output_folder(args_for(tmp_path))
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(FileExistsError, match=f"finished: {tmp_path / 'results.json'}"):
        open_output_folder(args_for(tmp_path))
    open_output_folder(args_for(tmp_path, resume=True))


@pytest.mark.parametrize(("name", "warnings"), [("notes", 1), ("teacher", 0)])
def test_resuming_where_there_is_no_run_is_said(name, warnings, args_for, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "pumer_hf.recipes.runner.logger.warning", lambda message, *values: told.append(message % values)
    )
    (tmp_path / name).mkdir()
    open_output_folder(args_for(tmp_path, resume=True))
    assert len(told) == warnings
    assert all(str(tmp_path) in message for message in told)


def test_results_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_json(path, {"accuracy": 1.5})

    def fail(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pumer_hf.folders.os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"accuracy": 2.5})
    assert json.loads(path.read_text()) == {"accuracy": 1.5}


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        ({}, {"cache_teacher_logits": True}, "training.cache_teacher_logits .*all rows"),
        ({"image_size": 24}, {}, "model.image_size .*all rows"),
    ],
)
def test_logits_that_are_computed_before_do_not_go_with_streaming(model, training, message, tmp_path):
    teacher, processor = tiny("vilt", reduction=None)
    recipe = recipe_of(tmp_path, model=model, data={"dataset": "user/data", "streaming": True}, **training)
    with pytest.raises(ValueError, match=message):
        check_recipe(recipe, teacher, VQA.collator(processor, VQA.load(SCENES, None), recipe.data, True))


WORKERS = {"dataloader_persistent_workers": True, "dataloader_num_workers": 1}


@pytest.mark.parametrize("training", [WORKERS, {"teacher_training": WORKERS}], ids=["all", "teacher"])
def test_workers_that_persist_would_draw_the_same_in_each_epoch(training, tmp_path):
    teacher, processor = tiny("vilt", reduction=None)
    data = VQA.load(SCENES, None)
    recipe = recipe_of(tmp_path, data={"rand_augment": True}, **training)
    with pytest.raises(ValueError, match="training.dataloader_persistent_workers=True .*teacher"):
        check_recipe(recipe, teacher, VQA.collator(processor, data, recipe.data, True))
    still = recipe_of(tmp_path, **training)
    check_recipe(still, teacher, VQA.collator(processor, data, still.data, True))


def test_a_recipe_with_a_budget_gets_the_ratios_that_meet_it(tmp_path):
    teacher, _ = tiny("vilt", reduction=None)
    recipe = recipe_of(tmp_path)
    assert with_found_ratios(recipe, teacher) is recipe
    found = with_found_ratios(replace(recipe, reduction={**REDUCTION, "flops": 0.8}), teacher)
    assert found.budget["spent"] == pytest.approx(0.8, abs=0.01)
    assert "flops" not in found.reduction
    assert found.schedule.parts[0].layers == tuple(REDUCTION["layers"])
    smaller = replace(recipe, model=replace(recipe.model, image_size=24), reduction={**REDUCTION, "flops": 0.8})
    with pytest.raises(ValueError, match="reduction.flops=0.8 does not go with model.image_size"):
        with_found_ratios(smaller, teacher)
    with pytest.raises(ValueError, match=r"reduction.flops=0.05: the schedule cannot spend less"):
        with_found_ratios(replace(recipe, reduction={**REDUCTION, "flops": 0.05}), teacher)


def test_meter_keeps_no_aspect_ratio(tmp_path):
    teacher, processor = tiny("meter", reduction=None)
    recipe = recipe_of(tmp_path, data={"keep_aspect_ratio": True, "max_text_length": 40})
    with pytest.raises(ValueError, match=r"data.keep_aspect_ratio=True: .* \(METER\)"):
        check_recipe(recipe, teacher, VQA.collator(processor, VQA.load(SCENES, None), recipe.data, True))


def test_soft_targets_of_a_stage_cannot_be_smoothed(tmp_path):
    teacher, processor = tiny("vilt", reduction=None)
    recipe = recipe_of(tmp_path, teacher_training={"label_smoothing_factor": 0.2})
    with pytest.raises(ValueError, match="label_smoothing_factor=0.2"):
        check_method(recipe, teacher, VQA.collator(processor, VQA.load(SCENES, None), recipe.data, True))


def test_a_push_without_a_network_is_refused_before_the_work(tmp_path, monkeypatch):
    args = recipe_of(tmp_path, push_to_hub=True).training
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    check_push(args)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"training.push_to_hub=True, but HF_HUB_OFFLINE .*pumer-hf push"):
        check_push(args)
    check_push(recipe_of(tmp_path).training)


def test_a_push_of_a_package_that_is_not_installed_is_refused_before_the_work(tmp_path, monkeypatch):
    """It would need a wheel of it in the end."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(wheel, "distributions", lambda name: [])
    check_push(recipe_of(tmp_path).training)
    with pytest.raises(ImportError, match="not installed.*pip install -e"):
        check_push(recipe_of(tmp_path, push_to_hub=True).training)


# Reporters


def test_a_reporter_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"training.report_to='wandbb': .*wandb\?"):
        recipe_of(tmp_path, report_to="wandbb")


def test_a_reporter_that_is_not_installed_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("pumer_hf.recipes.recipe.get_available_reporting_integrations", lambda: ["tensorboard"])
    check_reporters(recipe_of(tmp_path, report_to="tensorboard").training)
    with pytest.raises(ImportError, match="training.report_to='wandb'.*pip install wandb"):
        check_reporters(recipe_of(tmp_path, report_to="wandb").training)
