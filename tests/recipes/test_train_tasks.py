"""The recipes of NLVR2, SNLI-VE and retrieval run on digit scenes, from their own recipe files."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from in_process import run_here
from safetensors.torch import load_file
from tiny import log_of, vilt_fields, words_of
from torch.testing import assert_close
from transformers import AutoTokenizer

from pumer_hf.data.snli_ve import SNLI_VE
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.recipe import ModelArguments

ROOT = Path(__file__).parents[2]
METRICS = {"nlvr2": {"accuracy", "consistency"}, "snli_ve": {"accuracy"}, "retrieval": {"mean_recall"}}


def command(task, folder, **flags):
    values = {
        "output_dir": str(folder),
        "train_scenes": "16",
        "eval_scenes": "4",
        "max_steps": "2",
        "pretraining": '{"max_steps": 1}',
        "teacher_training": '{"max_steps": 1}',
        "per_device_train_batch_size": "4",
        "per_device_eval_batch_size": "8",
        "benchmark_seconds": "0.1",
        "logging_steps": "1",
        "eval_strategy": "steps",
        "eval_steps": "2",
        "use_cpu": "true",
        "report_to": "none",
        **flags,
    }
    return [sys.executable, str(ROOT / "recipes" / f"train_{task}.py"), *words_of(values)]


def run(words, cwd):
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=250, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The process of a run of a task and its folder, made once. The teacher of NLVR2 learns nothing."""
    still = {"teacher_training": '{"max_steps": 1, "learning_rate": 0, "classifier_learning_rate": 0}'}

    @cache
    def run(task):
        folder = tmp_path_factory.mktemp(task) / "run"
        process = run_here(command(task, folder, **(still if task == "nlvr2" else {})), folder.parent)
        assert process.returncode == 0, process.stderr
        return process, folder

    return run


TASKS = [pytest.param(task, marks=[] if task == "retrieval" else pytest.mark.slow) for task in METRICS]


@pytest.mark.parametrize("task", TASKS)
def test_a_run_distils_and_reports(task, finished):
    process, folder = finished(task)
    results = json.loads((folder / "results.json").read_text())
    for name in ("teacher", "student"):
        assert METRICS[task] <= results[name].keys()
    assert results["gflops"]["ratio"] > 1
    log = log_of(folder / "student")
    losses = [entry for entry in log if "loss" in entry]
    assert len(losses) == 2
    for entry in losses:
        assert entry["distillation_loss"] > 0  # retrieval too: over the candidates
        assert entry["loss"] == pytest.approx(entry["task_loss"] + entry["distillation_loss"], rel=1e-4)
    assert any("eval_accuracy" in entry for entry in log)
    assert re.search(r"\d\.\d\dx (faster|slower)", process.stdout)
    assert ("Scoring 32 pairs" in process.stdout) == (task == "retrieval")


def test_the_teacher_starts_from_what_was_pretrained(finished):
    _, folder = finished("nlvr2")
    pretrained, teacher = (load_file(folder / stage / "model.safetensors") for stage in ("pretraining", "teacher"))
    names = [name for name in pretrained if not name.startswith("classifier") and "token_type" not in name]
    assert len(names) > 50
    assert all(torch.equal(pretrained[name], teacher[name]) for name in names)
    vocabulary = AutoTokenizer.from_pretrained(folder / "teacher").get_vocab()
    assert {"what", "colour", "images", "only"} <= vocabulary.keys()  # of the questions and of the statements


@pytest.mark.slow
def test_a_model_that_exists_is_not_pretrained(tmp_path):
    model = save_tiny_entailment_model(tmp_path / "model")
    process = run_here(command("snli_ve", tmp_path / "run", checkpoint=str(model), max_text_length="12"), tmp_path)
    assert process.returncode == 0, process.stderr
    assert not (tmp_path / "run" / "pretraining").exists()


def test_logits_of_inputs_that_change_are_not_cached(tmp_path):
    process = run_here(command("retrieval", tmp_path / "run", cache_teacher_logits="true"), tmp_path)
    assert process.returncode != 0
    assert "training.cache_teacher_logits" in process.stderr.splitlines()[-1]


def save_tiny_entailment_model(folder):
    args = ModelArguments(config=vilt_fields(max_position_embeddings=12))
    for part in build_teacher(args, ["a", "b", "c"], ["there is a seven"], 12, SNLI_VE):
        part.save_pretrained(folder)
    return folder


def test_texts_longer_than_the_checkpoint_takes_are_an_error_before_training(tmp_path):
    model = save_tiny_entailment_model(tmp_path / "model")
    process = run_here(command("snli_ve", tmp_path / "run", checkpoint=str(model), max_text_length="16"), tmp_path)
    assert process.returncode == 1
    assert re.search("data.max_text_length=16: .*12", process.stderr)
    assert "Traceback" not in process.stderr


def finished_checkpoints(folder):
    """Those whose last file is whole."""
    found = set()
    for state in folder.glob("*/checkpoint-*/trainer_state.json"):
        try:
            json.loads(state.read_text())
        except json.JSONDecodeError:
            continue
        found.add(state.parent)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("task", METRICS)
def test_a_run_that_is_killed_at_random_moments_ends_like_one_that_is_not(task, tmp_path):
    training = {"save_steps": "1", "save_total_limit": "20", "max_steps": "6", "teacher_training": '{"max_steps": 4}'}
    flags = {**training, "pretraining": '{"max_steps": 4}'}
    start = time.monotonic()
    process = run(command(task, tmp_path / "whole", **flags), tmp_path)
    assert process.returncode == 0, process.stderr
    duration = time.monotonic() - start
    folder, rng, kills = tmp_path / "killed", random.Random(task), 0
    words = command(task, folder, **flags, resume="true")
    while True:
        before = finished_checkpoints(folder)
        with (tmp_path / "log.txt").open("w") as log:
            process = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
            try:
                process.wait(timeout=duration * rng.uniform(0.35, 0.7) if kills < 6 else None)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                assert before <= finished_checkpoints(folder)
                continue
        assert process.returncode == 0, (tmp_path / "log.txt").read_text()[-3000:]
        break
    assert kills >= 2
    for stage in ("pretraining", "teacher", "student"):
        weights, expected = (load_file(path / stage / "model.safetensors") for path in (folder, tmp_path / "whole"))
        # Candidates share the bias: its gradient is rounding, of which Adam makes steps.
        for of_run in (weights, expected):
            of_run.pop("rank_output.bias", None)
        assert_close(weights, expected)
    results, expected = (json.loads((path / "results.json").read_text()) for path in (folder, tmp_path / "whole"))
    assert all(results[name] == expected[name] for name in ("teacher", "student"))
