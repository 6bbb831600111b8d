"""Recipes whose reduction has a scorer: teacher, scorer, and a student that is frozen or distilled."""

import io
import json
import sys
from contextlib import redirect_stdout

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import PUMER, assert_same_weights, vilt_fields

from pumer_hf.models.loading import load_checkpoint_model
from pumer_hf.recipes import scorer as scorer_module
from pumer_hf.recipes.runner import run_recipe

LOOKAHEAD = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25, "rank": 4}
BEHIND = {**PUMER, "prune_ratio": 0.3}
SCORER = "vilt.inputs.reducer.scorer."


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Runs a recipe in this process, and gives the folder of its run."""
    patch = pytest.MonkeyPatch()
    patch.setattr("pumer_hf.recipes.runner.use_available_cores", lambda world_size: None)
    patch.setattr(scorer_module, "SPEED_SECONDS", 0.01)

    def run(reduction, folder=None, flags=(), data=None, **training):
        folder = folder or tmp_path_factory.mktemp("run") / "run"
        blocks = {
            "task": "vqa",
            "model": {"config": vilt_fields(max_position_embeddings=12, initializer_range=0.4)},
            "reduction": reduction,
            "data": {"train_scenes": 8, "eval_scenes": 4, "unknown_answers": "ignore", **(data or {})},
            "training": {
                "output_dir": str(folder),
                "max_steps": 0,
                "teacher_training": {"max_steps": 2},
                "scorer_training": {"max_steps": 3, "answer_steps": 2, "per_device_train_batch_size": 4},
                "per_device_train_batch_size": 4,
                "per_device_eval_batch_size": 8,
                "use_cpu": True,
                "disable_tqdm": True,
                "report_to": "none",
                "benchmark_seconds": 0.05,
                **training,
            },
        }
        blocks["training"] = {name: value for name, value in blocks["training"].items() if value is not None}
        path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
        path.write_text(yaml.safe_dump(blocks), encoding="utf-8")
        patch.setattr(sys, "argv", ["train_vqa.py", str(path), *flags])
        run_recipe("vqa")
        return folder

    yield run
    patch.undo()


@pytest.fixture(scope="module")
def first(start):
    """A run with a frozen student: its folder, and what it printed."""
    text = io.StringIO()
    with redirect_stdout(text):
        folder = start(LOOKAHEAD)
    return folder, text.getvalue()


@pytest.fixture(scope="module")
def frozen(first):
    return first[0]


def test_the_plan_names_the_scorer_and_the_frozen_student(first):
    _, printed = first
    plan = printed.split("Plan of this run:\n")[1].split("\n  results ")[0]
    names = [line.split()[0] for line in plan.splitlines()]
    assert [name for name in names if name in ("teacher", "scorer", "student")] == ["teacher", "scorer", "student"]
    assert "not trained" in plan
    assert "before the first layer" in plan


def test_the_student_is_the_teacher_with_the_scorer(frozen):
    teacher, student, scorer = (
        load_file(frozen / name)
        for name in ("teacher/model.safetensors", "student/model.safetensors", "scorer/reducer.safetensors")
    )
    assert_same_weights(teacher, {name: value for name, value in student.items() if "reducer" not in name})
    for name, value in student.items():
        if name.startswith(SCORER):
            assert torch.equal(value, scorer[name.removeprefix("vilt.inputs.reducer.")])
    reduction = json.loads((frozen / "student" / "config.json").read_text())["reduction"]
    assert {**reduction, **LOOKAHEAD} == reduction
    assert "weights" not in reduction
    assert reduction["target_layer"] in (0, 1, 2, "all")


def test_the_run_has_results_a_card_and_a_picture(frozen):
    results = json.loads((frozen / "results.json").read_text())
    assert results["scorer"]["target_layer"] in (0, 1, 2, "all")
    assert [row["kept"] for row in results["scorer"]["rows"]] == ["1/2", "1/3", "2/9", "1/9"]
    assert results["teacher"]["accuracy"] >= 0
    assert results["throughput"]["student"]["examples_per_second"] > 0
    assert results["gflops"]["ratio"] > 1
    card = (frozen / "student" / "README.md").read_text()
    assert "lookahead" in card
    assert "num_train_epochs" not in card
    assert list((frozen / "student").glob("*.png"))


def test_the_student_loads_without_the_other_folders(frozen):
    model = load_checkpoint_model(str(frozen / "student"))
    assert [part.method for part in model.reduction.parts] == ["lookahead"]
    model.set_reduction({**LOOKAHEAD, "keep_ratio": 0.5})


def test_a_finished_run_is_evaluated_again(frozen, start, capsys):
    before = (frozen / "student" / "model.safetensors").read_bytes()
    (frozen / "results.json").unlink()
    capsys.readouterr()
    start(LOOKAHEAD, frozen, resume=True)
    printed = capsys.readouterr()
    assert "scorer" in printed.out
    assert "is complete" in printed.out + printed.err
    assert (frozen / "student" / "model.safetensors").read_bytes() == before
    assert "scorer" in json.loads((frozen / "results.json").read_text())


def test_a_scorer_that_is_given_is_not_trained_and_keep_mass_counts_image_tokens(frozen, start, capsys):
    given = {**LOOKAHEAD, "weights": str(frozen / "scorer")}
    flags = ["--teacher", str(frozen / "teacher"), "--keep_mass", "0.6"]
    folder = start(given, flags=flags, teacher_training=None, scorer_training=None)
    assert not (folder / "scorer").exists()
    weights = load_file(folder / "student" / "model.safetensors")
    expected = load_file(frozen / "student" / "model.safetensors")
    assert_same_weights(weights, expected)
    results = json.loads((folder / "results.json").read_text())
    assert "scorer" not in results
    assert "image_tokens" not in results["teacher"]
    number, by_kind = results["student"]["image_tokens"], results["student"]["image_tokens_by_kind"]
    assert 1 <= min(by_kind.values()) <= number <= max(by_kind.values()) < 36
    assert "image tokens (lower is better)" in capsys.readouterr().out
    assert "image_tokens" not in (folder / "student" / "README.md").read_text().split("---")[1]


@pytest.mark.parametrize("train_scorer", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_distilled_student(train_scorer, start):
    """With pumer behind it. The scorer learns only if it is asked to."""
    folder = start([LOOKAHEAD, BEHIND], max_steps=3, learning_rate=0.01, train_scorer=train_scorer)
    scorer = load_file(folder / "scorer" / "reducer.safetensors")
    student = load_file(folder / "student" / "model.safetensors")
    teacher = load_file(folder / "teacher" / "model.safetensors")
    learned = [
        not torch.equal(value, scorer[name.removeprefix("vilt.inputs.reducer.")])
        for name, value in student.items()
        if name.startswith(SCORER)
    ]
    assert any(learned) == train_scorer
    assert not torch.equal(student["classifier.3.weight"], teacher["classifier.3.weight"])
    model = load_checkpoint_model(str(folder / "student"))
    assert [part.method for part in model.reduction.parts] == ["lookahead", "pumer"]


def test_any_reduction_may_have_a_frozen_student(start):
    folder = start({"method": "diverse", "site": "inputs", "keep_ratio": 0.5}, scorer_training=None)
    assert_same_weights(folder / "teacher", folder / "student")
    assert not (folder / "scorer").exists()


@pytest.mark.parametrize(
    ("reduction", "training", "message"),
    [
        (LOOKAHEAD, {"teacher_training": None}, "stage teacher"),
        ({"method": "tip", "layers": [1], "prune_ratio": 0.3}, {"scorer_training": None}, "'tip'"),
        (BEHIND, {}, "training.scorer_training"),
        (LOOKAHEAD, {"train_scorer": True}, "training.train_scorer"),
        (LOOKAHEAD, {"scorer_training": {"max_stepz": 3}}, "max_steps"),
        (LOOKAHEAD, {"reducer_training": {"max_steps": 2}}, "reducer_training"),
        ({**LOOKAHEAD, "weights": "some/scorer"}, {}, "model.teacher"),
    ],
)
def test_what_is_wrong_is_told_before_any_training(reduction, training, message, start, tmp_path):
    with pytest.raises(SystemExit) as ended:
        start(reduction, tmp_path / "run", **training)
    assert message in str(ended.value)
    assert not (tmp_path / "run" / "teacher").exists()


def test_a_scorer_that_is_not_there_is_told_before_any_training(frozen, start, tmp_path):
    missing = {**LOOKAHEAD, "weights": str(tmp_path / "nothing")}
    with pytest.raises(SystemExit) as ended:
        start(missing, tmp_path / "run", flags=["--teacher", str(frozen / "teacher")], scorer_training=None)
    assert "nothing" in str(ended.value)


@pytest.mark.slow
def test_each_seed_trains_its_own_scorer_behind_the_one_teacher(start, frozen):
    folder = start(LOOKAHEAD, flags=["--teacher", str(frozen / "teacher"), "--seeds", "2", "--seed", "0"])
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        *("scorer", "scorer-seed1", "student", "student-seed1")
    ]
    first, second = (load_file(folder / name / "model.safetensors") for name in ("student", "student-seed1"))
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed
    assert all(name.startswith(SCORER) for name in changed)
    assert [run["seed"] for run in json.loads((folder / "results.json").read_text())["seeds"]] == [0, 1]
