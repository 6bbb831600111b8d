"""`Reduction`, a schedule at work in a model, and how often a schedule is parsed."""

import copy
import weakref

import pytest
import torch
from tiny_models import FAMILIES, NUM_TEXT, schedule
from torch import nn
from transformers import ViltConfig, ViltModel

from pumer_hf import configuration
from pumer_hf.models.reducible import reduces_tokens, reduction_of
from pumer_hf.reducers import Schedule, parse_reduction

PUMER, TIP = schedule("pumer", "small"), schedule("tip", "small")
TOWER = {"method": "tome", "site": "tower", "merge_ratio": 0.25}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def parsed(monkeypatch):
    """What is parsed."""
    found = []

    def parse(reduction, layout):
        found.append(reduction)
        return parse_reduction(reduction, layout)

    monkeypatch.setattr(configuration, "parse_reduction", parse)
    return found


class Wrapper(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.inner = model


def test_it_is_found_in_heads_backbones_and_what_is_wrapped_around_them(family):
    model = family.model(PUMER)
    for outer in (model, model.base_model, Wrapper(model), Wrapper(Wrapper(model.base_model))):
        reduction = reduction_of(outer)
        assert reduction.model is model.base_model
        assert reduction.schedule == model.reduction == parse_reduction(PUMER)
        assert reduces_tokens(outer)
    model.set_reduction(None)
    assert not reduces_tokens(Wrapper(model))
    assert reduction_of(model).schedule is None


def test_a_model_that_cannot_reduce_says_so():
    stock = ViltModel(ViltConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=1, intermediate_size=8))
    assert not reduces_tokens(stock)
    with pytest.raises(ValueError, match="ViltModel holds no model that can reduce tokens"):
        reduction_of(stock)


def test_a_schedule_of_several_sites_is_set_scaled_and_switched_off():
    model = FAMILIES["meter"].model([PUMER, TOWER])
    reduction = reduction_of(model)
    assert list(reduction.reducers) == ["tower", "layers"]
    reduction.scale(0.5)
    assert model.reduction == parse_reduction([PUMER, TOWER]).scaled(0.5)
    assert model.config.schedule == parse_reduction([PUMER, TOWER])
    reduction.set(TOWER)
    assert list(reduction.reducers) == ["tower"]
    assert model.config.reduction == TOWER
    reduction.set(None)
    assert reduction.reducers == {}
    assert model.config.reduction is None


def test_other_reducers_are_used_for_a_while():
    model, inputs = FAMILIES["meter"].model([PUMER, TOWER]), FAMILIES["meter"].inputs()
    reduction, own = reduction_of(model), reduction_of(model).reducers
    expected = FAMILIES["meter"].model(None)(**inputs).logits
    with pytest.raises(KeyError), reduction.using({}):
        assert torch.equal(model(**inputs).logits, expected)
        raise KeyError
    assert reduction.reducers == own
    with reduction.using({"layers": own["layers"]}):
        assert reduction.schedule == parse_reduction(PUMER)


def test_traces_and_announced_lengths_agree(family):
    model = family.model(PUMER)
    reduction, outputs = reduction_of(model), model(**family.inputs())
    (trace,) = outputs.reduction
    assert (trace.num_text, trace.num_image) == reduction.output_lengths(NUM_TEXT, family.num_image)[trace.layer]


def test_a_prior_is_asked_for_by_its_method(family):
    model = family.model(PUMER)
    assert not model.token_reduction.uses_prior
    model.set_reduction(schedule("grounded", "small"))
    assert model.token_reduction.uses_prior


def test_a_copy_has_a_reduction_of_its_own(family):
    model = family.model(TIP)
    model.set_reduction(None)
    other = copy.deepcopy(model)
    other.set_reduction(TIP)
    assert model.reduction is None
    for name, value in family.model(TIP).base_model.reducer.state_dict().items():
        assert other.base_model.reducer.state_dict()[name].shape == value.shape
    assert reduction_of(other).model is other.base_model


def test_a_model_that_nobody_holds_is_gone_at_once(family):
    """No circle of references keeps its memory."""
    model = family.model(PUMER)
    model.set_reduction(TIP)
    reference = weakref.ref(model.base_model)
    del model
    assert reference() is None


def test_a_schedule_is_parsed_once_per_load_and_once_per_change(family, tmp_path, parsed):
    family.model(PUMER).save_pretrained(tmp_path)
    parsed.clear()
    model = family.model_class.from_pretrained(tmp_path)
    assert len([reduction for reduction in parsed if reduction is not None]) == 1
    parsed.clear()
    model.set_reduction(TIP)
    model.scale_reduction(0.5)
    model.scale_reduction(1.0)
    assert model.config.schedule == model.reduction == model.config.schedule
    assert len(parsed) == 1
    model(**family.inputs())
    model.save_pretrained(tmp_path)
    assert [reduction for reduction in parsed[1:] if reduction is not None] == []


def test_a_change_of_the_plain_form_is_seen(family, parsed):
    config = family.config(reduction=PUMER)
    parsed.clear()
    assert isinstance(config.schedule, Schedule)
    assert copy.deepcopy(config).schedule == config.schedule
    assert parsed == []
    config.reduction["layers"] = [0]
    assert config.schedule.at("layers").layers == (0,)
    config.reduction = {"method": "none"}
    assert config.schedule is None
    assert config.reduction is None
    config.reduction = [PUMER]
    assert config.schedule == parse_reduction(PUMER)
    assert config.reduction == PUMER
    config.reduction = {**PUMER, "layers": [99]}
    with pytest.raises(ValueError, match=r"reduction.layers=\[99\]"):
        _ = config.schedule


def test_the_parsed_schedule_is_not_saved(family):
    config = family.config(reduction=PUMER)
    assert config.to_dict()["reduction"] == PUMER
    assert not [name for name in config.to_dict() if "schedule" in name or "parsed" in name]
    assert type(config).from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_a_schedule_is_checked_against_the_config_with_which_a_model_is_built(family, tmp_path):
    config = family.config(reduction=PUMER)
    config.num_hidden_layers = 1
    with pytest.raises(ValueError, match=r"reduction.layers=\[1\] names layer 1, but the model has layers 0 to 0"):
        family.model_class(config)
