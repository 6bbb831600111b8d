"""A stage that was killed ends as one that was not: with its best model, and where it would have stopped."""

import itertools
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny import assert_same_weights
from tiny_tasks import tiny

from pumer_hf.data.retrieval import RETRIEVAL
from pumer_hf.recipes.recipe import RecipeTrainingArguments
from pumer_hf.recipes.stages import train_stage

BEST = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "greater_is_better": True}


@pytest.fixture
def steps():
    """An entry for each training step."""
    return []


@pytest.fixture
def train(make_model, make_rows, make_args, train_on_rows, steps):
    """Train a stage whose evaluations, of each step, give these scores; `at_step` ends it as Ctrl-C does."""

    def run(folder, scores, *, at_step=None, **overrides):
        values = {"save_strategy": "steps", "save_steps": 1, "max_steps": len(scores), **BEST}
        args = make_args(
            RecipeTrainingArguments,
            **{**values, "metric_for_best_model": "accuracy", "output_dir": str(folder), **overrides},
        )
        model, rows, given = make_model(), make_rows(8), iter(scores)
        numbers = itertools.count(1)

        def forward(module, *_):
            if module.training:
                steps.append(1)
                if next(numbers) == at_step:
                    raise KeyboardInterrupt

        model.register_forward_pre_hook(forward)
        train_on_rows(args, model, rows, given)
        return folder

    return run


def killed_before_saving(folder, moved):
    """What a run leaves that is killed between its last checkpoint and its result, in a folder that was moved."""
    shutil.move(folder, moved)
    for path in moved.iterdir():
        if path.is_file():
            path.unlink()
    return moved


def test_a_stage_killed_before_saving_its_best_model_saves_it(train, steps, tmp_path):
    whole = train(tmp_path / "whole", [10.0, 90.0, 20.0])
    best, last = (load_file(whole / name / "model.safetensors") for name in ("checkpoint-2", "checkpoint-3"))
    assert any(not torch.equal(best[name], last[name]) for name in best)
    assert_same_weights(whole, best)
    folder = killed_before_saving(whole, tmp_path / "parts")
    steps.clear()
    train(folder, [10.0, 90.0, 20.0], resume=True)
    assert not steps
    assert_same_weights(folder, best)
    assert json.loads((folder / "trainer_state.json").read_text())["best_global_step"] == 2


def test_a_stage_without_a_best_model_saves_its_last_one(train, tmp_path):
    options = {"load_best_model_at_end": False}
    whole = train(tmp_path / "whole", [10.0, 90.0, 20.0], **options)
    last = load_file(whole / "checkpoint-3" / "model.safetensors")
    folder = killed_before_saving(whole, tmp_path / "parts")
    train(folder, [], resume=True, max_steps=3, **options)
    assert_same_weights(folder, last)


def test_a_best_model_that_is_gone_is_named(train, tmp_path):
    folder = killed_before_saving(train(tmp_path / "whole", [10.0, 90.0, 20.0]), tmp_path / "parts")
    shutil.rmtree(folder / "checkpoint-2")
    with pytest.raises(ValueError, match=r"parts/checkpoint-2"):
        train(folder, [], resume=True, max_steps=3)


def test_an_early_stop_that_was_killed_before_saving_does_not_train_on(train, steps, tmp_path):
    options = {"early_stopping_patience": 2, "max_steps": 6}
    whole = train(tmp_path / "whole", [10.0, 90.0, 20.0, 30.0], **options)
    best = load_file(whole / "checkpoint-2" / "model.safetensors")
    assert not (whole / "checkpoint-5").exists()
    folder = killed_before_saving(whole, tmp_path / "parts")
    steps.clear()
    train(folder, [], resume=True, **options)
    assert not steps
    assert_same_weights(folder, best)


def test_more_patience_trains_on(train, steps, tmp_path):
    whole = train(tmp_path / "whole", [10.0, 90.0, 20.0, 30.0], early_stopping_patience=2, max_steps=6)
    folder = killed_before_saving(whole, tmp_path / "parts")
    steps.clear()
    train(folder, [40.0, 95.0], resume=True, early_stopping_patience=4, max_steps=6)
    assert len(steps) == 2
    assert_same_weights(folder, load_file(folder / "checkpoint-6" / "model.safetensors"))


def test_a_resumed_stage_stops_as_early_as_one_that_was_not_interrupted(train, steps, tmp_path):
    options = {"early_stopping_patience": 3, "max_steps": 8}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", [90.0, 20.0, 30.0], at_step=4, **options)  # two evaluations without a better score
    steps.clear()
    folder = train(tmp_path / "run", [40.0], resume=True, **options)
    assert len(steps) == 1
    assert_same_weights(folder, load_file(folder / "checkpoint-1" / "model.safetensors"))


# What a collator draws


@pytest.fixture
def train_on_draws(make_args):
    """Train a stage of retrieval, whose captions are drawn anew for each batch; `at_step` ends it as Ctrl-C does."""

    def run(folder, *, at_step=None, **overrides):
        args = RETRIEVAL.arguments(train_scenes=12, eval_scenes=4, num_negatives=3, max_text_length=16)
        data = RETRIEVAL.load(args, None)
        model, processor = tiny("vilt", "retrieval", reduction=None, hidden_dropout_prob=0.1)
        numbers = itertools.count(1)

        def forward(module, *_):
            if module.training and next(numbers) == at_step:
                raise KeyboardInterrupt

        model.register_forward_pre_hook(forward)
        values = {"save_strategy": "steps", "save_steps": 2, "max_steps": 5, "optim": "adamw_torch", **overrides}
        train_stage(
            make_args(RecipeTrainingArguments, output_dir=str(folder), learning_rate=1e-3, **values),
            model,
            train=data.train,
            validation=data.validation,
            collator=RETRIEVAL.collator(processor, data, args, True),
            processor=processor,
            compute_metrics=RETRIEVAL.metrics(data.validation, data.labels),
        )
        return folder

    return run


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stage_that_goes_on_within_an_epoch_draws_what_a_whole_one_does(workers, train_on_draws, tmp_path):
    options = {"dataloader_num_workers": workers}
    whole = train_on_draws(tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train_on_draws(tmp_path / "parts", at_step=4, **options)
    folder = train_on_draws(tmp_path / "parts", resume=True, **options)
    assert_same_weights(folder, load_file(whole / "model.safetensors"))
