import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, IterableDataset
from transformers import TrainerCallback, default_data_collator

from pumer_hf import (
    DistillationTrainer,
    PuMerViltForImagesAndTextClassification,
    ReductionWarmupCallback,
    TokenReductionCallback,
)
from pumer_hf.flops import count_flops
from pumer_hf.reducers import parse_reduction
from pumer_hf.training.callbacks import EpochDrawsCallback

NUM_TEXT, NUM_IMAGE = 8, 17  # of the rows that `make_rows` makes
LAST_LAYER_ONLY = {
    "method": "pumer",
    "layers": [2],
    "prune_ratio": 0.5,
    "image_merge_ratio": 0.0,
    "text_merge_ratio": 0.0,
}


class BeforeStep(TrainerCallback):
    """Does something to the model before a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            self.action(model)


class Watch(TrainerCallback):
    """Keeps the prune ratio of layer 0 in each step, and what reporters get."""

    def __init__(self):
        self.ratios, self.reported = [], []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.ratios.append(model.reduction.at("layers").ratio("prune_ratio", 0))

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.reported.append(dict(logs))


@pytest.fixture
def train(make_args):
    def run(model, rows, callbacks=(), log_tokens=True, **arguments):
        trainer = DistillationTrainer(model, args=make_args(**arguments), train_dataset=rows, callbacks=[*callbacks])
        if log_tokens:
            trainer.add_callback(TokenReductionCallback(trainer))
        trainer.train()
        return trainer

    return run


def token_logs(trainer):
    return [entry for entry in trainer.state.log_history if "gflops_per_example" in entry]


def logged_lengths(entry, layers):
    return [(entry[f"text_tokens/layer_{layer}"], entry[f"image_tokens/layer_{layer}"]) for layer in layers]


# TokenReductionCallback


def test_tokens_and_gflops_are_logged_once_while_the_schedule_stays(make_model, make_rows, train):
    model, rows, watch = make_model(), make_rows(4), Watch()
    flops, _ = count_flops(model, default_data_collator(rows[:1]))
    trainer = train(model, rows, [watch], max_steps=3)
    (entry,) = token_logs(trainer)
    assert entry["step"] == 0
    assert entry["gflops_per_example"] == pytest.approx(flops / 1e9)
    lengths = model.output_lengths(NUM_TEXT, NUM_IMAGE)
    assert lengths[:2] == [(6, 9), (4, 4)]
    assert logged_lengths(entry, [0, 1]) == lengths[:2]
    assert {name for name in entry if "tokens/" in name} == {
        "text_tokens/layer_0",
        "image_tokens/layer_0",
        "text_tokens/layer_1",
        "image_tokens/layer_1",
    }
    assert [logs["image_tokens/layer_1"] for logs in watch.reported if "image_tokens/layer_1" in logs] == [4]


def test_tokens_that_come_into_the_first_layer_are_logged(make_model, make_rows, train):
    model = make_model()
    model.set_reduction([{"method": "diverse", "site": "inputs", "num_keep": 5}, model.config.reduction])
    (entry,) = token_logs(train(model, make_rows(4), max_steps=1))
    assert (entry["text_tokens/inputs"], entry["image_tokens/inputs"]) == (NUM_TEXT, 6)
    assert logged_lengths(entry, [0, 1]) == model.output_lengths(NUM_TEXT, NUM_IMAGE)[:2]


def test_tokens_are_logged_again_when_the_schedule_changes(make_model, make_rows, train):
    model, rows = make_model(), make_rows(4)
    change = BeforeStep(2, lambda model: model.set_reduction(LAST_LAYER_ONLY))
    first, second = token_logs(train(model, rows, [change], max_steps=5))
    assert first["step"] == 0
    assert second["step"] in (2, 3)  # with the first step that the change applies to
    assert logged_lengths(first, [0, 1]) == [(6, 9), (4, 4)]
    assert logged_lengths(second, [2]) == [(8, 9)] == model.output_lengths(NUM_TEXT, NUM_IMAGE)[2:]
    assert "text_tokens/layer_0" not in second
    flops, _ = count_flops(model, default_data_collator(rows[:1]))
    assert second["gflops_per_example"] == pytest.approx(flops / 1e9)
    assert second["gflops_per_example"] > first["gflops_per_example"]


def test_a_change_of_schedule_does_not_cost_the_log_of_its_step(make_model, make_rows, train):
    change = BeforeStep(1, lambda model: model.set_reduction(LAST_LAYER_ONLY))
    trainer = train(make_model(), make_rows(4), [change], max_steps=4, logging_steps=2)
    assert len(token_logs(trainer)) == 2
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [2, 4]


def test_an_unreduced_model_logs_its_gflops_alone(make_teacher, make_rows, train):
    (entry,) = token_logs(train(make_teacher(), make_rows(4)))
    assert entry["gflops_per_example"] > 0
    assert not [name for name in entry if "tokens/" in name]


def test_of_several_images_the_tokens_of_one_are_logged(make_model, make_rows, train):
    model = make_model(model_class=PuMerViltForImagesAndTextClassification, num_images=2, modality_type_vocab_size=3)
    rows = [
        {**row, "pixel_values": row["pixel_values"].expand(2, -1, -1, -1), "labels": torch.tensor(1)}
        for row in make_rows(2)
    ]
    (entry,) = token_logs(train(model, rows))
    assert logged_lengths(entry, [0, 1]) == model.output_lengths(NUM_TEXT, NUM_IMAGE)[:2]


def test_tokens_are_logged_where_rows_have_teacher_logits(make_model, make_rows, train):
    rows = [{**row, "teacher_logits": torch.zeros(4)} for row in make_rows(4)]
    assert len(token_logs(train(make_model(), rows, remove_unused_columns=False))) == 1


def test_tokens_are_logged_where_the_trainer_removes_a_column_that_the_model_does_not_take(
    make_model, make_rows, train
):
    rows = make_rows(4)
    columns = {name: [row[name].tolist() for row in rows] for name in rows[0]}
    dataset = Dataset.from_dict({**columns, "question_id": [1, 2, 3, 4]})
    assert len(token_logs(train(make_model(), dataset))) == 1


@pytest.mark.parametrize("given", [False, True])
def test_of_a_stream_a_given_example_is_measured_or_else_its_first_row(given, make_model, make_rows, make_args):
    rows, models, opened = make_rows(8), [], []

    def read():
        opened.append(True)
        yield from rows

    for log_tokens in (True, False):
        models.append(make_model())
        stream = IterableDataset.from_generator(read).shuffle(seed=0, buffer_size=3)
        opened.clear()
        trainer = DistillationTrainer(models[-1], args=make_args(max_steps=3), train_dataset=stream)
        if log_tokens:
            trainer.add_callback(TokenReductionCallback(trainer, rows[0] if given else None))
        trainer.train()
        assert len(opened) == (2 if log_tokens and not given else 1)
        assert len(token_logs(trainer)) == log_tokens
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name


def test_a_collator_that_draws_for_the_log_does_not_change_the_draws_of_training(make_model, make_rows, make_args):
    """A resumed run logs once more than one that was not interrupted."""
    drawn = {}
    for logs in (False, True):
        found = drawn[logs] = []

        def collate(rows, found=found):
            found.append((len(rows), torch.rand(()).item()))
            return default_data_collator(rows)

        args = make_args(max_steps=3, per_device_train_batch_size=2)
        trainer = DistillationTrainer(make_model(), args=args, train_dataset=make_rows(6), data_collator=collate)
        if logs:
            trainer.add_callback(TokenReductionCallback(trainer))
        trainer.train()
    assert [draw for draw in drawn[True] if draw[0] == 2] == drawn[False]


def test_logging_tokens_leaves_the_training_as_it_is(make_model, make_rows, train):
    models = []
    for log_tokens in (True, False):
        models.append(make_model(hidden_dropout_prob=0.1))
        train(models[-1], make_rows(4), log_tokens=log_tokens, max_steps=3)
        assert models[-1].training
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name


# ReductionWarmupCallback


@pytest.mark.parametrize(
    ("warmup_steps", "num_stages", "factors"),
    [
        (4, 4, [0, 0.25, 0.5, 0.75, 1, 1, 1]),
        (4, 2, [0, 0, 0.5, 0.5, 1, 1, 1]),
        (4, 1, [0, 0, 0, 0, 1, 1, 1]),
        (2, 10, [0, 0.5, 1, 1, 1, 1, 1]),
        (1, 10, [0, 1, 1, 1, 1, 1, 1]),
        (5, 3, [0, 0, 1 / 3, 1 / 3, 2 / 3, 1, 1]),
    ],
)
def test_the_factor_ramps_from_0_to_1_in_stages(warmup_steps, num_stages, factors):
    callback = ReductionWarmupCallback(warmup_steps, num_stages)
    assert [callback.factor(step) for step in range(7)] == pytest.approx(factors)


def test_the_ramp_has_ten_stages_by_default():
    callback = ReductionWarmupCallback(1000)
    assert sorted({callback.factor(step) for step in range(2000)}) == [stage / 10 for stage in range(11)]


@pytest.mark.parametrize("values", [{"warmup_steps": 0}, {"warmup_steps": 5, "num_stages": 0}, {"warmup_steps": -1}])
def test_a_ramp_without_steps_or_stages_is_an_error(values):
    with pytest.raises(ValueError, match="at least 1"):
        ReductionWarmupCallback(**values)


def test_ratios_ramp_up_during_training_and_the_full_ones_apply_after_it(make_model, make_rows, train):
    model, watch = make_model(), Watch()
    full = model.output_lengths(NUM_TEXT, NUM_IMAGE)
    trainer = train(model, make_rows(4), [watch, ReductionWarmupCallback(4, num_stages=4)], max_steps=6)
    assert watch.ratios == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.2])
    images = [entry["image_tokens/layer_1"] for entry in token_logs(trainer)]
    assert images[0] == NUM_IMAGE  # the first step reduces nothing
    assert images == sorted(images, reverse=True)
    assert images[-1] == 4
    assert model.output_lengths(NUM_TEXT, NUM_IMAGE) == full


def test_a_training_that_ends_within_the_ramp_leaves_the_full_ratios(make_model, make_rows, train):
    model, watch = make_model(), Watch()
    full = model.output_lengths(NUM_TEXT, NUM_IMAGE)
    train(model, make_rows(4), [watch, ReductionWarmupCallback(100)], log_tokens=False)
    assert watch.ratios == [0, 0]
    assert model.output_lengths(NUM_TEXT, NUM_IMAGE) == full
    assert model.reduction == parse_reduction(model.config.reduction)


def test_a_checkpoint_saved_within_the_ramp_holds_the_full_ratios(make_model, make_rows, train):
    model, watch = make_model(), Watch()
    full = dict(model.config.reduction)
    warmup = ReductionWarmupCallback(4, num_stages=4)
    trainer = train(model, make_rows(4), [watch, warmup], save_strategy="steps", save_steps=1, max_steps=3)
    assert watch.ratios == pytest.approx([0, 0.05, 0.1])
    for step in (1, 2, 3):
        checkpoint = Path(trainer.args.output_dir) / f"checkpoint-{step}"
        assert json.loads((checkpoint / "config.json").read_text())["reduction"] == full
    assert model.config.reduction == full


def test_a_ramp_of_an_unreduced_model_is_an_error(make_teacher, make_rows, train):
    with pytest.raises(ValueError, match=r"config\.reduction is None"):
        train(make_teacher(), make_rows(4), [ReductionWarmupCallback(4)])


# What is drawn anew in each epoch


class Stream(torch.utils.data.IterableDataset):
    """Rows whose number the Trainer does not know."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


class Draws(TrainerCallback):
    """Keeps what the random draws of each step are of."""

    def __init__(self, collator):
        self.collator, self.of = collator, []

    def on_step_begin(self, args, state, control, **kwargs):
        self.of.append(self.collator.draws_of)


@pytest.mark.parametrize("has_length", [True, False])
def test_each_pass_over_the_data_has_draws_of_its_own(has_length, make_model, make_rows, make_args):
    """A pass has three steps; the resumed run begins after the first of the second pass."""

    def draws_in(**resumed):
        collator, rows = SimpleNamespace(draws_of=None), make_rows(6)
        draws = Draws(collator)
        DistillationTrainer(
            make_model(),
            args=make_args(max_steps=8, save_strategy="steps", save_steps=4, seed=5),
            train_dataset=rows if has_length else Stream(rows),
            callbacks=[EpochDrawsCallback(collator), draws],
        ).train(**resumed)
        return draws.of

    whole = draws_in()
    assert whole == [f"seed 5, epoch {number}" for number in (0, 0, 0, 1, 1, 1, 2, 2)]
    resumed = draws_in(resume_from_checkpoint=str(Path(make_args().output_dir) / "checkpoint-4"))
    # where the Trainer does not know the length of a pass, it begins the second one again
    assert resumed == (whole[4:] if has_length else whole[3:7])
