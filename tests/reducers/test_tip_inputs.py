"""`tip` before the first layer: the threshold of its draw, what it does in training and in eval mode, its weights."""

import copy
import logging
from dataclasses import replace

import pytest
import torch
from tiny_models import FAMILIES, NUM_LABELS, gradients, token_pair

from pumer_hf.models.scorers import save_scorer
from pumer_hf.reducers import build_reducer, parse_method, pruning
from pumer_hf.reducers.tip_inputs import TipInputsReducer, keep_probabilities
from pumer_hf.tokens import Evidence, TokenPair, Tokens
from pumer_hf.training.scorer import add_scorer

TIP = {"method": "tip", "site": "inputs", "keep_ratio": 0.5, "rank": 8}
LOOKAHEAD = {**TIP, "method": "lookahead"}
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def pair_of(num_patches=16, batch=3, width=8, num_real=None):
    generator = torch.Generator().manual_seed(num_patches)

    def tokens(length, real=None):
        mask = None if real is None else torch.arange(length) < torch.tensor(real).unsqueeze(1)
        return Tokens.initial(torch.randn(batch, length, width, generator=generator), mask)

    return TokenPair(tokens(5), tokens(1 + num_patches, num_real))


def reduce_by(reducer, pair):
    return reducer(0, pair, Evidence(None, pair.text.states, pair.image.states))


# The probabilities


@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0, 30.0])
@pytest.mark.parametrize("wanted", [1, 3, 8, 15])
def test_the_probabilities_add_up_to_what_stays(spread, wanted):
    scores = spread * torch.randn(2, 16, generator=torch.Generator().manual_seed(0)) + 100
    numbers = torch.tensor([[wanted], [min(wanted, 6)]])
    mask = torch.arange(16) < torch.tensor([[16], [7]])
    scores = scores.masked_fill(~mask, -torch.inf)
    keep, drop = keep_probabilities(scores, mask, numbers).exp().unbind(-1)
    torch.testing.assert_close((keep * mask).sum(dim=1), numbers.squeeze(1).float(), atol=2e-3, rtol=1e-4)
    torch.testing.assert_close(keep + drop, torch.ones_like(keep))


def test_where_all_stay_nothing_is_dropped():
    scores = torch.tensor([[1.0, -3.0, 5.0], [2.0, 2.0, 2.0]], requires_grad=True)
    found = keep_probabilities(scores, torch.ones(2, 3, dtype=torch.bool), torch.tensor([[3], [3]]))
    assert found[..., 0].exp().min() > 0.9999
    found.sum().backward()
    assert scores.grad.isfinite().all()


def test_a_higher_score_is_a_higher_probability():
    scores = torch.tensor([[0.0, 0.5, 1.0, 2.0]])
    keep = keep_probabilities(scores, torch.ones(1, 4, dtype=torch.bool), torch.tensor([[2]]))[0, :, 0].exp()
    assert keep.diff().min() > 0.05
    odds = (keep / (1 - keep)).log()
    torch.testing.assert_close(odds.diff(), scores[0].diff(), atol=1e-4, rtol=1e-4)


# In training


def test_in_training_all_patches_stay_and_some_have_no_weight():
    reducer, pair = build_reducer(parse_method(TIP), 8).train(), pair_of()
    torch.manual_seed(0)
    reduced, trace = reduce_by(reducer, pair)
    assert reduced.image.states is pair.image.states
    assert set(reduced.image.weight.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(reduced.image.mask, reduced.image.weight > 0)
    assert reduced.image.mask[:, 0].all()
    assert torch.equal(trace.image_source >= 0, reduced.image.mask)
    assert (trace.site, trace.num_image, trace.keep) == ("inputs", 17, None)
    assert not trace.saliency.requires_grad
    assert set(trace.losses) == {"sparsity_loss"}


def test_as_many_are_drawn_as_the_schedule_says():
    reducer, pair = build_reducer(parse_method({**TIP, "keep_ratio": 0.25}), 8).train(), pair_of()
    torch.manual_seed(0)
    counts = torch.stack([reduce_by(reducer, pair)[0].image.weight[:, 1:].sum(dim=1) for _ in range(200)])
    assert (counts.mean(dim=0) - 4).abs().max() < 0.5
    assert counts.std(dim=0).min() > 0.5


def test_the_sparsity_loss_is_that_of_the_share_of_each_image():
    reducer = build_reducer(
        parse_method({**TIP, "num_keep": 4, "keep_ratio": None, "sparsity_weight": 3.0}), 8
    ).train()
    pair = pair_of(num_real=[17, 9, 3])  # of 16, 8 and 2 patches
    _, trace = reduce_by(reducer, pair)
    keep = trace.saliency[:, 1:]
    squares = [(keep[0] - 0.25) ** 2, (keep[1, :8] - 0.5) ** 2, (keep[2, :2] - 1.0) ** 2]
    torch.testing.assert_close(trace.losses["sparsity_loss"], 3 * torch.cat(squares).mean())
    assert keep[2, :2].min() > 0.999


def test_padding_changes_nothing():
    reducer = build_reducer(parse_method({**TIP, "num_keep": 4, "keep_ratio": None}), 8).train()
    pair = pair_of(num_real=[17, 9, 3])
    loud = torch.where(pair.image.mask.unsqueeze(-1), pair.image.states, 100.0)
    results = []
    for image in (pair.image, replace(pair.image, states=loud)):
        torch.manual_seed(1)
        reduced, trace = reduce_by(reducer, replace(pair, image=image))
        assert not (reduced.image.mask & ~pair.image.mask).any()
        results.append((reduced.image.weight, trace.image_source, trace.losses))
    torch.testing.assert_close(*results)


@each_family
def test_a_masked_patch_is_as_good_as_a_removed_one(family, monkeypatch):
    model, inputs = family.model(TIP), family.inputs()
    removed = model(**inputs)

    def draw(log_probabilities, hard):
        kept = removed.reduction[0].keep.unsqueeze(-1).expand(-1, -1, 2)
        return torch.zeros_like(log_probabilities).scatter(1, kept, 1.0)

    monkeypatch.setattr(pruning.F, "gumbel_softmax", draw)
    masked = model.train()(**inputs)
    torch.testing.assert_close(masked.logits, removed.logits, atol=1e-5, rtol=1e-5)
    assert masked.reduction[0].num_image == family.num_image
    assert removed.reduction[0].num_image == 9
    assert torch.equal(masked.reduction[0].image_source >= 0, removed.reduction[0].image_source >= 0)


@each_family
def test_the_task_tells_the_scorer_what_to_keep(family):
    model = family.model({**TIP, "sparsity_weight": 0.0}).train()
    torch.manual_seed(0)
    model(**family.inputs(), labels=torch.rand(3, NUM_LABELS)).loss.backward()
    found = [value.grad for value in model.base_model.inputs.reducer.parameters()]
    assert all(gradient.isfinite().all() for gradient in found)
    assert all(gradient.abs().sum() > 0 for gradient in found[:4])


@each_family
def test_a_frozen_scorer_cuts_in_training_too(family):
    model, inputs = family.model(TIP), family.inputs()
    model.base_model.inputs.requires_grad_(False)
    expected = model(**inputs)
    found = model.train()(**inputs)
    torch.testing.assert_close(found.logits, expected.logits)
    assert found.reduction[0].num_image == 9
    assert not found.reduction[0].losses


def test_in_training_it_needs_gradients():
    model = FAMILIES["vilt"].model(TIP).train()
    with torch.no_grad(), pytest.raises(ValueError, match=r"'tip' learns.*use_reentrant=False.*model.eval\(\)"):
        model(**FAMILIES["vilt"].inputs())


def test_with_the_pruners_of_later_layers():
    later = {"method": "tip", "layers": [2], "prune_ratio": 0.5}
    for family in FAMILIES.values():
        model, inputs = family.model([TIP, later]), family.inputs()
        assert [trace.num_image for trace in model(**inputs).reduction] == [9, 5]
        found = gradients(model.train(), inputs)
        assert all(value.isfinite().all() for value in found.values())
        for part in ("inputs.reducer.scorer.image", ".reducer.pruners.2"):
            assert any(part in name and value.abs().sum() > 0 for name, value in found.items())
        torch.manual_seed(0)
        first, second = model(**inputs).reduction
        assert not ((second.image_source >= 0) & (first.image_source < 0)).any()


# In eval mode


@pytest.mark.parametrize("diversity", [None, "dpp"])
def test_in_eval_mode_the_choice_is_that_of_lookahead_with_the_same_scorer(diversity):
    tip, lookahead = (
        build_reducer(parse_method({**part, "diversity": diversity}), 8).eval() for part in (TIP, LOOKAHEAD)
    )
    assert isinstance(tip, TipInputsReducer)
    tip.load_state_dict(lookahead.state_dict())
    (mine, trace), (other, expected) = (reduce_by(reducer, pair_of()) for reducer in (tip, lookahead))
    assert torch.equal(trace.keep, expected.keep)
    assert torch.equal(mine.image.states, other.image.states)
    assert mine.image.weight is None
    assert mine.image.prior is None


def test_it_reads_the_words():
    reducer, pair = build_reducer(parse_method(TIP), 4).eval(), token_pair(4)
    other = replace(pair, text=replace(pair.text, states=pair.text.states.flip(-1)))
    assert not torch.allclose(reducer.log_attention(pair)[0], reducer.log_attention(other)[0])


# Its weights


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request, tmp_path_factory):
    """A family, the folder of a model, and that of a scorer of lookahead behind it."""
    family, folder = FAMILIES[request.param], tmp_path_factory.mktemp(request.param)
    family.model().save_pretrained(folder / "base")
    model = family.model_class.from_pretrained(folder / "base")
    torch.manual_seed(3)
    add_scorer(model, {**LOOKAHEAD, "form": "words", "target_layer": 2})
    save_scorer(model, folder / "scorer", trained_on="noise", steps=7)
    return family, str(folder / "base"), str(folder / "scorer"), scorer_of(model)


def scorer_of(model):
    return copy.deepcopy(model.base_model.inputs.reducer.state_dict())


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def begun(scorer, **fields):
    return {"method": "tip", "site": "inputs", "keep_ratio": 0.5, "weights": scorer, **fields}


def test_it_begins_from_the_weights_of_lookahead(saved, tmp_path):
    family, base, scorer, expected = saved
    by_loading = family.model_class.from_pretrained(base, reduction=begun(scorer))
    by_setting = family.model_class.from_pretrained(base)
    by_setting.set_reduction(begun(scorer))
    for model in (by_loading, by_setting):
        assert_same(scorer_of(model), expected)
        part = model.config.reduction
        assert (part["method"], part["form"], part["rank"]) == ("tip", "words", 8)
        assert "weights" not in part
        assert all(value.requires_grad for value in model.base_model.inputs.reducer.parameters())
    with torch.no_grad():  # as if it had learned
        for value in by_loading.base_model.inputs.reducer.parameters():
            value.add_(0.1)
    by_loading.save_pretrained(tmp_path)
    again, report = family.model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert_same(scorer_of(again), scorer_of(by_loading))
    assert torch.equal(again(**family.inputs()).logits, by_loading(**family.inputs()).logits)
    fewer = family.model_class.from_pretrained(tmp_path, reduction={**TIP, "rank": 64, "keep_ratio": 0.25})
    assert_same(scorer_of(fewer), scorer_of(by_loading))


def test_it_begins_from_the_scorer_that_the_model_has(saved, caplog):
    family, base, scorer, expected = saved
    model = family.model_class.from_pretrained(base, reduction=begun(scorer, method="lookahead"))
    lookahead = model.base_model.inputs.reducer
    with caplog.at_level(logging.WARNING, logger="pumer_hf"):
        model.set_reduction({"method": "tip", "site": "inputs", "keep_ratio": 0.5})
    assert_same(scorer_of(model), expected)
    with torch.no_grad():
        for value in model.base_model.inputs.reducer.parameters():
            value.add_(0.1)
    learned = scorer_of(model)
    model.set_reduction({"method": "lookahead", "site": "inputs", "keep_ratio": 0.5})
    assert model.base_model.inputs.reducer is lookahead
    assert_same(scorer_of(model), expected)
    model.set_reduction({"method": "tip", "site": "inputs", "keep_ratio": 0.5})
    assert_same(scorer_of(model), learned)


def test_without_a_scorer_it_begins_at_random():
    model = FAMILIES["vilt"].model(TIP)
    weights = scorer_of(model)
    model.set_reduction({**TIP, "keep_ratio": 0.25})
    assert_same(scorer_of(model), weights)
    model.set_reduction({**TIP, "form": "bag"})
    assert scorer_of(model).keys() < weights.keys()
    model.set_reduction(None)
    model.set_reduction(TIP)
    assert_same(scorer_of(model), weights)


def test_a_scorer_of_another_model_is_refused(saved):
    family, _, scorer, _ = saved
    model = family.model(seed=1)
    with pytest.raises(ValueError, match="reduction.weights=.*other weights"):
        model.set_reduction(begun(scorer))
    assert model.config.reduction is None
    with pytest.raises(ValueError, match="made from a config alone has random weights"):
        family.model(begun(scorer))


def test_a_scorer_of_another_form_is_refused(saved):
    family, base, scorer, _ = saved
    with pytest.raises(ValueError, match="reduction.form='bag': the scorer of .* has form='words'"):
        family.model_class.from_pretrained(base, reduction=begun(scorer, form="bag"))


def test_a_reducer_goes_on_where_the_same_scorer_learns():
    reducer = build_reducer(parse_method(TIP), 8)

    def fits(**change):
        return reducer.accepts(parse_method({**TIP, **change}))

    assert fits(keep_ratio=0.1, sparsity_weight=0.0, diversity="dpp", p=1.0)
    assert not fits(form="bag")
    assert not fits(rank=4)
    assert not fits(method="lookahead")
    assert not reducer.accepts(parse_method({"method": "tip", "layers": [1], "prune_ratio": 0.5}))
    assert not build_reducer(parse_method(LOOKAHEAD), 8).accepts(parse_method(TIP))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "big"}, "reduction.form='big': .*gated"),
        ({"rank": 0}, "reduction.rank=0: "),
        ({"diversity": "all"}, "reduction.diversity='all': .*dpp"),
        ({"p": -1}, "reduction.p=-1: "),
        ({"sparsity_weight": -1}, "reduction.sparsity_weight=-1: .*0"),
        ({"merge_rest": True}, "reduction.merge_rest=True: .*'tip'.*leave it out"),
        ({"num_keep": 3}, "reduction.keep_ratio=0.5 and num_keep=3: give one"),
        ({"layers": [1]}, "reduction.layers=.*site 'inputs' lies before"),
        ({"prune_ratio": 0.5}, "reduction.prune_ratio is not a field of method 'tip'"),
        ({"contrastive_weight": 1.0}, "reduction.contrastive_weight is not a field of method 'tip'"),
        ({"target_layer": 1}, "reduction.target_layer is not a field of method 'tip'"),
    ],
)
def test_wrong_values(change, message):
    with pytest.raises(ValueError, match=message):
        parse_method({**TIP, **change})
