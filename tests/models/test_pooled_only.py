"""`config.pooled_only`; that it changes no logits is a part of the contract (`test_contract.py`)."""

import pytest
import torch
from tiny_models import FAMILIES, NUM_TEXT, schedule

from pumer_hf.flops import count_flops

NUM_CLS = {"vilt": 1, "meter": 2}
SMALL, EXTREME = schedule("pumer", "small"), schedule("pumer", "extreme")


def backbone(name, reduction=None, **overrides):
    return FAMILIES[name].model(reduction, pooled_only=True, **overrides).base_model


@pytest.mark.parametrize("reduction", [None, SMALL], ids=["none", "pumer"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_layer_computes_the_cls_alone(name, reduction):
    model, inputs = backbone(name, reduction), FAMILIES[name].inputs()
    outputs = model(**inputs, output_hidden_states=True)
    assert outputs.last_hidden_state.shape == (3, NUM_CLS[name], 16)
    before, last = outputs.hidden_states[-2:]
    assert (before.shape[1], last.shape[1]) == (sum(model.output_lengths(NUM_TEXT, 17)[-1]), NUM_CLS[name])
    fewer = count_flops(model, inputs)[0]
    model.config.pooled_only = False
    assert fewer < count_flops(model, inputs)[0]


def test_attentions_of_the_last_layer_are_those_of_the_cls():
    model, inputs = backbone("vilt"), FAMILIES["vilt"].inputs()
    *_, before, last = model(**inputs, output_attentions=True).attentions
    assert (before.shape, last.shape) == ((3, 2, NUM_TEXT + 17, NUM_TEXT + 17), (3, 2, 1, NUM_TEXT + 17))
    model.config.pooled_only = False
    torch.testing.assert_close(last, model(**inputs, output_attentions=True).attentions[-1][:, :, :1])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_last_layer_that_reduces_computes_all(name):
    model = backbone(name, EXTREME)
    assert EXTREME["layers"][-1] == 3
    found = model(**FAMILIES[name].inputs()).last_hidden_state
    assert found.shape[1] == sum(model.output_lengths(NUM_TEXT, 17)[-1])


@pytest.mark.parametrize("reduction", [None, SMALL], ids=["none", "pumer"])
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("vilt", {"semantics": "release"}),
        ("meter", {"semantics": "release"}),
        ("meter", {"co_attention": "sequential"}),
    ],
)
def test_variants_pool_the_same(name, overrides, reduction):
    model, inputs = backbone(name, reduction, **overrides), FAMILIES[name].inputs()
    found = model(**inputs)
    assert found.last_hidden_state.shape[1] == NUM_CLS[name]
    model.config.pooled_only = False
    torch.testing.assert_close(found.pooler_output, model(**inputs).pooler_output)


def test_it_is_saved_with_the_model_and_can_be_set_on_loading(tmp_path):
    family = FAMILIES["vilt"]
    family.model(pooled_only=True).save_pretrained(tmp_path)
    assert family.model_class.from_pretrained(tmp_path).config.pooled_only
    assert not family.model_class.from_pretrained(tmp_path, pooled_only=False).config.pooled_only
    with pytest.raises(ValueError, match="pooled_only='yes'"):
        family.model_class.from_pretrained(tmp_path, pooled_only="yes")
