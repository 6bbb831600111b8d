"""What a recipe refuses before it trains, and students with smaller images."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_tasks import REDUCTION, tiny

from pumer_hf.data.vqa import VQA, VqaDataArguments
from pumer_hf.training.build import resized_processor
from pumer_hf.training.recipe import ModelArguments, Recipe, RecipeTrainingArguments
from pumer_hf.training.run import check_image_size, check_method

SCENES = VqaDataArguments(train_scenes=8, eval_scenes=4, unknown_answers="ignore")
TIP = {"method": "tip", "layers": [1], "prune_ratio": 0.5}


def recipe_of(tmp_path, reduction=None, data=None, model=None, **training):
    args = RecipeTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **training)
    return Recipe(ModelArguments(**(model or {})), reduction, VqaDataArguments(**(data or {})), args, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reduction": REDUCTION, "reducer_training": {}}, "training.reducer_training is for a method that learns"),
        ({"reduction": TIP, "reduction_warmup_steps": 5}, "training.reduction_warmup_steps is not for a method that"),
        ({"reduction": {**TIP, "method": "grounded"}}, "'grounded' needs data.image_saliency"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1: .* PuMerViltForQuestionAnswering"),
        ({"model": {"image_size": 20}}, "model.image_size=20: must be a multiple of the patch size, 8"),
        ({"model": {"image_size": 0}}, "model.image_size=0: must be a multiple of the patch size, 8"),
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
