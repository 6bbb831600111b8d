"""Help, version and mistakes cost no import of what is heavy."""

import resource
import subprocess
import sys
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
from runpy import run_module

import pytest

from pumer_hf.bench.contenders import DTYPES, MATMUL_PRECISIONS
from pumer_hf.convert.layouts import LAYOUTS
from pumer_hf.data.tasks import TASKS
from pumer_hf.models.families import FAMILIES
from pumer_hf_cli import COMMANDS, choices, main

CPU_SECONDS = 1.0
ENTRY = ConfigParser()
ENTRY.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
MODULE, _, FUNCTION = ENTRY["options.entry_points"]["console_scripts"].partition("=")[2].strip().partition(":")
# What the installed script does; the last line of its errors is what it imported.
SCRIPT = f"""
import sys
from {MODULE} import {FUNCTION}
try:
    status = {FUNCTION}()
except SystemExit as end:
    status = end.code
print(*sorted({{name.partition(".")[0] for name in sys.modules}}), file=sys.stderr)
sys.exit(status)
"""
HEAVY = {"torch", "transformers", "datasets", "accelerate", "numpy", "PIL", "yaml", "tqdm", "pumer_hf"}


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def quick(*arguments):
    """Status, output and errors of a call that has to be quick."""
    before = cpu_seconds()
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    taken = cpu_seconds() - before
    *errors, imported = result.stderr.splitlines()
    assert HEAVY.isdisjoint(imported.split())
    assert {MODULE, "argparse"} <= set(imported.split())
    assert taken < CPU_SECONDS
    return result.returncode, result.stdout, errors


@pytest.mark.parametrize("command", [None, *COMMANDS], ids=lambda command: command and command.name)
def test_help(command):
    status, printed, errors = quick(*([command.name] if command else []), "--help")
    assert (status, errors) == (0, [])
    assert all(one.example in printed for one in ([command] if command else COMMANDS))


def test_version():
    status, printed, errors = quick("--version")
    assert (status, errors) == (0, [])
    assert printed == f"pumer-hf {import_module('pumer_hf').__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bnech", "model"], "pumer-hf: error: 'bnech' is no command: did you mean bench?"),
        (["exprot", "--int8"], "pumer-hf: error: 'exprot' is no command: did you mean export?"),
        (["--verison"], "pumer-hf: error: '--verison' is no flag: did you mean --version?"),
        (
            ["bench", "model", "--batchsize", "8"],
            "pumer-hf bench: error: '--batchsize' is no flag: did you mean --batch-size?",
        ),
        (
            ["bench", "--stting=vilt/vqav2"],
            "pumer-hf bench: error: '--stting' is no flag: did you mean --setting?",
        ),
        (  # before what is missing
            ["convert", "--image_size", "384"],
            "pumer-hf convert: error: '--image_size' is no flag: did you mean --image-size?",
        ),
        (
            ["push", "model", "user/name", "--xyz"],
            "pumer-hf push: error: '--xyz' is no flag: `pumer-hf push --help` lists them",
        ),
    ],
)
def test_a_misspelt_word_is_one_line(arguments, message):
    assert quick(*arguments) == (2, "", [message])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "model", "--dtype", "int8"], "dtype='int8'"),
        (["bench", "model", "--device", "tpu"], "device='tpu'"),
        (["bench", "model", "--batch-size", "many"], "--batch-size many"),
        (["bench", "--table", "3"], "--table 3"),
        (["measure", "model", "--limit", "3"], "--limit"),
        (["demo", "model", "--requirement", "x"], "--requirement"),
        (["card", "folder", "--results", "r.json"], "--results"),
    ],
)
def test_a_wrong_value_is_found_before_the_imports(arguments, message):
    status, printed, errors = quick(*arguments)
    assert (status, printed) == (2, "")
    assert len(errors) == 1
    assert errors[0].startswith(f"pumer-hf {arguments[0]}: error: ")
    assert message in errors[0]


@pytest.mark.parametrize("arguments", [[], ["compress"], ["convert", "in"]])
def test_wrong_usage_is_quick(arguments):
    status, printed, errors = quick(*arguments)
    assert (status, printed) == (2, "")
    assert errors[0].startswith("usage: pumer-hf")


def test_flags_may_be_cut_short_and_texts_begin_with_dashes(monkeypatch):
    seen = []
    command = next(one for one in COMMANDS if one.name == "explain")
    monkeypatch.setattr(type(command), "run", lambda self, args: seen.append(args))
    assert main(["explain", "model", "a.png", "-- is it red?", "--out", "b.png"]) == 0
    assert main(["explain", "--keep-aspect", "model", "a.png", "--", "--it"]) == 0
    assert [(args.texts, args.output) for args in seen] == [
        (["-- is it red?"], "b.png"),
        (["--it"], "explained.png"),
    ]


def test_choices_are_the_true_ones():
    assert tuple(FAMILIES) == choices.BACKBONES
    assert tuple(DTYPES) == choices.DTYPES
    assert choices.MATMUL_PRECISIONS == MATMUL_PRECISIONS
    assert tuple(TASKS) == choices.TASKS
    assert tuple(LAYOUTS) == choices.KINDS
    assert ("pretrain", *TASKS) == choices.CONVERT_TASKS


def test_the_package_as_a_module(monkeypatch, capsys):
    """In this process: it takes seconds to import. `tests/package/test_wheel.py` starts it in one of its own."""
    monkeypatch.setattr(sys, "argv", ["__main__.py", "--version"])
    with pytest.raises(SystemExit) as ended:
        run_module("pumer_hf", run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (f"pumer-hf {import_module('pumer_hf').__version__}\n", "")
