"""`ElasticCallback`: one student is trained for a range of speeds."""

import json
from pathlib import Path

import pytest
import torch
from training.decoder_training import ROWS, SCHEDULES, Collator, student
from transformers import TrainerCallback

from pumer_hf import DistillationTrainer, ElasticCallback, TokenReductionCallback
from pumer_hf.models.reducible import reduction_of

TIP = {"method": "tip", "layers": [0], "prune_ratio": 0.2}


class Watch(TrainerCallback):
    """Keeps the part of layer 0's prune ratio that each forward uses, by mode."""

    def __init__(self, full=0.2):
        self.training, self.evaluation, self.full = [], [], full

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        def note(module, *_):
            part = reduction_of(model).schedule.at("layers").ratio("prune_ratio", 0) / self.full
            (self.training if module.training else self.evaluation).append(part)

        model.register_forward_pre_hook(note)


def losses_of(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_three_steps_have_the_least_factor_the_most_and_one_between():
    callback = ElasticCallback([0.2, 0.8])
    factors = [callback.factor(step, seed=3) for step in range(300)]
    assert set(factors[0::3]) == {0.2}
    assert set(factors[1::3]) == {0.8}
    drawn = torch.tensor(factors[2::3])
    assert drawn.min() > 0.2
    assert drawn.max() < 0.8
    quantiles = drawn.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    assert quantiles == pytest.approx([0.35, 0.5, 0.65], abs=0.08)  # uniform


def test_a_factor_depends_on_the_seed_and_the_step_alone():
    callback = ElasticCallback([0.0, 1.0])
    forwards = [callback.factor(step, seed=1) for step in range(9)]
    assert [ElasticCallback([0.0, 1.0]).factor(step, seed=1) for step in range(8, -1, -1)] == forwards[::-1]
    assert callback.factor(2, seed=2) not in forwards


@pytest.mark.parametrize("reduction", [None, TIP], ids=["pumer", "tip"])
def test_the_batches_of_a_step_have_one_factor_and_all_else_has_the_full_schedule(
    reduction, make_model, make_rows, make_args
):
    model = make_model(**({} if reduction is None else {"reduction": reduction}))
    full = dict(model.config.reduction)
    watch, elastic = Watch(), ElasticCallback([0.0, 1.0])
    every_step = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    args = make_args(max_steps=3, gradient_accumulation_steps=2, learning_rate=1e-3, **every_step)
    trainer = DistillationTrainer(model, args=args, train_dataset=make_rows(4), eval_dataset=make_rows(2))
    for callback in (TokenReductionCallback(trainer), elastic, watch):
        trainer.add_callback(callback)
    trainer.train()
    factors = [elastic.factor(step, args.seed) for step in range(3)]
    assert watch.training == pytest.approx([factor for factor in factors for _ in range(2)], abs=1e-3)
    assert watch.evaluation == [1] * 4  # of the log of tokens, and after each step
    assert sum("gflops_per_example" in entry for entry in trainer.state.log_history) == 1
    for step in (1, 2, 3):
        config = json.loads((Path(args.output_dir) / f"checkpoint-{step}" / "config.json").read_text())
        assert config["reduction"] == full
    assert model.reduction.to_dict() == full


@pytest.mark.parametrize("reduction", [None, TIP], ids=["pumer", "tip"])
def test_a_resumed_run_has_the_losses_of_a_whole_one(reduction, make_model, make_rows, make_teacher, run_training):
    def run(steps, resume=None):
        model = make_model(**({} if reduction is None else {"reduction": reduction}))
        return run_training(
            model,
            make_rows(8),
            teacher=make_teacher(),
            resume=resume,
            callbacks=[ElasticCallback([0.0, 1.0])],
            max_steps=steps,
            save_strategy="steps",
            save_steps=3,
            learning_rate=1e-3,
        )

    whole = losses_of(run(6))
    checkpoint = str(Path(run(3).args.output_dir) / "checkpoint-3")
    assert losses_of(run(6, checkpoint)) == pytest.approx(whole)


@pytest.mark.parametrize("site", ["inputs", "layers", "both"])
def test_a_decoder_reduces_by_the_factor_of_the_step(site, make_args):
    lengths = []

    class Lengths(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            model.register_forward_hook(lambda module, given, output: lengths.append(kept_in(output)))

    def kept_in(output):
        return sum(len(trace.kept) for trace in output.get("reduction") or ())

    model = student(reduction=SCHEDULES[site])
    args = make_args(max_steps=3, remove_unused_columns=False, per_device_train_batch_size=7)
    trainer = DistillationTrainer(
        model, teacher=student(reduction=None), args=args, train_dataset=ROWS, data_collator=Collator("llava")
    )
    for callback in (ElasticCallback([0.0, 1.0]), Lengths()):
        trainer.add_callback(callback)
    trainer.train()
    least, most, between = lengths
    assert most < between < least
    assert reduction_of(model).schedule == model.config.schedule


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (0.5, "two numbers"),
        ([0.5], "two numbers"),
        ([0.0, 0.5, 1.0], "two numbers"),
        (["a", 1.0], "two numbers"),
        ([0.0, True], "two numbers"),
        ([0.0, 1.5], r"\[0, 1\]"),
        ([-0.1, 1.0], r"\[0, 1\]"),
        ([0.8, 0.2], "least factor comes first"),
        ([0.5, 0.5], "above it"),
    ],
)
def test_wrong_factors_are_named(factors, message):
    with pytest.raises(ValueError, match=f"factors=.*{message}"):
        ElasticCallback(factors)
