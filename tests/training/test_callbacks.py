import json
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import TrainerCallback, default_data_collator

from pumer_hf import DistillationTrainer, ReductionWarmupCallback, TokenReductionCallback
from pumer_hf.bench.flops import count_flops

NUM_TEXT, NUM_IMAGE = 8, 17  # of the rows that `make_rows` makes


class AtStep(TrainerCallback):
    """Does something to the model before a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            self.action(model)


class Ratios(TrainerCallback):
    """Keeps the prune ratio of the first reduction layer at each step."""

    def __init__(self):
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.seen.append(model.reduction.ratio("prune_ratio", model.reduction.layers[0]))


@pytest.fixture
def train(make_args):
    """Train with the two callbacks as a recipe adds them."""

    def run(model, rows, *, log_tokens=True, warmup=None, callbacks=(), **arguments):
        trainer = DistillationTrainer(model, args=make_args(**arguments), train_dataset=rows)
        if log_tokens:
            trainer.add_callback(TokenReductionCallback(trainer))
        for callback in ([] if warmup is None else [warmup], *[[callback] for callback in callbacks]):
            for item in callback:
                trainer.add_callback(item)
        trainer.train()
        return trainer

    return run


def token_logs(trainer):
    return [entry for entry in trainer.state.log_history if "gflops_per_example" in entry]


def logged_lengths(entry, layers):
    return [(entry[f"text_tokens/layer_{layer}"], entry[f"image_tokens/layer_{layer}"]) for layer in layers]


# TokenReductionCallback


def test_tokens_and_gflops_are_logged_once_when_training_starts(make_model, make_rows, train):
    model, rows = make_model(), make_rows(4)
    example = default_data_collator(rows[:1])
    flops, _ = count_flops(model, example)
    trainer = train(model, rows, max_steps=3)
    (entry,) = token_logs(trainer)
    assert entry["step"] == 0
    assert entry["gflops_per_example"] == pytest.approx(flops / 1e9)
    lengths = model.output_lengths(NUM_TEXT, NUM_IMAGE)
    assert lengths[:2] == [(6, 9), (4, 5)]
    assert logged_lengths(entry, [0, 1]) == lengths[:2]
    assert {name for name in entry if "tokens/" in name} == {
        "text_tokens/layer_0",
        "image_tokens/layer_0",
        "text_tokens/layer_1",
        "image_tokens/layer_1",
    }


def test_tokens_are_logged_again_when_the_schedule_changes(make_model, make_rows, train):
    model = make_model()
    sparse = {
        "method": "pumer",
        "layers": [2],
        "prune_ratio": 0.5,
        "image_merge_ratio": 0.0,
        "text_merge_ratio": 0.0,
    }
    change = AtStep(2, lambda model: model.set_reduction(sparse))
    full_flops, _ = count_flops(model, default_data_collator(make_rows(1)))
    trainer = train(model, make_rows(4), callbacks=[change], max_steps=5)
    first, second = token_logs(trainer)
    assert (first["step"], second["step"]) == (0, 3)
    assert logged_lengths(second, [2]) == [(NUM_TEXT, NUM_IMAGE - 8)] == model.output_lengths(NUM_TEXT, NUM_IMAGE)[2:]
    assert "text_tokens/layer_0" not in second
    assert first["gflops_per_example"] == pytest.approx(full_flops / 1e9)
    assert second["gflops_per_example"] > first["gflops_per_example"]


def test_an_unreduced_model_logs_its_gflops_alone(make_teacher, make_rows, train):
    (entry,) = token_logs(train(make_teacher(), make_rows(4)))
    assert not [name for name in entry if "tokens/" in name]


def test_tokens_go_through_the_log_of_the_trainer_to_its_reporters(make_model, make_rows, train):
    class Reporter(TrainerCallback):
        logs = []  # noqa: RUF012

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.logs.append(dict(logs))

    reporter = Reporter()
    model, rows = make_model(), make_rows(4)
    # a reporter is there from the beginning
    train(model, rows, log_tokens=False, callbacks=[reporter, AddTokenReduction()], max_steps=1)
    assert any("image_tokens/layer_1" in logs for logs in reporter.logs)


class AddTokenReduction(TrainerCallback):
    def on_init_end(self, args, state, control, **kwargs):
        raise AssertionError


def test_logging_tokens_leaves_the_training_as_it_is(make_model, make_rows, run_training, weights_of, train):
    with_callback, without = make_model(hidden_dropout_prob=0.1), make_model(hidden_dropout_prob=0.1)
    train(with_callback, make_rows(4), max_steps=3)
    train(without, make_rows(4), log_tokens=False, max_steps=3)
    for name, value in weights_of(with_callback).items():
        assert (value == without.state_dict()[name]).all(), name
