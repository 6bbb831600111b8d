"""Recipes leave cards, and push the student, or the only model, once it has results."""

import json
import sys
from pathlib import Path

import pytest
from in_process import run_here
from tiny_tasks import CONFIGS

from pumer_hf.data.vqa import VQA
from pumer_hf.hub.card import PuMerCard
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.recipes.runner import stage_arguments

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "train_vqa.py"
DEFAULT = ROOT / "recipes" / "vilt" / "digit_scenes" / "pumer.yaml"
FLAGS = {
    "config": json.dumps(CONFIGS["vilt"]),
    "layers": ["0", "1"],
    "train_scenes": "8",
    "eval_scenes": "4",
    "unknown_answers": "ignore",
    "max_steps": "2",
    "save_steps": "1",
    "teacher_training": json.dumps({"max_steps": 2}),
    "benchmark_seconds": "0.1",
    "per_device_train_batch_size": "8",
    "per_device_eval_batch_size": "8",
    "use_cpu": "true",
    "push_to_hub": "true",
    "hub_model_id": "user/tiny-student",
    "hub_strategy": "every_save",
    "hub_private_repo": "true",
}


def test_a_recipe_pushes_its_student_with_results(hub, tmp_path):
    words = [sys.executable, str(SCRIPT), "--output_dir", "out"]
    for name, value in FLAGS.items():
        words += [f"--{name}", *([value] if isinstance(value, str) else value)]
    process = run_here(words, tmp_path)
    assert process.returncode == 0, process.stderr
    assert list(hub.repos) == ["user/tiny-student"]  # the teacher stays at home
    repo, files = hub.repos["user/tiny-student"], hub.files("user/tiny-student")
    assert repo.private
    assert repo.titles[-1] == "Results"
    assert not {name for name in files if "checkpoint" in name or name.endswith((".bin", ".pt"))}
    folder = tmp_path / "out" / "student"
    assert {name: (folder / name).read_bytes() for name in ("README.md", "model.safetensors")} == {
        name: files[name] for name in ("README.md", "model.safetensors")
    }

    report = json.loads((tmp_path / "out" / "results.json").read_text())
    for role in ("teacher", "student"):
        card = PuMerCard.load(tmp_path / "out" / role)
        assert card.report.to_dict() == report
        assert card.role == role
        has_picture = role == "student"
        assert card.render(has_picture) == (tmp_path / "out" / role / "README.md").read_text()
        assert (tmp_path / "out" / role / "reduction.png").exists() == has_picture
        assert f"{report[role]['accuracy']:.2f} %" in card.render()
    assert 'model="user/tiny-student"' in files["README.md"].decode()
    assert files["reduction.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "teacher", "student"),
    [
        ({}, None, None),
        ({"push_to_hub": "true"}, None, "run"),
        ({"push_to_hub": "true", "hub_model_id": "user/x"}, None, "user/x"),
        ({"push_to_hub": "true", "teacher_training": '{"hub_model_id": "user/t"}'}, "user/t", "run"),
        (
            {"push_to_hub": "true", "hub_model_id": "user/x", "teacher_training": '{"hub_model_id": "user/x"}'},
            None,
            "user/x",
        ),
        ({"push_to_hub": "true", "method": "none"}, "run", "run"),  # there is no student: the teacher is the result
    ],
)
def test_what_each_stage_pushes(flags, teacher, student):
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    recipe = parse_recipe(VQA, DEFAULT, ["--output_dir", "outputs/run", *words])
    for role, expected in (("teacher", teacher), ("student", student)):
        args = stage_arguments(VQA, recipe, role)
        assert (args.hub_model_id if args.push_to_hub else None) == expected
