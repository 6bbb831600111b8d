"""`tip` before a decoder: its scorer learns through the attention of all layers, and cuts in eval mode."""

import copy

import pytest
import torch
from models.decoders.oracle import NAMES, stock
from models.decoders.tiny import IMAGE, ONE, SPREAD, TWO, tiny_inputs, tiny_model
from torch.nn import functional as F
from training.decoder_training import ROWS, Collator

from pumer_hf import DistillationTrainer, reduced
from pumer_hf.models.families import DECODERS
from pumer_hf.models.scorers import save_scorer
from pumer_hf.reducers import pruning
from pumer_hf.training.scorer import add_scorer

TIP = {"method": "tip", "site": "inputs", "keep_ratio": 0.5, "rank": 8}
LATER = {"method": "tip", "layers": [0], "prune_ratio": 0.5, "continuity_weight": 0.0, "contrastive_weight": 0.0}
PROMPTS = [[5, 6, ONE, 7, 8, 10, 11], [8, ONE, 9, 9, TWO, 3, 11, 12, 13]]
NUM_ANSWER = 2
LEARNING = [name for name in NAMES if not DECODERS[name].no_layers]
STATIC = [name for name in NAMES if DECODERS[name].no_layers]
each_family = pytest.mark.parametrize("name", LEARNING)


def labelled(name, **kwargs):
    """Inputs with labels on the last words, which do not follow an image."""
    inputs = tiny_inputs(stock(name), name, PROMPTS, **kwargs)
    left = inputs["attention_mask"].flip(1).cumsum(dim=1).flip(1)
    answer = (inputs["attention_mask"] > 0) & (left <= NUM_ANSWER)
    inputs["labels"] = inputs["input_ids"].masked_fill(~answer, -100)
    if name == "paligemma":
        inputs["token_type_ids"] = answer.long()
    return inputs


def student(name="llava", reduction=TIP, **kwargs):
    model = tiny_model(name, ours=True, reduction=reduction, **kwargs)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "reducer." in key and parameter.ndim > 1:
                parameter.div_(SPREAD)  # else some probabilities are 0 or 1 in float32, and nothing learns
    return model


def draw_the_best(log_probabilities, hard):
    """A straight-through draw that takes the half with the highest scores."""
    scores = log_probabilities[:, 1:, 0]
    best = scores.argsort(dim=1, descending=True, stable=True)[:, : round(0.5 * scores.shape[1])]
    keep = torch.zeros_like(scores).scatter(1, best, 1.0)
    drawn = F.pad(torch.stack([keep, 1 - keep], dim=-1), (0, 0, 1, 0))
    return drawn + log_probabilities - log_probabilities.detach()


def learned(model, inputs):
    """The loss with what the method adds, and the gradients; the same at every call."""
    model.zero_grad()
    torch.manual_seed(6)
    outputs = model(**inputs, use_cache=False)
    loss = outputs.loss + sum(value for trace in outputs.reduction for value in trace.losses.values())
    loss.backward()
    return loss, {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("pad_left", [False, True], ids=["right", "left"])
@each_family
def test_a_masked_token_is_as_good_as_one_that_is_cut(name, pad_left, monkeypatch):
    model, inputs = student(name), labelled(name, pad_left=pad_left)
    cut = model(**inputs)
    monkeypatch.setattr(pruning.F, "gumbel_softmax", draw_the_best)
    masked = model.train()(**inputs)
    torch.testing.assert_close(masked.loss, cut.loss, atol=1e-5, rtol=1e-5)
    assert masked.logits.shape[1] == inputs["input_ids"].shape[1] > cut.logits.shape[1]
    for ours, theirs in zip(masked.reduction, cut.reduction, strict=True):
        assert torch.equal(ours.source >= 0, theirs.source >= 0)
        assert len(ours.kept) == len(ours.columns) == 2 * len(theirs.kept)
    monkeypatch.setattr(pruning.F, "gumbel_softmax", lambda found, hard: draw_the_best(found, hard).detach())
    torch.testing.assert_close(model(**inputs).loss, cut.loss, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(pruning.F, "gumbel_softmax", lambda found, hard: draw_the_best(-found, hard))
    assert (model(**inputs).loss - cut.loss).abs() > 1e-3  # others than the best


@each_family
def test_the_task_tells_the_scorer_what_to_keep(name):
    model = student(name, {**TIP, "sparsity_weight": 0.0}).train()
    _, found = learned(model, labelled(name))
    assert found.keys() == {key for key, _ in model.named_parameters() if key in found}
    mine = {key: value for key, value in found.items() if "reducer.scorer" in key}
    assert len(mine) == len(list(model.reducer.parameters()))
    assert all(value.isfinite().all() for value in found.values())
    assert sum(bool(value.abs().sum() > 0) for value in mine.values()) >= len(mine) - 1  # not the last bias


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@each_family
def test_checkpointing_changes_no_gradient(name):
    model, inputs = student(name).train(), labelled(name)
    loss, expected = learned(model, inputs)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    again, found = learned(model, inputs)
    torch.testing.assert_close(again, loss)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-6, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
def test_gradients_that_would_be_lost_are_an_error():
    model = student().train()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    with pytest.raises(ValueError, match="use_reentrant.*False"):
        learned(model, labelled("llava"))


@pytest.mark.parametrize("name", STATIC)
def test_where_no_mask_reaches_the_layers_only_a_frozen_scorer_works(name):
    model, inputs = student(name), labelled(name)
    expected = model(**inputs).loss
    with pytest.raises(ValueError, match="reduction.method='tip': .*freeze it"):
        model.train()(**inputs)
    model.reducer.requires_grad_(False)
    assert torch.isfinite(model(**inputs).loss)
    torch.testing.assert_close(model.eval()(**inputs).loss, expected)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_a_frozen_scorer_cuts_in_training_too(name):
    model, inputs = student(name), labelled(name)
    expected = model(**inputs)
    model.reducer.requires_grad_(False)
    found = model.train()(**inputs)
    assert found.logits.shape == expected.logits.shape
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-5, rtol=1e-5)
    assert not any(trace.losses for trace in found.reduction)


@each_family
def test_half_precision_learns(name):
    model, inputs = student(name).to(torch.bfloat16).train(), labelled(name)
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    loss, found = learned(model, inputs)
    assert loss.isfinite()
    assert all(value.isfinite().all() for value in found.values())


@each_family
def test_at_both_sites(name):
    layer = DECODERS[name].first_layer(stock(name).config)
    model, inputs = student(name, [TIP, {**LATER, "layers": [layer]}]), labelled(name)
    left = {}
    for trace in model(**inputs).reduction:
        left[trace.layer, trace.row] = left.get((trace.layer, trace.row), 0) + len(trace.kept)
    number = (inputs["input_ids"] == IMAGE).sum(dim=1).tolist()
    assert left == {
        **{(None, row): total // 2 for row, total in enumerate(number)},
        **{(layer, row): total // 4 for row, total in enumerate(number)},
    }
    _, found = learned(model.train(), inputs)
    assert all(value.isfinite().all() for value in found.values())
    for part in ("reducer.scorer.image", f"layers_site.reducer.pruners.{layer}"):
        assert any(part in key and value.abs().sum() > 0 for key, value in found.items())
    answers = model.eval().generate(**tiny_inputs(stock(name), name, PROMPTS), max_new_tokens=3, do_sample=False)
    assert answers.shape[1] == inputs["input_ids"].shape[1] + 3


@pytest.fixture(params=["llava", "qwen2_5_vl"])
def saved(request, tmp_path):
    """A family, the folder of a stock model, and that of a scorer of lookahead behind it."""
    name = request.param
    stock(name).save_pretrained(tmp_path / "base")
    model = DECODERS[name].model_class.from_pretrained(tmp_path / "base")
    torch.manual_seed(3)
    add_scorer(model, {**TIP, "method": "lookahead", "form": "words", "target_layer": 1})
    save_scorer(model, tmp_path / "scorer", trained_on="noise", steps=7)
    return name, str(tmp_path / "base"), str(tmp_path / "scorer"), copy.deepcopy(model.reducer.state_dict())


def test_it_begins_from_the_weights_of_lookahead_and_is_saved(saved, tmp_path):
    name, base, scorer, expected = saved
    row, inputs = DECODERS[name], tiny_inputs(stock(name), name, PROMPTS)
    part = {"method": "tip", "site": "inputs", "keep_ratio": 0.5, "weights": scorer}
    by_loading = row.model_class.from_pretrained(base, reduction=part)
    by_setting = row.model_class.from_pretrained(base)
    by_setting.set_reduction(part)
    for model in (by_loading, by_setting):
        assert all(torch.equal(value, expected[key]) for key, value in model.reducer.state_dict().items())
        assert model.config.reduction == {
            key: value for key, value in {**part, **dict.fromkeys(("weights",))}.items() if value is not None
        } | {"form": "words", "rank": 8, "p": 0.25, "sparsity_weight": 1.0}
    with torch.no_grad():
        for value in by_loading.reducer.parameters():
            value.add_(0.1)
    by_loading.save_pretrained(tmp_path / "whole")
    again, report = row.model_class.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    given = {"max_new_tokens": 3, "do_sample": False}
    assert torch.equal(again.generate(**inputs, **given), by_loading.generate(**inputs, **given))
    assert again.reduction == by_loading.reduction


def test_what_has_first_values_of_its_own_gets_them_when_a_checkpoint_lacks_it(saved):
    name, base, _, _ = saved
    model = DECODERS[name].model_class.from_pretrained(base, reduction=LATER)
    reducer = model.layers_site.reducer
    assert reducer.pruners["0"][-1].bias.tolist() == [0.0, 0.0]  # the odds of a half


def test_in_a_stock_model_it_cannot_learn(saved):
    name, _, scorer, _ = saved
    part = {"method": "tip", "site": "inputs", "keep_ratio": 0.5, "weights": scorer}
    with pytest.raises(ValueError, match="'tip' learns inside the model: .*PuMer"), reduced(stock(name), part):
        pass


@pytest.mark.parametrize("reduction", [TIP, [TIP, LATER]], ids=["inputs", "both"])
def test_it_learns_by_distillation(reduction, make_args):
    torch.manual_seed(0)
    model = student(reduction=reduction, seed=1)
    before = copy.deepcopy(model.state_dict())
    trainer = DistillationTrainer(
        model,
        teacher=tiny_model("llava"),
        args=make_args(remove_unused_columns=False, max_steps=2, per_device_train_batch_size=3, logging_steps=1),
        train_dataset=ROWS,
        data_collator=Collator("llava"),
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "sparsity_loss" in entry]
    assert len(logged) == 2
    assert all(entry["distillation_loss"] > 0 and entry["sparsity_loss"] > 0 for entry in logged)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {key for key in before if "reducer.scorer.image" in key} <= changed
