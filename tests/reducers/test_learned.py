"""The methods that learn where to prune: what they do in training and in eval mode, and that they do not collapse."""

import copy
import itertools

import pytest
import torch
from tiny_models import FAMILIES, NUM_LABELS, schedule, token_pair

from pumer_hf.reducers import build_reducer, parse_method, pruning
from pumer_hf.reducers.pruning import KeepLogits
from pumer_hf.tokens import Evidence

LEARNED = {
    "tip": {"method": "tip", "layers": [1, 2], "prune_ratio": 0.4},
    "dynamicvit": {"method": "dynamicvit", "layers": [1, 2], "prune_ratio": 0.4},
}
LOSSES = {"tip": {"sparsity_loss", "contrastive_loss", "continuity_loss"}, "dynamicvit": {"ratio_loss"}}


@pytest.mark.parametrize("method", LEARNED)
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_masked_token_is_as_good_as_a_removed_one(family, method, monkeypatch):
    model, inputs = family.model(LEARNED[method]), family.inputs()
    removed = model(**inputs)
    keeps = [trace.keep for trace in removed.reduction]
    kept = []  # as positions among the tokens that the model began with
    for keep in keeps:
        kept.append(keep if not kept else kept[-1].gather(1, keep))
    draws = iter(kept)

    def draw(log_probabilities, hard):
        chosen = torch.zeros_like(log_probabilities)
        return chosen.scatter(1, next(draws).unsqueeze(-1).expand(-1, -1, 2), 1.0)

    monkeypatch.setattr(pruning.F, "gumbel_softmax", draw)
    masked = model.train()(**inputs)
    torch.testing.assert_close(masked.logits, removed.logits, atol=1e-5, rtol=1e-5)
    for trace, other in zip(masked.reduction, removed.reduction, strict=True):
        assert trace.num_image == family.num_image
        assert torch.equal(trace.image_source >= 0, other.image_source >= 0)


@pytest.mark.parametrize("method", LEARNED)
@pytest.mark.parametrize(("keep_logit", "alive"), [(50.0, [0, 1, 2, 3, 4]), (-50.0, [0, -1, -1, -1, -1])])
def test_in_training_a_draw_decides_which_tokens_have_weight(method, keep_logit, alive):
    reducer, pair = build_reducer(parse_method({**LEARNED[method], "layers": [1, 3]}), 4).train(), token_pair(4)
    with torch.no_grad():
        for layer in reducer.modules():
            if isinstance(layer, KeepLogits):
                layer.bias.copy_(torch.tensor([keep_logit, 0.0]))
    reduced, trace = reducer(3, pair, Evidence(None, pair.text.states, pair.image.states))
    padded = [-1 if place > 2 else place for place in alive]
    assert trace.image_source.tolist() == [alive, padded]
    assert reduced.image.mask.tolist() == [[float(place >= 0) for place in places] for places in (alive, padded)]
    assert (trace.layer, trace.num_text, trace.num_image, trace.keep) == (3, 3, 5, None)
    assert trace.text_source is pair.text.source
    assert trace.saliency.flatten().tolist() == pytest.approx([float(keep_logit > 0)] * 10, abs=1e-6)
    assert not trace.saliency.requires_grad
    assert set(trace.losses) == LOSSES[method]


@pytest.mark.parametrize("method", LEARNED)
def test_a_draw_is_all_or_nothing(method):
    reducer, pair = build_reducer(parse_method(LEARNED[method]), 4).train(), token_pair(4)
    torch.manual_seed(0)
    masks = [reducer(1, pair, Evidence(None, pair.text.states, pair.image.states))[0].image.mask for _ in range(9)]
    assert set(torch.stack(masks)[:, 0, 1:].flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("method", LEARNED)
def test_the_task_tells_the_pruner_what_to_keep(method):
    model, inputs = FAMILIES["vilt"].model(LEARNED[method]).train(), FAMILIES["vilt"].inputs()
    torch.manual_seed(0)
    model(**inputs, labels=torch.rand(3, NUM_LABELS)).loss.backward()
    pruner = next(parameter for name, parameter in model.named_parameters() if "reducer" in name and "1" in name)
    assert pruner.grad.abs().sum() > 0  # of the task loss alone


TRAINED_QUICKLY = [("vilt", "tip", "bfloat16"), ("vilt", "dynamicvit", "float32")]
"""Each method and each precision once; the other cases are slow."""


@pytest.mark.parametrize(
    ("family", "method", "precision"),
    [
        pytest.param(
            FAMILIES[case[0]], *case[1:], id="-".join(case), marks=[] if case in TRAINED_QUICKLY else pytest.mark.slow
        )
        for case in itertools.product(FAMILIES, LEARNED, ["float32", "bfloat16"])
    ],
)
def test_training_collapses_neither_to_nothing_nor_to_everything(family, method, precision):
    model, inputs = family.model(LEARNED[method], initializer_range=0.1).train(), family.inputs()
    labels = torch.rand(3, NUM_LABELS, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.manual_seed(2)
    parts = []
    for step in range(200):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = model(**inputs, labels=labels)
            loss = outputs.loss + sum(term for trace in outputs.reduction for term in trace.losses.values()) / 2
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        if step >= 150:
            counts = [(trace.image_source[0] > 0).sum().item() for trace in outputs.reduction]
            parts.append([counts[0] / 16, counts[1] / 16])
    first, second = torch.tensor(parts).mean(dim=0).tolist()
    assert 0.4 < first < 0.8  # 0.6 is wanted
    assert 0.2 < second < 0.55  # 0.36
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_without_gradients_a_learned_method_must_be_in_eval_mode():
    model, inputs = FAMILIES["vilt"].model(LEARNED["tip"]).train(), FAMILIES["vilt"].inputs()
    with torch.no_grad(), pytest.raises(ValueError, match=r"use_reentrant=False.*model.eval\(\)"):
        model(**inputs)


def test_another_schedule_keeps_what_was_learned_if_its_layers_are_the_same(caplog):
    model = FAMILIES["vilt"].model(LEARNED["tip"])
    weights = copy.deepcopy(model.vilt.reducer.state_dict())
    model.set_reduction({**LEARNED["tip"], "prune_ratio": 0.1, "continuity_weight": 0.0})
    assert all(torch.equal(value, weights[name]) for name, value in model.vilt.reducer.state_dict().items())
    for change in ({"layers": [0, 1]}, {"pruner": "linear"}, {"contrastive_weight": 0.0}):
        model.set_reduction({**LEARNED["tip"], **change})
        assert any(
            name not in weights or value.shape != weights[name].shape or not torch.equal(value, weights[name])
            for name, value in model.vilt.reducer.state_dict().items()
        ) or len(weights) != len(model.vilt.reducer.state_dict())
        model.set_reduction(LEARNED["tip"])


@pytest.mark.parametrize("method", LEARNED)
def test_a_reducer_goes_on_where_the_same_parts_learn(method):
    schedule = LEARNED[method]
    reducer = build_reducer(parse_method(schedule), 8)

    def fits(**change):
        return reducer.accepts(parse_method({**schedule, **change}))

    assert fits()
    assert fits(prune_ratio=0.1)
    assert not fits(layers=[1, 3])
    assert not any(reducer.accepts(parse_method(other)) for name, other in LEARNED.items() if name != method)
    if method == "tip":
        assert fits(contrastive_weight=0.5)  # still one
        assert not fits(contrastive_weight=0)
        assert not fits(pruner="linear")
        without = build_reducer(parse_method({**schedule, "contrastive_weight": 0}), 8)
        assert without.accepts(without.config)
        assert not without.accepts(reducer.config)


def test_what_was_learned_comes_back():
    model = FAMILIES["meter"].model(LEARNED["tip"])
    weights = copy.deepcopy(model.state_dict())
    for between in (None, {**LEARNED["tip"], "layers": [0, 1]}, LEARNED["dynamicvit"]):
        model.set_reduction(between)
        model.set_reduction(LEARNED["tip"])
        assert model.state_dict().keys() == weights.keys()
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("pruner", ["mlp", "linear", "mean_head"])
def test_a_new_pruner_keeps_about_what_the_schedule_says(pruner):
    reduction = {"method": "tip", "layers": [1], "prune_ratio": 0.2, "pruner": pruner}
    config = {"initializer_range": 0.02}
    by_loading = FAMILIES["vilt"].model(reduction, **config)
    by_setting = FAMILIES["vilt"].model(None, **config)
    by_setting.set_reduction(reduction)
    for model in (by_loading, by_setting):
        (trace,) = model(**FAMILIES["vilt"].inputs()).reduction
        assert (trace.saliency[0] - 0.8).abs().max() < 0.1
        matrices = [value for name, value in model.state_dict().items() if ".reducer." in name and value.ndim > 1]
        assert all(value.std() < 0.1 for value in matrices)


def test_continuity_needs_a_grid():
    model = FAMILIES["vilt"].model(LEARNED["tip"], max_image_length=6).train()
    message = "continuity_weight: config.max_image_length leaves.* continuity_weight=0 or max_image_length=-1"
    with pytest.raises(ValueError, match=message):
        model(**FAMILIES["vilt"].inputs())
    FAMILIES["vilt"].model({**LEARNED["tip"], "continuity_weight": 0}, max_image_length=6).train()(
        **FAMILIES["vilt"].inputs()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pruner": "big"}, "reduction.pruner='big': .*mlp, linear"),
        ({"sparsity_weight": -1}, "reduction.sparsity_weight=-1: .*0"),
        ({"continuity_weight": float("inf")}, "reduction.continuity_weight=inf: "),
        ({"contrastive_weight": "1"}, "reduction.contrastive_weight='1': "),
        ({"method": "dynamicvit", "ratio_weight": True}, "reduction.ratio_weight=True: "),
        ({"method": "random", "seed": 1.5}, "reduction.seed=1.5: .*integer"),
    ],
)
def test_wrong_values(change, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        parse_method({**LEARNED["tip"], **change})


def test_schedules_of_the_contract_say_all():
    assert set(schedule("tip", "small")) == {
        *("method", "layers", "prune_ratio", "pruner"),
        *("sparsity_weight", "contrastive_weight", "continuity_weight"),
    }
