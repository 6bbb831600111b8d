"""The training of the scorer of lookahead, beside a frozen model."""

import copy

import pytest
import torch
from tiny_models import FAMILIES
from tiny_training import SCORER_PART as PART
from torch.nn import functional as F
from transformers import default_data_collator

from pumer_hf.models.observing import observe
from pumer_hf.training.losses import attention_loss
from pumer_hf.training.scorer import ScorerTrainer, ScorerTrainingArguments, add_scorer, lookahead_of


@pytest.fixture
def train_scorer(make_args):
    def train(base, rows, resume=None, target_layer=None, **arguments):
        values = {"learning_rate": 1e-2, "optim": "adamw_torch", **arguments}
        trainer = ScorerTrainer(
            base,
            target_layer=target_layer,
            args=make_args(ScorerTrainingArguments, **values),
            train_dataset=rows,
            eval_dataset=rows,
            data_collator=default_data_collator,
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return train


def loss_by_hand(model, rows, layer=1):
    """The divergence of the predicted attention, written without the package's loss."""
    batch = default_data_collator(rows)
    batch.pop("labels")
    seen = observe(model, batch, [layer])
    predicted = lookahead_of(model).log_attention(seen.pair)
    target = seen.attention[layer]
    return (target * (target.log() - predicted)).sum(dim=1).mean()


def test_only_the_scorer_learns(base, make_rows, train_scorer, weights_of):
    before = weights_of(base)
    trainer = train_scorer(base, make_rows(8))
    after = base.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {name for name in before if name.startswith("vilt.inputs.reducer.scorer.")}
    assert len(changed) > 0
    assert not base.training
    assert trainer.model is lookahead_of(base).scorer
    assert not any(p.requires_grad for name, p in base.named_parameters() if ".scorer." not in name)


def test_the_loss_is_the_divergence_to_the_attention(base, make_rows, train_scorer, training_logs):
    rows = make_rows(2)
    expected = loss_by_hand(base, rows)
    trainer = train_scorer(base, rows, max_steps=1)
    assert training_logs(trainer)[0]["loss"] == pytest.approx(expected.item(), rel=1e-3)


def test_the_loss_falls(base, make_rows, train_scorer):
    rows = make_rows(16)
    before = loss_by_hand(base, rows).item()
    trainer = train_scorer(base, rows, max_steps=60, per_device_train_batch_size=16)
    after = loss_by_hand(base, rows).item()
    assert after < before / 4
    assert trainer.evaluate()["eval_loss"] == pytest.approx(after, rel=1e-4)


def test_accumulation_equals_the_larger_batch(make_model, make_rows, train_scorer, weights_of):
    """With 5 rows the last batch of an epoch is shorter than the others."""
    rows, weights = make_rows(5), []
    for arguments in (
        {"per_device_train_batch_size": 5},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
    ):
        model = make_model(reduction=None).eval()
        torch.manual_seed(1)
        add_scorer(model, PART)
        train_scorer(model, rows, max_steps=2, optim="sgd", learning_rate=0.5, **arguments)
        weights.append(weights_of(lookahead_of(model)))
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], msg=name)


def test_a_resumed_training_is_that_of_one_go(base, make_rows, train_scorer, weights_of, tmp_path):
    other, rows = copy.deepcopy(base), make_rows(8)
    whole = {"max_steps": 4, "save_steps": 2, "save_strategy": "steps", "save_total_limit": None}
    train_scorer(base, rows, output_dir=str(tmp_path / "whole"), **whole)
    train_scorer(other, rows, resume=str(tmp_path / "whole" / "checkpoint-2"), output_dir=str(tmp_path / "b"), **whole)
    for name, value in weights_of(base).items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_base_of_half_precision_keeps_it(make_model, make_rows, train_scorer):
    model = make_model(reduction=None).to(torch.bfloat16).eval()
    add_scorer(model, PART)
    rows = [{**row, "pixel_values": row["pixel_values"].to(torch.bfloat16)} for row in make_rows(4)]
    trainer = train_scorer(model, rows)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert trainer.evaluate()["eval_loss"] > 0
    batch = default_data_collator(rows)
    batch.pop("labels")
    assert model(**batch).reduction[0].num_image < 17


def test_a_scorer_is_the_only_reduction(make_model):
    model = make_model()  # with pumer
    reducer = add_scorer(model, PART)
    assert [part.method for part in model.reduction.parts] == ["lookahead"]
    assert model.token_reduction.reducers == {"inputs": reducer}
    model.set_reduction(None)
    model.set_reduction({**PART, "keep_ratio": 0.5})
    assert torch.equal(lookahead_of(model).scorer.gate.weight, reducer.scorer.gate.weight)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_scorer(name):
    model = FAMILIES[name].model()
    add_scorer(model, PART)
    with torch.no_grad():
        outputs = model(**FAMILIES[name].inputs())
    assert outputs.reduction[0].num_image == 1 + 4


def test_what_is_missing_is_named(make_model, train_scorer, make_rows):
    with pytest.raises(ValueError, match="lookahead"):
        ScorerTrainer(make_model())
    with pytest.raises(ValueError, match="only lookahead"):
        add_scorer(make_model(), {"method": "grid", "site": "inputs", "keep_ratio": 0.5})
    model = make_model(reduction=None)
    add_scorer(model, {**PART, "target_layer": None})
    with pytest.raises(ValueError, match="target_layer"):
        ScorerTrainer(model)


# The loss


def test_padding_does_not_count():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 5, generator=generator).requires_grad_()
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    attention = torch.rand(2, 5, generator=generator) * mask
    attention = attention / attention.sum(dim=1, keepdim=True)
    loss = attention_loss(scores, attention, mask)
    parts = [
        F.kl_div(scores[row, :length].log_softmax(0), attention[row, :length], reduction="sum")
        for row, length in enumerate((5, 3))
    ]
    torch.testing.assert_close(loss, torch.stack(parts).mean())
    loss.backward()
    assert torch.isfinite(scores.grad).all()
    assert torch.equal(scores.grad[1, 3:], torch.zeros(2))


def test_the_right_scores_have_no_loss():
    attention = torch.tensor([[0.5, 0.3, 0.2]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert attention_loss(attention.log() + 3, attention, mask).item() == pytest.approx(0, abs=1e-6)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        attention_loss(torch.zeros(1, 3), torch.zeros(1, 2), torch.ones(1, 3, dtype=torch.bool))
