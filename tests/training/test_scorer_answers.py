"""The second stage of a scorer: it learns to keep the answers of the unreduced model."""

import pytest
import torch
from transformers import default_data_collator

from pumer_hf.models.observing import observe
from pumer_hf.reducers.choice import STEP, Draw, choose_best, choose_dpp
from pumer_hf.training.losses import reward_loss
from pumer_hf.training.scorer import ScorerTrainingArguments, lookahead_of
from pumer_hf.training.scorer_answers import NUM_DRAWS, AnswersTrainer


@pytest.fixture
def trainer(base, make_rows, make_args):
    def make(**arguments):
        values = {"learning_rate": 1e-2, "optim": "adamw_torch", "per_device_train_batch_size": 8, **arguments}
        args = make_args(ScorerTrainingArguments, **values)
        return AnswersTrainer(base, args=args, train_dataset=make_rows(8), data_collator=default_data_collator)

    return make


def predicted(model, rows):
    batch = default_data_collator(rows)
    batch.pop("labels")
    return lookahead_of(model).log_attention(observe(model, batch, []).pair).exp()


def test_draws_are_as_frequent_as_their_gain():
    torch.manual_seed(0)
    gain = torch.tensor([1.0, 2.0, 5.0]).log().expand(6000, -1)
    drawn = Draw()(gain, torch.zeros(6000, 3)).flatten()
    shares = torch.bincount(drawn, minlength=3) / 6000
    torch.testing.assert_close(shares, torch.tensor([0.125, 0.25, 0.625]), atol=0.03, rtol=0)


def test_the_log_probability_of_a_draw_is_that_of_its_steps():
    torch.manual_seed(0)
    quality = torch.tensor([[0.1, 0.2, 0.7]], requires_grad=True)
    draw = Draw()
    chosen = choose_best(torch.ones(1, 3, 2), quality, torch.ones(1, 3, dtype=torch.bool), 2, draw)
    first, second = chosen[0].tolist()
    left = 1 - quality[0, first]
    expected = (quality[0, first] * quality[0, second] / left).log()
    torch.testing.assert_close(draw.log_probability[0], expected, atol=1e-3, rtol=1e-3)
    draw.log_probability.sum().backward()
    assert quality.grad.isfinite().all() and quality.grad.abs().sum() > 0


def test_draws_take_no_padding_and_no_token_twice():
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, True, True, False, False]]).expand(50, -1)
    chosen = choose_dpp(torch.randn(50, 6, 4), torch.rand(50, 6) + STEP, mask, 4, Draw())
    assert torch.equal(chosen.sort(dim=1).values, torch.arange(4).expand(50, -1))


def test_the_loss_makes_better_draws_more_probable():
    log_probability = torch.zeros(6, requires_grad=True)
    reward_loss(log_probability, torch.tensor([1, 0, 0, 1, 1, 1]), num_draws=3).backward()
    gradient = log_probability.grad
    assert gradient[0] < 0 < gradient[1] == gradient[2]
    assert (gradient[3:] == 0).all()  # all draws of this example are equally good


@pytest.fixture
def kept_by_patch_3(monkeypatch):
    """As if the answer were kept by the choices that have patch 3, and by no other."""

    def base_answers(trainer, inputs, reducers):
        if not reducers:
            return torch.ones(len(inputs["input_ids"]), 1, dtype=torch.long)
        (drawn,) = reducers.values()
        (chosen,) = drawn.chosen.values()
        assert len(chosen) == 8
        return (chosen == 3).any(dim=1, keepdim=True).long()

    monkeypatch.setattr(AnswersTrainer, "base_answers", base_answers)


def test_only_the_scorer_learns(base, trainer, weights_of, kept_by_patch_3):
    before = weights_of(base)
    trainer(max_steps=8).train()
    changed = {name for name, value in before.items() if not torch.equal(value, base.state_dict()[name])}
    assert {name.rpartition(".scorer.")[0] for name in changed} == {"vilt.inputs.reducer"}
    assert not base.training


def test_what_keeps_the_answer_becomes_more_probable(base, trainer, make_rows, kept_by_patch_3):
    rows = make_rows(8)
    before = predicted(base, rows)[:, 3]
    trainer(max_steps=60).train()
    after = predicted(base, rows)[:, 3]
    assert after.mean() > 5 * before.mean()


def test_the_budgets_take_turns(base, trainer, monkeypatch):
    kept, real = [], AnswersTrainer.base_answers

    def base_answers(trainer, inputs, reducers):
        for drawn in reducers.values():
            kept.extend(chosen.shape[1] for chosen in drawn.chosen.values())
        return real(trainer, inputs, reducers)

    monkeypatch.setattr(AnswersTrainer, "base_answers", base_answers)
    trainer(max_steps=4).train()
    patches = predicted(base, trainer().train_dataset).shape[1]
    numbers = [max(round(patches / 9), 1), max(round(patches * 2 / 9), 1)] * 2
    assert kept == [number for number in numbers for _ in range(NUM_DRAWS)]


def test_the_stage_has_a_folder_and_a_rate_of_its_own(make_args):
    args = make_args(ScorerTrainingArguments, answer_steps=7, answer_learning_rate=0.5, answer_batch_size=3)
    again = args.for_answers()
    assert again.output_dir.endswith("answers")
    assert (again.max_steps, again.learning_rate, again.per_device_train_batch_size) == (7, 0.5, 3)


def test_a_negative_number_of_steps_is_an_error(make_args):
    with pytest.raises(ValueError, match="answer_steps=-1"):
        make_args(ScorerTrainingArguments, answer_steps=-1)
