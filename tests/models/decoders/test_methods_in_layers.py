"""How many tokens each method leaves in the layers of a decoder. No ratio counts the empty token before an image."""

import pytest
import torch
from models.decoders.tiny import IMAGE, ONE, TWO, tiny_inputs, tiny_model

PUMER = {"method": "pumer", "prune_ratio": 0.25, "image_merge_ratio": 0.25}
FIELDS = {
    "pumer": PUMER,
    "tome": {"method": "tome", "merge_ratio": 0.5},
    "fastv": {"method": "fastv", "layers": [1]},
    "pyramid": {"method": "pyramid"},
    "random": {"method": "random", "prune_ratio": 0.5},
    "grounded": {"method": "grounded", "prune_ratio": 0.5, "merge_rest": True},
    "dynamicvit": {"method": "dynamicvit", "prune_ratio": 0.5},
    "tip": {"method": "tip", "prune_ratio": 0.5, "continuity_weight": 0.0, "contrastive_weight": 0.0},
}


def left_by(schedule):
    """The image tokens of one prompt with two images: how many there are, and how many are left after each layer."""
    model = tiny_model("llava", ours=True).eval()
    model.set_reduction(schedule)
    inputs = tiny_inputs(model, "llava", [[8, ONE, 9, 9, TWO, 3]])
    number = int((inputs["input_ids"] == IMAGE).sum())
    if "grounded" in str(schedule):
        inputs["image_saliency"] = torch.rand(number, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = model(**inputs)
    assert outputs.logits.isfinite().all()
    left = {}
    for trace in outputs.reduction:
        left[trace.layer] = left.get(trace.layer, 0) + len(trace.kept)
    return number, left


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
@pytest.mark.filterwarnings("ignore:.*parts that must learn")
def test_half_of_the_image_tokens_of_a_prompt_stay(fields):
    number, left = left_by({"layers": [1], **fields})
    assert number % 4 == 0
    assert left == {1: number // 2}


@pytest.mark.parametrize("ratio", [0.9, 0.99])
def test_the_last_image_token_of_a_prompt_stays(ratio):
    _, left = left_by({"method": "pyramid", "layers": [0, 1], "prune_ratio": ratio})
    assert left[1] == 1


def test_parts_in_other_layers_follow_each_other():
    number, left = left_by([{"method": "fastv", "layers": [0]}, {**PUMER, "layers": [1]}])
    assert left[0] == number // 2
    assert left[1] == number // 2 - 2 * round(0.25 * (number // 2))
