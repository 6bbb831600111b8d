import json

import pytest

from pumer_hf import PuMerViltConfig, preset
from pumer_hf.models.families import FAMILIES

PUMER = {
    "method": "pumer",
    "layers": [2, 5],
    "prune_ratio": 0.1,
    "image_merge_ratio": 0.3,
    "text_merge_ratio": 0.2,
    "saliency": "mean_head",
}


def test_presets_are_those_of_table_6():
    expected = {
        ("vilt", "vqa"): ([2, 5, 8], 0.1, 0.3, 0.2),
        ("vilt", "nlvr2"): ([2, 5, 8], 0.1, 0.3, 0.2),
        ("vilt", "snli_ve"): ([2, 4, 6, 8], 0.1, 0.3, 0.2),
        ("vilt", "retrieval"): ([2, 5, 8], 0.1, 0.3, 0.2),
        ("meter", "vqa"): ([0, 1, 2, 3], 0.2, 0.2, 0.2),
        ("meter", "nlvr2"): ([1, 2, 3], 0.3, 0.5, 0.2),
        ("meter", "snli_ve"): ([0, 1, 2, 3], 0.3, 0.5, 0.2),
        ("meter", "retrieval"): ([1, 2, 3], 0.2, 0.5, 0.2),
    }
    assert {(name, task) for name, family in FAMILIES.items() for task in family.presets} == set(expected)
    names = ("layers", "prune_ratio", "image_merge_ratio", "text_merge_ratio")
    for key, values in expected.items():
        assert preset(*key) == {
            "method": "pumer",
            "saliency": "mean_head",
            **dict(zip(names, values, strict=True)),
        }


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match="backbone='vit', task='vqav2': .*vilt/vqa"):
        preset("vit", "vqav2")


def test_reduction_travels_with_the_config(tmp_path):
    PuMerViltConfig(reduction=PUMER).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["reduction"] == PUMER
    assert PuMerViltConfig.from_pretrained(tmp_path).reduction == PUMER


def test_from_pretrained_takes_and_checks_another_reduction(tmp_path):
    PuMerViltConfig(reduction=PUMER).save_pretrained(tmp_path)
    assert PuMerViltConfig.from_pretrained(tmp_path, reduction=None).reduction is None
    assert PuMerViltConfig.from_pretrained(tmp_path, reduction={**PUMER, "layers": [3]}).reduction["layers"] == [3]
    with pytest.raises(ValueError, match="reduction.prune_ratio=2"):
        PuMerViltConfig.from_pretrained(tmp_path, reduction={**PUMER, "prune_ratio": 2})


@pytest.mark.parametrize("reduction", [PUMER, {**PUMER, "layers": [12]}])
def test_a_layer_that_the_model_does_not_have_is_named(reduction):
    with pytest.raises(ValueError, match="layer (5|12), .*layers 0 to 4"):
        PuMerViltConfig(num_hidden_layers=5, reduction=reduction)
