"""The reducers that stand in for a model's own: what they keep, and that they leave nothing behind."""

from dataclasses import replace

import pytest
import torch
from tiny import PUMER
from tiny_models import FAMILIES, NUM_TEXT

from pumer_hf.explain.prediction import run
from pumer_hf.measures.faithfulness import KeepAtRandom, KeepPruned, compared_reducers, faithfulness, reduced_by
from pumer_hf.reducers import TokenReducer
from pumer_hf.results import PERCENT, Metric

SCHEDULE = {**PUMER, "layers": [1, 2], "prune_ratio": 0.4, "image_merge_ratio": 0.2}


class WithoutChoice(TokenReducer):
    """A reducer whose traces have no `keep`, as that of a method that only merges."""

    uses_attention = True

    def __init__(self, reducer):
        super().__init__(reducer.config, 0)
        self.reducer = reducer

    def output_lengths(self, *args):
        return self.reducer.output_lengths(*args)

    def forward(self, *args):
        pair, trace = self.reducer(*args)
        return pair, replace(trace, keep=None)


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def model_and_inputs(family, **overrides):
    return family.model({**SCHEDULE, **overrides}), family.inputs()


def real_tokens(family, inputs):
    """Image tokens that are no padding, per example."""
    if "pixel_mask" not in inputs:
        return [set(range(17))] * 3
    mask = inputs["pixel_mask"][:, ::4, ::4].flatten(1)
    return [{0, *(1 + mask[example].nonzero().flatten()).tolist()} for example in range(3)]


def held(trace, example):
    return set((trace.image_source[example] >= 0).nonzero().flatten().tolist())


def test_the_inversion_keeps_exactly_what_the_first_layer_prunes(family):
    model, inputs = model_and_inputs(family)
    own = run(model, inputs).reduction[0]
    with reduced_by(model, {"layers": KeepPruned(model.base_model.reducer)}):
        (inverted,) = run(model, inputs).reduction
    assert (inverted.layer, inverted.num_text) == (1, NUM_TEXT)
    assert own.keep.shape[1] == 10  # of 17, the [CLS] included
    assert inverted.num_image == 8
    assert inverted.keep[:, 0].tolist() == [0, 0, 0]
    for example, real in enumerate(real_tokens(family, inputs)):
        kept = set(own.keep[example].tolist())
        assert set(inverted.keep[example].tolist()) == {0} | (set(range(17)) - kept)
        assert held(own, example) == kept & real  # merged or alone
        assert held(inverted, example) == {0} | (real - kept)


@pytest.mark.parametrize("name", ["random", "inverted", "random_inverted"])
def test_the_image_tower_merges_for_the_stand_ins_as_for_the_reducer(name):
    inputs = FAMILIES["meter"].inputs()
    model = FAMILIES["meter"].model([SCHEDULE, {"method": "tome", "site": "tower", "merge_ratio": 0.25}])
    own = run(model, inputs).reduction[2]  # behind the two layers of the tower
    with reduced_by(model, compared_reducers(model)[name]):
        stand_in = run(model, inputs).reduction[2]
    assert own.site == stand_in.site == "layers"
    assert own.saliency.shape == (3, 10)
    if name == "inverted":
        assert stand_in.keep.shape[1] == 1 + 10 - own.keep.shape[1]
    assert stand_in.saliency.shape == (3, 10)
    with reduced_by(model, compared_reducers(model)["unreduced"]):
        assert run(model, {**inputs, "output_hidden_states": True}).hidden_states[0].shape[1] == NUM_TEXT + 17


CHOICE = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.5, "rank": 8}
AT_INPUTS = {
    "alone": CHOICE,
    "diverse": {"method": "diverse", "site": "inputs", "num_keep": 8},
    "with layers behind": [CHOICE, SCHEDULE],
    "read by layers": [CHOICE, {**SCHEDULE, "saliency": ["lookahead", "mean_head"]}],
}


@pytest.mark.parametrize("reduction", AT_INPUTS.values(), ids=AT_INPUTS)
def test_the_choice_before_the_first_layer_is_drawn_and_inverted(family, reduction):
    model, inputs = family.model(reduction), family.inputs()
    traces = {}
    for name, reducers in compared_reducers(model).items():
        with reduced_by(model, reducers):
            traces[name] = run(model, inputs).reduction
    own, drawn, inverted = traces["reduced"], traces["random"], traces["inverted"]
    assert traces["unreduced"] == ()
    assert [(one.site, one.num_image) for one in drawn] == [(one.site, one.num_image) for one in own]
    assert not torch.equal(drawn[0].keep, own[0].keep)
    assert len(inverted) == len(traces["random_inverted"]) == 1
    assert (inverted[0].site, inverted[0].num_image) == ("inputs", 1 + 16 - 8)
    assert set(inverted[0].keep[0].tolist()) == {0} | (set(range(17)) - set(own[0].keep[0].tolist()))


def test_a_part_that_only_predicts_stays(family):
    predicted = {**SCHEDULE, "saliency": ["lookahead", "mean_head"]}
    model, inputs = family.model([{**CHOICE, "keep_ratio": 1.0}, predicted]), family.inputs()
    own = run(model, inputs).reduction[1]
    with reduced_by(model, compared_reducers(model)["inverted"]):
        prediction, inverted = run(model, inputs).reduction
    assert (prediction.site, prediction.num_image) == ("inputs", 17)
    assert (inverted.site, inverted.layer) == ("layers", 1)
    assert set(inverted.keep[0].tolist()) == {0} | (set(range(17)) - set(own.keep[0].tolist()))


def test_a_tower_that_merges_makes_no_choice():
    model = FAMILIES["meter"].model({"method": "tome", "site": "tower", "merge_ratio": 0.25})
    with pytest.raises(ValueError, match="config.reduction=.*no part of it chooses"):
        compared_reducers(model)


def test_padding_is_not_what_was_pruned():
    model, inputs = model_and_inputs(FAMILIES["vilt"])
    with reduced_by(model, {"layers": KeepPruned(model.base_model.reducer)}):
        (inverted,) = run(model, inputs).reduction
    assert [len(held(inverted, example)) for example in range(3)] == [8, 4, 1]  # of 17, 13 and 5, less the 10 kept


def test_the_last_layer_sees_only_what_the_inversion_keeps(family):
    model, inputs = model_and_inputs(family)
    with reduced_by(model, {"layers": KeepPruned(model.base_model.reducer)}):
        outputs = model(**inputs, output_hidden_states=True)
    assert outputs.hidden_states[-1].shape[1] == NUM_TEXT + 8


@pytest.mark.parametrize("name", ["unreduced", "random", "inverted", "random_inverted"])
def test_the_model_gets_its_reducer_back(family, name):
    model, inputs = model_and_inputs(family)
    own, before, names = model.base_model.reducer, model(**inputs).logits, list(model.state_dict())
    reducer = compared_reducers(model)[name]
    with reduced_by(model, reducer):
        assert not torch.allclose(model(**inputs).logits, before)
    with pytest.raises(RuntimeError, match="within"), reduced_by(model, reducer):
        raise RuntimeError("within")
    assert model.base_model.reducer is own
    assert torch.equal(model(**inputs).logits, before)
    assert list(model.state_dict()) == names
    assert model.config.reduction["layers"] == [1, 2]


def test_unreduced_is_the_model_without_reduction(family):
    model, inputs = model_and_inputs(family)
    with reduced_by(model, compared_reducers(model)["unreduced"]):
        without = run(model, inputs)
    model.set_reduction(None)
    assert without.reduction == ()
    assert torch.equal(without.logits, model(**inputs).logits)


def test_random_choices_keep_as_much_as_the_method(family):
    model, inputs = model_and_inputs(family)
    own = run(model, inputs).reduction
    with reduced_by(model, {"layers": KeepAtRandom(model.base_model.reducer, seed=0)}):
        drawn = run(model, inputs).reduction
    assert len(own) == len(drawn) == 2
    for a, b in zip(own, drawn, strict=True):
        assert (a.layer, a.num_text, a.num_image) == (b.layer, b.num_text, b.num_image)
        assert a.keep.shape == b.keep.shape
        assert b.keep[:, 0].tolist() == [0, 0, 0]
    assert torch.equal(own[0].text_source, drawn[0].text_source)
    assert not torch.equal(own[0].keep, drawn[0].keep)
    for example, real in enumerate(real_tokens(family, inputs)):
        assert len(held(drawn[0], example)) == min(10, len(real))  # padding goes first


def test_random_choices_repeat_with_their_seed_and_are_even():
    model, inputs = model_and_inputs(FAMILIES["meter"])

    def draws(seed, number=1):
        reducer = KeepAtRandom(model.base_model.reducer, seed)
        with reduced_by(model, {"layers": reducer}):
            return torch.cat([run(model, inputs).reduction[0].keep for _ in range(number)])

    assert torch.equal(draws(0, 2), draws(0, 2))
    assert not torch.equal(draws(0), draws(1))
    many = draws(0, 200)
    assert not torch.equal(many[:3], many[3:6])
    shares = torch.bincount(many.flatten(), minlength=17) / len(many)
    assert shares[0] == 1
    assert shares[1:].tolist() == pytest.approx([9 / 16] * 16, abs=0.08)


def test_the_inversion_of_random_choices_is_random_too(family):
    model, inputs = model_and_inputs(family)
    with reduced_by(model, compared_reducers(model, seed=3)["random_inverted"]):
        (inverted,) = run(model, inputs).reduction
    with reduced_by(model, compared_reducers(model, seed=3)["random"]):
        drawn = run(model, inputs).reduction[0]
    for example in range(3):
        kept = set(drawn.keep[example].tolist())
        assert set(inverted.keep[example].tolist()) == {0} | (set(range(17)) - kept)


@pytest.mark.parametrize("name", ["random", "inverted", "random_inverted"])
def test_a_method_that_makes_no_choice_is_an_error(family, name):
    model, inputs = model_and_inputs(family)
    model.base_model.reducer = WithoutChoice(model.base_model.reducer)
    with (
        pytest.raises(ValueError, match="reduction.method='pumer' .*layer 1"),
        reduced_by(model, compared_reducers(model)[name]),
    ):
        model(**inputs)


def test_a_first_layer_that_prunes_nothing_is_an_error(family):
    model, inputs = model_and_inputs(family, prune_ratio=[0.0, 0.4])
    with (
        pytest.raises(ValueError, match="layer 1, the first .*17 image tokens"),
        reduced_by(model, compared_reducers(model)["inverted"]),
    ):
        model(**inputs)


def test_models_that_cannot_be_compared(family):
    with pytest.raises(ValueError, match="reduces no tokens"):
        compared_reducers(family.model(None))
    with pytest.raises(ValueError, match="config.semantics='release'"):
        compared_reducers(family.model(SCHEDULE, semantics="release"))


def test_faithfulness_by_hand():
    percents = {"unreduced": 90.0, "reduced": 89.0, "random": 80.0, "inverted": 30.0, "random_inverted": 75.0}
    assert faithfulness({name: PERCENT.of(value) for name, value in percents.items()}) == {
        "sufficiency": Metric(1.0, "points", higher_is_better=False),
        "random_sufficiency": Metric(10.0, "points", higher_is_better=False),
        "comprehensiveness": Metric(60.0, "points"),
        "random_comprehensiveness": Metric(15.0, "points"),
    }
