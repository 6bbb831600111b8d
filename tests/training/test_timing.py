"""Checkpoints by the clock, and the estimate of the time left."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import assert_same_weights, log_of
from torch.multiprocessing import spawn
from torch.utils.data import IterableDataset
from transformers import TrainerCallback
from two_processes import decide_to_save

from pumer_hf import DistillationTrainer
from pumer_hf.recipes.recipe import RecipeTrainingArguments
from pumer_hf.training.timing import TimedCheckpointCallback, TimeLeftCallback

ALWAYS = 1e-9  # minutes: each step is due
BEST = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy", "greater_is_better": True}


class Saves(TrainerCallback):
    """Keeps the step of each checkpoint, and the checkpoints that there are after it."""

    def __init__(self):
        self.steps, self.kept = [], []

    def on_save(self, args, state, control, **kwargs):
        self.steps.append(state.global_step)
        self.kept.append(names_in(args.output_dir))


class Clock(TrainerCallback):
    """A clock that moves on by some minutes with each step."""

    def __init__(self, minutes):
        self.now, self.minutes = 0.0, minutes

    def monotonic(self):
        return self.now

    def on_step_begin(self, args, state, control, **kwargs):
        self.now += 60 * self.minutes


def names_in(folder):
    return sorted(path.name for path in Path(folder).glob("checkpoint-*"))


@pytest.fixture
def saves(make_model, make_rows, make_args, monkeypatch):
    """Train with a checkpoint every so many minutes, of which each step takes one; gives the checkpoints."""

    def run(minutes, rows=40, train_dataset=None, **arguments):
        clock, kept = Clock(1), Saves()
        monkeypatch.setattr("pumer_hf.training.timing.time", clock)
        DistillationTrainer(
            make_model(),
            args=make_args(**{"max_steps": 10, "save_strategy": "steps", "save_steps": 100, **arguments}),
            train_dataset=make_rows(rows) if train_dataset is None else train_dataset,
            eval_dataset=make_rows(2),
            callbacks=[clock, TimedCheckpointCallback(minutes), kept],
        ).train()
        return kept

    return run


def test_a_checkpoint_is_saved_when_its_time_has_come_and_the_one_before_goes(saves):
    kept = saves(3)
    assert kept.steps == [3, 6, 9, 10]  # the last is the Trainer's own
    assert kept.kept == [["checkpoint-3"], ["checkpoint-6"], ["checkpoint-9"], ["checkpoint-10"]]


def test_the_time_runs_from_the_last_checkpoint_of_any_kind_and_those_of_the_trainer_stay(saves):
    kept = saves(3, save_steps=4)
    assert kept.steps == [3, 4, 7, 8, 10]
    assert kept.kept[-1] == ["checkpoint-10", "checkpoint-4", "checkpoint-8"]


def test_the_clock_waits_a_step_where_the_trainer_evaluates(saves):
    assert saves(1, eval_strategy="steps", eval_steps=2).steps == [1, 3, 5, 7, 9, 10]


def test_the_clock_waits_at_the_end_of_an_epoch(saves):
    assert saves(1, rows=8).steps == [1, 2, 3, 5, 6, 7, 9, 10]  # the last is the Trainer's own


@pytest.mark.parametrize("length", [{"max_steps": -1, "num_train_epochs": 2.5}, {"max_steps": 10}], ids=str)
def test_a_training_that_ends_within_an_epoch_keeps_its_last_checkpoint(length, saves):
    kept = saves(1, rows=8, save_strategy="epoch", eval_strategy="epoch", save_total_limit=1, **length)
    assert kept.steps == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert kept.kept[-1] == ["checkpoint-10"]


class Stream(IterableDataset):
    """Rows whose number the Trainer does not know."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_where_a_stream_ends_its_checkpoint_of_the_clock_becomes_one_of_the_trainer(saves, make_rows):
    kept = saves(1, train_dataset=Stream(make_rows(6)), save_strategy="epoch", save_total_limit=2)
    twice = [step for step in kept.steps if kept.steps.count(step) == 2]
    assert twice == [3, 3, 6, 6, 9, 9]
    assert all(f"checkpoint-{step}" in there for step, there in zip(kept.steps, kept.kept, strict=True))
    assert kept.kept[-1] == ["checkpoint-10", "checkpoint-9"]


def test_who_wants_no_checkpoints_gets_none(saves):
    assert saves(1, save_strategy="no").steps == []


def test_the_limit_of_checkpoints_holds(saves):
    assert max(map(len, saves(2, save_steps=3, save_total_limit=1).kept)) == 1


@pytest.mark.parametrize("minutes", [0, -1])
def test_minutes_must_be_positive(minutes):
    with pytest.raises(ValueError, match=f"minutes={minutes}"):
        TimedCheckpointCallback(minutes)


@pytest.fixture
def train(make_model, make_rows, make_args, train_on_rows):
    """Train a stage of four steps an epoch whose evaluations give these scores; `at_step` ends it as Ctrl-C does."""

    def run(folder, scores, *, at_step=None, **overrides):
        given, numbers = iter(scores), itertools.count(1)
        model, rows = make_model(hidden_dropout_prob=0.1), make_rows(8)
        values = {"max_steps": 12, "optim": "adamw_torch", "learning_rate": 1e-3, **BEST, **overrides}

        def forward(module, *_):
            if module.training and next(numbers) == at_step:
                raise KeyboardInterrupt

        model.register_forward_pre_hook(forward)
        args = make_args(RecipeTrainingArguments, output_dir=str(folder), save_total_limit=1, **values)
        train_on_rows(args, model, rows, given)
        return folder

    return run


STRATEGIES = {
    "epoch": {"eval_strategy": "epoch", "save_strategy": "epoch"},
    "steps": {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 4},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_clock_does_not_change_which_model_is_the_best(strategy, train, tmp_path):
    options = STRATEGIES[strategy]
    scores = [10.0, 90.0, 20.0, 30.0, 25.0, 15.0][: 3 if strategy == "epoch" else 6]
    without = train(tmp_path / "without", scores, save_minutes=0, **options)
    timed = train(tmp_path / "timed", scores, save_minutes=ALWAYS, **options)
    states = [json.loads((folder / "trainer_state.json").read_text()) for folder in (without, timed)]
    assert [state["best_global_step"] for state in states] == [8 if strategy == "epoch" else 4] * 2
    assert states[1]["best_model_checkpoint"].endswith(states[0]["best_model_checkpoint"].rpartition("/")[2])
    assert names_in(timed) == names_in(without)
    assert_same_weights(timed, without)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("at_step", [6, 9, 12])
def test_a_stage_that_goes_on_from_a_checkpoint_of_the_clock_ends_like_a_whole_one(at_step, strategy, train, tmp_path):
    options, every = STRATEGIES[strategy], 4 if strategy == "epoch" else 2
    scores = [10.0, 90.0, 20.0, 30.0, 25.0, 15.0][: 12 // every]
    whole = train(tmp_path / "whole", scores, save_minutes=0, **options)
    folder, done = tmp_path / "parts", (at_step - 1) // every
    with pytest.raises(KeyboardInterrupt):
        train(folder, scores[:done], at_step=at_step, save_minutes=ALWAYS, **options)
    checkpoints = names_in(folder)
    train(
        folder,
        scores[done:] if f"checkpoint-{at_step - 1}" in checkpoints else scores[done - 1 :],
        resume=True,
        **options,
    )
    assert_same_weights(folder, whole)
    logs = [log_of(run) for run in (folder, whole)]
    scores = [[(entry["step"], entry["eval_accuracy"]) for entry in log if "eval_accuracy" in entry] for log in logs]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_the_clock_of_the_first_process_decides_for_all(tmp_path):
    spawn(decide_to_save, (str(tmp_path),), nprocs=2)
    assert [torch.load(tmp_path / f"decision-{rank}.pt") for rank in range(2)] == [[True, False]] * 2


# The time left


def estimate_of(capsys, steps, first=0, main=True, lengths=None):
    """What is printed in a run of so many steps, of which each takes three seconds and the first a minute."""
    callback = TimeLeftCallback(lengths)
    args = SimpleNamespace(output_dir="outputs/run/student")
    state = SimpleNamespace(global_step=first, max_steps=steps, is_world_process_zero=main)
    callback.on_train_begin(args, state, None)
    for step in range(first + 1, steps + 1):
        callback.clock.now += 60 if step == first + 1 else 3
        state.global_step = step
        callback.on_step_end(args, state, None)
    return capsys.readouterr().out


@pytest.fixture
def estimate(capsys, monkeypatch):
    clock = Clock(0)
    monkeypatch.setattr("pumer_hf.training.timing.time", clock)
    monkeypatch.setattr(TimeLeftCallback, "clock", clock, raising=False)
    return lambda *args, **kwargs: estimate_of(capsys, *args, **kwargs)


def test_the_time_left_is_told_after_twenty_steps(estimate):
    out = estimate(120)
    assert out.count("\n") == 1
    assert out.startswith("student: about 5 min for the 100 steps that are left of 120, at 3 s each")


def test_the_stages_that_come_after_are_told(estimate):
    out = estimate(120, lengths={"teacher": "9 steps", "student": "120 steps"})
    assert out == "student: about 5 min for the 100 steps that are left of 120, at 3 s each; evaluations come on top\n"
    out = estimate(
        120, lengths={"teacher": "9 steps", "student": "120 steps", "b": "8 steps", "c": "at most 7 epochs"}
    )
    assert out.endswith(
        "; evaluations come on top. This is for one stage: then come b (8 steps), c (at most 7 epochs)\n"
    )


def test_a_resumed_run_counts_its_own_steps(estimate):
    assert "about 30 s for the 10 steps that are left of 120" in estimate(120, first=90)


@pytest.mark.parametrize("run", [{"steps": 20}, {"steps": 12}, {"steps": 120, "main": False}], ids=str)
def test_where_nothing_is_left_or_another_process_tells_nothing_is_printed(run, estimate):
    assert estimate(**run) == ""
