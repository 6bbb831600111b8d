"""The wheel that models and Spaces carry is the one that setuptools would build, and it works."""

import json
import os
import re
import subprocess
import sys
from subprocess import CompletedProcess
from zipfile import ZipFile

import pytest
from builds import ROOT, built, copy_of
from tiny import vilt_fields

from pumer_hf import wheel
from pumer_hf.wheel import make_wheel

SOURCES = ("src", "recipes", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    pytest.importorskip("setuptools", minversion="77", reason="it builds the wheel to compare with")
    return copy_of(SOURCES, tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def official(clone, tmp_path_factory):
    return built(clone, "build_wheel", tmp_path_factory.mktemp("official"))


@pytest.fixture
def editable(clone, tmp_path_factory, monkeypatch):
    """The package as `pip install -e .` leaves it: code in the clone, metadata of now, and traces of this machine."""
    folder = tmp_path_factory.mktemp("editable")
    info = built(clone, "prepare_metadata_for_build_wheel", folder)
    (info / "direct_url.json").write_text('{"url": "file:///home/me/pumer-hf"}')
    (info / "WHEEL").write_text("Wheel-Version: 1.0\n")
    monkeypatch.syspath_prepend(str(folder))
    return info


@pytest.fixture
def made(editable, tmp_path):
    name, content = make_wheel()
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def contents(path):
    with ZipFile(path) as archive:
        assert archive.testzip() is None
        return {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}


def test_it_is_what_setuptools_builds(made, official):
    assert made.name == official.name
    ours, theirs = contents(made), contents(official)
    assert set(ours) == set(theirs)
    assert len(ours) > 100
    written_anew = [name for name in ours if name.endswith((".dist-info/WHEEL", ".dist-info/RECORD"))]
    assert len(written_anew) == 2
    assert all(ours[name] == theirs[name] for name in set(ours) - set(written_anew))
    hashes = [{line for line in found.decode().splitlines() if "WHEEL" not in line} for found in
              (ours[written_anew[-1]], theirs[written_anew[-1]])]  # fmt: skip
    assert hashes[0] == hashes[1]


def test_the_same_code_makes_the_same_bytes(made):
    assert make_wheel() == (made.name, made.read_bytes())


def test_it_tells_nothing_of_this_machine(made):
    for name, content in contents(made).items():
        assert b"/home/me" not in content
        assert str(ROOT).encode() not in content, name


def install(archive, folder):
    """Install a wheel into a folder, as somebody does who has the wheel alone: no clone, no index."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--quiet", "--target", str(folder), str(archive)], check=True)
    return folder


def test_it_installs_and_runs_and_makes_itself_again(made, tmp_path):
    target = install(made, tmp_path / "target")
    (listed,) = [text.decode() for name, text in contents(made).items() if name.endswith("/entry_points.txt")]
    module, function = re.search(r"^pumer-hf = ([\w.]+):(\w+)$", listed, re.MULTILINE).groups()
    code = f"""
        import sys
        import {module}, pumer_hf
        from pumer_hf.hub.card import TEMPLATE
        from pumer_hf.wheel import make_wheel
        assert pumer_hf.__file__.startswith({str(target)!r}), pumer_hf.__file__
        assert {module}.__file__.startswith({str(target)!r})
        assert TEMPLATE.is_file()
        assert callable({module}.{function})
        sys.stdout.buffer.write(make_wheel()[1])
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(target)}, capture_output=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == made.read_bytes()


# What its user can do without the repository


def test_it_holds_the_recipes_and_nothing_of_the_laboratory(official):
    held = contents(official)
    recipes = {name.removeprefix("pumer_hf/recipes/files/") for name in held if name.endswith(".yaml")}
    assert recipes == {path.relative_to(ROOT / "recipes").as_posix() for path in ROOT.glob("recipes/*/*/*.yaml")}
    assert "vilt/digit_scenes/pumer.yaml" in recipes
    folders = {part for name in held for part in name.split("/")[:-1]}
    assert folders.isdisjoint({"laboratory", "study", "benchmarks", "tests", "accelerate"})


@pytest.fixture(scope="module")
def installed(official, tmp_path_factory):
    return install(official, tmp_path_factory.mktemp("installed"))


EACH = """
import contextlib, io, json, runpy, sys

done = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["pumer-hf", *words]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module("pumer_hf", run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
            if isinstance(status, str):
                print(status, file=err)
                status = 1
    done.append([words, status, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""
"""Runs `python -m pumer_hf` for each of several commands, in one process, since to import it takes seconds."""


@pytest.fixture
def pumer_hf(installed, tmp_path):
    """Runs commands of the installed wheel in an empty folder, far from the repository."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*commands):
        process = subprocess.run(
            [sys.executable, "-c", EACH, json.dumps(commands)],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return [CompletedProcess(*done) for done in json.loads(process.stdout.splitlines()[-1])]

    return run


def test_it_trains_and_evaluates_and_says_what_is_wrong_in_a_flag_in_one_line(pumer_hf, tmp_path):
    scenes = ["--train_scenes", "8", "--eval_scenes", "4", "--unknown_answers", "ignore"]
    batches = ["--per_device_train_batch_size", "4", "--per_device_eval_batch_size", "4", "--use_cpu", "true"]
    small = ["--config", json.dumps(vilt_fields(max_position_embeddings=12)), "--layers", "0", "1"]
    steps = ["--max_steps", "1", "--teacher_training", '{"max_steps": 1}', "--benchmark_seconds", "0.05"]
    wrong, train, evaluate = pumer_hf(
        ["train", "vqa", "--max_stepz", "1"],
        ["train", "vqa", *scenes, *batches, *small, *steps, "--output_dir", "run"],
        ["evaluate", "vqa", "--model", "run/student", *scenes, *batches],
    )
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.splitlines() == [
        "pumer-hf train vqa: error: unknown argument '--max_stepz': did you mean --max_steps?"
    ]
    assert train.returncode == 0, train.stderr
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["command"].startswith("pumer-hf train vqa --train_scenes 8 ")
    assert evaluate.returncode == 0, evaluate.stderr
    assert evaluate.stdout.startswith("run/student, task vqa, split test:\n")


@pytest.mark.slow
def test_own_data_alone_are_an_error_with_two_commands(pumer_hf):
    """The second of them names a recipe file of the repository, which the wheel has too."""
    (process,) = pumer_hf(["train", "vqa", "--train_file", "gone.jsonl", "--validation_file", "gone.jsonl"])
    finetune, scratch = (line.partition(": ")[2] for line in process.stderr.splitlines()[1:])
    assert finetune.startswith("pumer-hf train vqa --checkpoint dandelin/vilt-b32-mlm --train_file")
    assert scratch.startswith("pumer-hf train vqa recipes/vilt/own_data/scratch.yaml --train_file")
    (process,) = pumer_hf(scratch.split()[1:])
    assert process.returncode == 1
    assert process.stderr.startswith("pumer-hf train vqa: error: ")
    assert "gone.jsonl" in process.stderr


# An installation that has changed since


def say_editable(info, clone):
    (info / "direct_url.json").write_text(json.dumps({"url": clone.as_uri(), "dir_info": {"editable": True}}))


def test_an_editable_installation_that_fits_the_clone_makes_the_same_wheel(made, editable):
    say_editable(editable, ROOT)
    assert make_wheel() == (made.name, made.read_bytes())


@pytest.mark.parametrize(
    ("name", "then", "now", "message"),
    [
        ("METADATA", r"^Requires-Dist: accelerate>=[\d.]+$", "Requires-Dist: accelerate>=0.1", "accelerate>=0.1"),
        ("METADATA", r"^Requires-Dist: gradio.*$", "", "gradio"),
        ("METADATA", r"^Version: .*$", "Version: 0.0.1", "version.*0.0.1"),
        ("METADATA", r"^Requires-Python: .*$", "Requires-Python: >=3.7", "python>=3.7"),
        ("top_level.txt", r"^pumer_hf_cli\n", "", "package.* pumer_hf_cli"),
        ("top_level.txt", r"\Z", "\npumer_hf_old\n", "package.* pumer_hf_old"),
        ("entry_points.txt", r"^pumer-hf = .*$", "pumer-hf = pumer_hf.cli:main", "pumer_hf.cli:main"),
    ],
)
def test_an_editable_installation_of_before_is_refused(editable, name, then, now, message):
    """A wheel of it would install the code of now with the metadata of then."""
    say_editable(editable, ROOT)
    text, changes = re.subn(then, now, (editable / name).read_text(), flags=re.MULTILINE)
    assert changes
    (editable / name).write_text(text)
    with pytest.raises(ImportError, match=f"(?s){message}.*run `pip install -e .` again in {ROOT}"):
        make_wheel()
    with pytest.raises(ImportError, match="pip install -e"):
        wheel.installation()


def test_the_installation_of_another_clone_is_not_compared_with_this_one(made, editable, tmp_path):
    """As for who runs a second working tree by PYTHONPATH."""
    say_editable(editable, tmp_path)
    text = (editable / "METADATA").read_text()
    (editable / "METADATA").write_text(text.replace("Requires-Dist: accelerate", "Requires-Dist: accelerated"))
    assert make_wheel()[0] == made.name


def test_without_an_installation_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(wheel, "distributions", lambda name: [])
    with pytest.raises(ImportError, match="not installed.*pip install -e"):
        make_wheel()
