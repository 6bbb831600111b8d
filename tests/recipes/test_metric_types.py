"""A task whose main metric is a loss and whose other one is a rate goes through a recipe, its card and its table."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import vilt_fields, words_of
from torch.nn.functional import cross_entropy

from laboratory.render import recipes_table
from pumer_hf.data.snli_ve import SNLI_VE
from pumer_hf.hub.card import PuMerCard
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.recipes.runner import run_stages, stage_arguments
from pumer_hf.results import MetricType, Report

RECIPE = Path(__file__).parents[2] / "recipes" / "vilt" / "digit_scenes_snli_ve" / "pumer.yaml"
FLAGS = {
    "config": json.dumps(vilt_fields(max_position_embeddings=16)),
    "train_scenes": "8",
    "eval_scenes": "4",
    "max_steps": "3",
    "pretraining": "null",
    "teacher_training": '{"max_steps": 3}',
    "per_device_train_batch_size": "4",
    "per_device_eval_batch_size": "8",
    "benchmark_seconds": "0.05",
    "eval_strategy": "steps",
    "eval_steps": "1",
    "save_strategy": "steps",
    "save_steps": "1",
    "load_best_model_at_end": "true",
    "learning_rate": "0.1",  # so that the loss rises again
    "use_cpu": "true",
    "report_to": "none",
}


def loss_metrics(dataset, labels):
    """`cross_entropy`, where lower is better, and a `rate`."""

    def compute(prediction):
        loss = cross_entropy(torch.tensor(prediction.predictions), torch.tensor(prediction.label_ids)).item()
        return {"cross_entropy": loss, "rate": 1000 * loss}

    return compute


LOSS = replace(
    SNLI_VE,
    metrics=loss_metrics,
    baselines=lambda data: {"majority": 1.5},
    best_metric="cross_entropy",
    metric_types={"cross_entropy": MetricType("nats", higher_is_better=False), "rate": MetricType("words/s")},
)


def test_a_loss_goes_through_a_recipe_its_card_and_its_table(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    flags = words_of({**FLAGS, "output_dir": str(folder)})
    monkeypatch.setattr(sys, "argv", ["train.py", *flags])  # what the results tell
    monkeypatch.setattr("pumer_hf.recipes.runner.use_available_cores", lambda world_size: None)  # tests run on one
    run_stages(LOSS, [str(RECIPE), *flags])
    printed = capsys.readouterr().out
    report = Report.load(folder / "results.json")
    values = json.loads((folder / "results.json").read_text())
    assert values["metrics"] == {
        "cross_entropy": {"unit": "nats", "higher_is_better": False},
        "rate": {"unit": "words/s", "higher_is_better": True},
    }
    assert values["argv"] == ["train.py", *flags]
    student = report.evaluations["student"]
    assert (student.main_name, student.counts) == ("cross_entropy", {"questions": 12})

    assert "cross entropy (lower is better), nats" in printed
    assert "rate, words/s" in printed
    assert "Baselines that see no image: majority 1.5 nats." in printed
    card = PuMerCard.load(folder / "student").render()
    assert f"| {student.main} |" in next(line for line in card.splitlines() if "(lower is better)" in line)
    assert "% |" not in card
    assert f"| {student.main} (" in recipes_table({"snli_ve": report}).splitlines()[2]

    for role in ("teacher", "student"):  # the best model is the one with the lowest loss
        state = json.loads((folder / role / "trainer_state.json").read_text())
        losses = [entry["eval_cross_entropy"] for entry in state["log_history"] if "eval_cross_entropy" in entry]
        assert len(losses) == 3
        assert state["best_metric"] == min(losses) < max(losses)


@pytest.mark.parametrize(
    ("task", "flags", "metric", "greater"),
    [
        (SNLI_VE, [], "accuracy", True),
        (LOSS, [], "cross_entropy", False),
        (LOSS, ["--metric_for_best_model", "rate"], "rate", True),
        (LOSS, ["--metric_for_best_model", "eval_cross_entropy"], "eval_cross_entropy", False),
        (LOSS, ["--metric_for_best_model", "rate", "--greater_is_better", "false"], "rate", False),
        (SNLI_VE, ["--metric_for_best_model", "loss"], "loss", False),
    ],
)
def test_the_best_checkpoint_follows_the_direction_of_its_metric(task, flags, metric, greater, tmp_path):
    recipe = parse_recipe(task, RECIPE, ["--output_dir", str(tmp_path), "--use_cpu", "true", *flags])
    args = stage_arguments(task, recipe, "teacher")
    assert (args.metric_for_best_model, args.greater_is_better) == (metric, greater)
