"""`preset` for decoder models."""

import pytest
from transformers import Gemma4Config, LlavaConfig, Qwen3VLConfig, ViltConfig

from pumer_hf import preset


@pytest.mark.parametrize(
    ("depth", "layers"), [(32, [7, 15, 23]), (28, [6, 13, 20]), (8, [2, 3, 5]), (6, [2, 4]), (3, [1])]
)
def test_the_preset_of_a_decoder_begins_after_a_quarter_of_its_layers(depth, layers):
    config = LlavaConfig(text_config={"model_type": "llama", "num_hidden_layers": depth})
    inside = preset(config, "layers")
    assert inside["layers"] == layers
    assert (inside["prune_ratio"], inside["image_merge_ratio"], inside["text_merge_ratio"]) == (0.3, 0.2, 0.0)
    assert preset(config, "inputs")["keep_ratio"] == 0.25


def test_the_preset_of_a_decoder_begins_after_the_layers_that_need_all_image_tokens():
    config = Qwen3VLConfig(text_config={"num_hidden_layers": 8}, vision_config={"deepstack_visual_indexes": [1, 2, 3]})
    assert preset(config, "layers")["layers"] == [2, 3, 5]


@pytest.mark.parametrize(
    ("backbone", "site", "message"),
    [
        ("llava", "layers", r"backbone='llava'.*preset\(model.config, 'layers'\)"),
        (LlavaConfig(), "vqa", "site='vqa'.*'inputs' or 'layers'"),
        (Gemma4Config(), "layers", "reduction.site='layers'"),
        (ViltConfig(), "layers", "ViltConfig"),
    ],
)
def test_a_wrong_preset_of_a_decoder_says_what_to_give(backbone, site, message):
    with pytest.raises(ValueError, match=message):
        preset(backbone, site)
