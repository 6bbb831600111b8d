"""`pumer-hf train` and `pumer-hf evaluate`; tests/package/test_wheel.py runs both from an installed wheel."""

import json
import os
import subprocess
import sys

import pytest
from tiny_tasks import CONFIGS

from pumer_hf.cli import main
from pumer_hf.data.tasks import TASKS
from pumer_hf.recipes import evaluation, runner
from pumer_hf.recipes.program import program_name, program_words


@pytest.fixture
def seen(monkeypatch):
    """What the command calls instead of the work: functions and their arguments."""
    calls = []
    monkeypatch.setattr(runner, "run_recipe", lambda *args: calls.append(("train", *args)))
    monkeypatch.setattr(evaluation, "evaluate_recipe", lambda *args: calls.append(("evaluate", *args[1:])))
    return calls


@pytest.mark.parametrize("task", TASKS)
def test_all_after_the_task_goes_to_the_recipe(task, seen):
    words = ["recipes/vilt/own_data/scratch.yaml", "--prune_ratio", "0.1", "0.2", "--resume", "-o", "x", "--help"]
    assert main(["train", task, *words]) == 0
    assert main(["evaluate", task, "--model", "m", "--split=validation"]) == 0
    assert seen == [("train", task, words), ("evaluate", [task, "--model", "m", "--split=validation"])]


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "required: TASK"), (["vqq"], "argument TASK: invalid choice: 'vqq'"), (["--seed", "1"], "'--seed'")],
)
def test_the_task_comes_first(words, message, seen, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", *words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert seen == []


@pytest.mark.parametrize("kind", [ValueError, OSError, ImportError])
def test_a_mistake_of_ours_keeps_its_traceback(kind, monkeypatch):
    """In the hours of a training, only the recipe knows what the user can mend."""

    def fail(*args):
        raise kind("a mistake of ours")

    monkeypatch.setattr(runner, "run_recipe", fail)
    with pytest.raises(kind, match="a mistake of ours"):
        main(["train", "vqa"])


@pytest.mark.parametrize(
    ("argv", "words", "name"),
    [
        (["recipes/train_vqa.py", "a.yaml"], ["recipes/train_vqa.py"], "train_vqa.py"),
        (["/x/bin/pumer-hf", "train", "vqa", "a.yaml"], ["pumer-hf", "train", "vqa"], "pumer-hf train vqa"),
        (["pumer-hf", "evaluate", "vqa", "--model", "m"], ["pumer-hf", "evaluate"], "pumer-hf evaluate"),
        (["pumer-hf", "card", "folder"], ["pumer-hf", "card"], "pumer-hf card"),
        (["pumer-hf"], ["pumer-hf"], "pumer-hf"),
    ],
)
def test_the_program_is_named_as_it_was_started(argv, words, name, monkeypatch):
    monkeypatch.setattr("sys.argv", argv)
    assert program_words() == words
    assert program_name() == name


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_the_help_of_a_task_lists_the_flags_of_recipes(command, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pumer-hf", command, "nlvr2", "--help"])
    with pytest.raises(SystemExit) as end:
        main([command, "nlvr2", "--help"])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    assert printed.startswith(f"usage: pumer-hf {command}")
    assert {"train": "--prune_ratio", "evaluate": "--split"}[command] in printed


def test_accelerate_launches_the_command(tmp_path):
    """The launcher starts `python -m pumer_hf train vqa`, which is called as the command is, in its results too."""
    flags = {
        "output_dir": "run",
        "config": json.dumps(CONFIGS["vilt"]),
        "train_scenes": "8",
        "eval_scenes": "4",
        "unknown_answers": "ignore",
        "max_steps": "1",
        "teacher_training": '{"max_steps": 1}',
        "benchmark_seconds": "0.05",
        "per_device_train_batch_size": "4",
        "per_device_eval_batch_size": "4",
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--cpu", "-m", "pumer_hf"]
    process = subprocess.run(
        [*launch, "train", "vqa", *words, "--layers", "0", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["command"].startswith("pumer-hf train vqa --output_dir run ")
