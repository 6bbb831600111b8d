"""Several parts of a schedule at one site."""

import pytest
import torch
from tiny_models import FAMILIES, NUM_TEXT, inputs_of

from pumer_hf.reducers import build_reducer, parse_reduction
from pumer_hf.reducers.several import SeveralConfig, SeveralReducer, joined

TOME = {"method": "tome", "layers": [2, 3], "merge_ratio": [0.2, 0.3]}
RANDOM = {"method": "random", "layers": [0], "prune_ratio": 0.4}
TIP = {"method": "tip", "layers": [1], "prune_ratio": 0.3}
DYNAMIC = {"method": "dynamicvit", "layers": [2], "prune_ratio": 0.3}

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def test_parts_of_one_site_are_kept_in_the_order_of_their_layers():
    schedule = parse_reduction([TOME, RANDOM])
    assert [part.method for part in schedule.parts] == ["random", "tome"]
    assert schedule == parse_reduction([RANDOM, TOME]) == parse_reduction(schedule.to_dict())
    both = schedule.at("layers")
    assert isinstance(both, SeveralConfig)
    assert both.layers == (0, 2, 3)
    assert both.parts == schedule.parts
    assert [both.reduces(layer) for layer in range(4)] == [True, False, True, True]
    assert schedule.scaled(0.5).at("layers").parts[1].merge_ratio == (0.1, 0.15)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([TOME, {**RANDOM, "layers": [3]}], "site='layers' stands in 2 schedules, which name layer 3 twice"),
        (
            [{**TOME, "site": "tower"}, {**TOME, "site": "tower", "layers": [], "merge_ratio": 0.1}],
            "'tower'.*no layers",
        ),
        ([{"method": "grid", "site": "inputs", "num_keep": 3}] * 2, "'inputs'.*no layers in one"),
    ],
)
def test_parts_that_meet_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        parse_reduction(parts)


def test_only_one_of_them_may_have_weights():
    with pytest.raises(ValueError, match="'tip', 'dynamicvit' at one site have weights"):
        FAMILIES["vilt"].model([TIP, DYNAMIC])


@each_family
def test_each_layer_is_reduced_by_its_own_part(family):
    model, inputs = family.model([RANDOM, TOME]), inputs_of(family)
    lengths = model.output_lengths(NUM_TEXT, family.num_image)
    assert [num_image for _, num_image in lengths] == [10, 10, 8, 6]  # of 17: 0.4 pruned, then 0.2 and 0.3 merged
    traces = model(**inputs).reduction
    assert [(trace.layer, trace.num_text, trace.num_image) for trace in traces] == [
        (layer, *lengths[layer]) for layer in (0, 2, 3)
    ]
    assert [trace.keep is None for trace in traces] == [False, True, True]


@each_family
def test_the_names_of_weights_do_not_depend_on_the_number_of_parts(family):
    alone, together = family.model(TIP), family.model([TIP, TOME])
    assert together.state_dict().keys() == alone.state_dict().keys()
    together.load_state_dict(alone.state_dict())
    only_tome = family.model(TOME)
    only_tome.load_state_dict(alone.state_dict(), strict=False)
    inputs = inputs_of(family)
    first, *_ = together(**inputs).reduction
    assert torch.equal(first.keep, alone(**inputs).reduction[0].keep)


@each_family
def test_what_is_learned_stays_when_parts_come_and_go(family):
    model, inputs = family.model(TIP), inputs_of(family)
    reducer, expected = model.base_model.reducer, model(**inputs).logits
    model.set_reduction([TOME, TIP])
    assert model.base_model.reducer.parts[0] is reducer
    model.set_reduction(TOME)
    model.set_reduction([RANDOM, TIP])
    model.set_reduction(TIP)
    assert torch.equal(model(**inputs).logits, expected)


@each_family
def test_training_and_scaling_reach_all_parts(family):
    model = family.model([TIP, TOME]).train()
    assert all(part.training for part in model.base_model.reducer.parts)
    assert not any(part.training for part in model.eval().base_model.reducer.parts)
    model.scale_reduction(0.0)
    assert model.output_lengths(NUM_TEXT, 17)[-1] == (NUM_TEXT, 17)
    assert [part.ratios and part.scaled(1.0) for part in model.reduction.parts] == list(model.reduction.parts)
    model.scale_reduction(1.0)
    assert model.reduction == model.config.schedule


@each_family
def test_save_and_load(family, tmp_path):
    model, inputs = family.model([TIP, TOME]), inputs_of(family)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert loaded.config.reduction == model.config.reduction
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_what_any_of_them_needs_the_model_needs():
    grounded = build_reducer(parse_reduction({"method": "grounded", "layers": [1], "prune_ratio": 0.1}).parts[0], 8)
    tome = build_reducer(parse_reduction(TOME).parts[0], 8)
    both = joined([grounded, tome])
    assert isinstance(both, SeveralReducer)
    assert both.uses_prior
    assert not both.learns
    assert joined([tome]) is tome
    assert joined([]) is None
    assert both.accepts(SeveralConfig.of([grounded.config, tome.config]))
    assert not both.accepts(tome.config)
