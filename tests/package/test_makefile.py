"""What `make demo` ends with, where a person sees it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make(tmp_path):
    """Run a target of the Makefile with this Python in the place of the environment that it would set up; as a person
    does, and not from within the `make test` that runs the tests.
    """
    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (venv / "bin" / "python").chmod(0o755)
    (venv / ".installed").touch()

    def run(*words):
        outer = {"MAKELEVEL", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS"}
        env = {name: value for name, value in os.environ.items() if name not in outer}
        env["PYTHONPATH"] = str(ROOT / "src")
        command = ["make", "--no-print-directory", "-C", str(ROOT), f"VENV={venv}", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=100)

    return run


@pytest.mark.parametrize("finished", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_second_demo_ends_in_one_line(finished, make, tmp_path):
    folder = tmp_path / "run"
    (folder / "teacher").mkdir(parents=True)
    if finished:
        (folder / "results.json").write_text("{}")
    process = make("demo", f"ARGS=--output_dir {folder} --use_cpu true")
    told = [line for line in process.stderr.splitlines() if not line.startswith("make: ")]  # its own line
    assert process.stdout == ""
    assert len(told) == 1
    assert told[0].startswith(f"train_vqa.py: error: {folder} holds a run already")
    flags = f"--output_dir {folder} --use_cpu true --resume"
    assert f"`make demo ARGS='{flags}'`" in told[0]
    assert (f"{folder / 'results.json'} has its results" in told[0]) == finished


@pytest.mark.parametrize(
    ("words", "folder"),
    [("", "outputs/digit-scenes"), ("--output_dir a/b --seed 1", "a/b"), ("--seed 1 --output-dir=a/b", "a/b")],
)
def test_the_demo_trains_a_scorer_behind_its_teacher(words, folder, make, tmp_path):
    (tmp_path / "venv" / "bin" / "python").write_text('#!/bin/sh\necho "$@"\n')
    first, second = make("demo", f"ARGS={words}").stdout.splitlines()
    assert first == f"recipes/train_vqa.py {words}".rstrip()
    recipe = "recipes/vilt/digit_scenes/lookahead.yaml"
    assert second == f"recipes/train_vqa.py {recipe} --teacher {folder}/teacher --output_dir {folder}-lookahead"
