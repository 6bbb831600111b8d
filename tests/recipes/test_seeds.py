"""Several students of one run (`training.seeds`): their folders, their seeds, what is reported and refused."""

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import vilt_fields

from pumer_hf.data.vqa import VQA
from pumer_hf.hub.card import PuMerCard
from pumer_hf.recipes import stages
from pumer_hf.recipes.cards import recipe_file_card
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.recipes.run_plan import stage_lengths
from pumer_hf.recipes.runner import run_recipe, stage_arguments
from pumer_hf.results import Report

BLOCKS = {
    "task": "vqa",
    "model": {"config": vilt_fields(max_position_embeddings=12)},
    "reduction": {"method": "dynamicvit", "layers": [1], "prune_ratio": 0.5},
    "data": {"train_scenes": 8, "eval_scenes": 4, "unknown_answers": "ignore"},
    "training": {
        "max_steps": 2,
        "teacher_training": {"max_steps": 1},
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 16,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "benchmark_seconds": 0.05,
        "cache_teacher_logits": True,
        "seed": 3,
        "push_to_hub": False,
    },
}


class Watcher(stages.TimeLeftCallback):
    """Keeps the first weights of each student, and ends the first training of the second one as Ctrl-C does."""

    begun: ClassVar[dict[str, list[torch.Tensor]]] = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        weights = [value.detach().flatten() for name, value in model.named_parameters() if "reducer" in name]
        if weights:
            self.begun.setdefault(Path(args.output_dir).name, []).append(torch.cat(weights).clone())

    def on_step_end(self, args, state, control, **kwargs):
        if len(self.begun.get("student-seed4", ())) == 1:
            raise KeyboardInterrupt


def written(folder, blocks=BLOCKS):
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(blocks), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two students that is stopped in the second one and resumed: its folder, what the resumed part prints,
    and when the model of the first one was written before and after that.
    """
    patch = pytest.MonkeyPatch()
    patch.setattr("pumer_hf.recipes.runner.use_available_cores", lambda world_size: None)
    base = tmp_path_factory.mktemp("seeds")
    folder, text, times = base / "run", io.StringIO(), []
    patch.setattr(sys, "argv", ["train_vqa.py", str(written(base)), "--output_dir", str(folder), "--seeds", "2"])
    patch.setattr(stages, "TimeLeftCallback", Watcher)
    with pytest.raises(SystemExit):
        run_recipe("vqa")
    times.append((folder / "student" / "model.safetensors").stat().st_mtime_ns)
    assert not (folder / "results.json").exists()
    patch.setattr(sys, "argv", [*sys.argv, "--resume"])
    with redirect_stdout(text):
        run_recipe("vqa")
    times.append((folder / "student" / "model.safetensors").stat().st_mtime_ns)
    patch.undo()
    return folder, text.getvalue(), times


def test_a_resumed_run_trains_only_the_students_that_are_left(run):
    folder, printed, times = run
    assert times[0] == times[1]
    assert f"is complete in {folder / 'student'}, so it is skipped" in printed
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        *("cache", "student", "student-seed4", "teacher")
    ]
    assert len(list((folder / "cache").glob("*.arrow"))) == 1  # the teacher's logits are those of both
    record = json.loads((folder / "stages.json").read_text())
    seeds = {name: stage["training"]["seed"] for name, stage in record.items()}
    assert seeds == {"teacher": 3, "student": 3, "student-seed4": 4}


def test_the_report_has_the_mean_and_each_student(run):
    folder, printed, _ = run
    report = Report.load(folder / "results.json")
    assert [one.seed for one in report.seeds] == [3, 4]
    values = [one.student.main.value for one in report.seeds]
    assert report.evaluations["student"].main.value == pytest.approx(sum(values) / 2)
    assert {"teacher", "student"} == set(report.cost.gflops)
    lines = printed.splitlines()
    rows = lines[next(place for place, line in enumerate(lines) if line.startswith("seed ")) :]
    assert [line.split()[0] for line in rows[1:4]] == ["3", "4", "mean"]
    assert rows[1].split()[1] == f"{values[0]:.2f}"
    assert f"[{min(values):.2f}, {max(values):.2f}]" in rows[3]


def test_each_card_says_its_own_numbers_and_the_range(run):
    folder, _, _ = run
    report = Report.load(folder / "results.json")
    mean = report.evaluations["student"].main
    for one, name in zip(report.seeds, ("student", "student-seed4"), strict=True):
        card = PuMerCard.load(folder / name)
        assert card.seed == one.seed
        assert card.metadata().eval_results[0].metric_value == one.student.main.rounded
        row = next(line for line in card.render().splitlines() if line.startswith("| accuracy |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[2] == str(one.student.main)
        assert cells[3].startswith(f"{mean} [")
        assert f"seed {one.seed}" in card.render()
        assert (folder / name / "reduction.png").is_file()
    assert PuMerCard.load(folder / "teacher").seed is None


def test_the_card_of_the_recipe_file_has_the_range(run, tmp_path):
    folder, _, _ = run
    card = recipe_file_card(written(tmp_path), folder / "results.json")
    assert card.seed is None
    assert "n=2" in card.render()


def test_students_differ_in_all_that_is_random(run):
    folder, _, _ = run
    first, second = (load_file(folder / name / "model.safetensors") for name in ("student", "student-seed4"))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_reducer_that_learns_begins_with_weights_of_its_seed(run):
    (first,), (second, again) = Watcher.begun["student"], Watcher.begun["student-seed4"]
    assert torch.equal(second, again)
    assert not torch.equal(first, second)


def test_the_stages_of_each_student(tmp_path):
    flags = ["--seeds", "3", "--output_dir", str(tmp_path / "run"), "--push_to_hub", "true", "--data_seed", "7"]
    blocks = {**BLOCKS, "reduction": {"method": "tip", "layers": [1], "prune_ratio": 0.5}}
    blocks["training"] = {**BLOCKS["training"], "reducer_training": {"max_steps": 1, "seed": 9}}
    recipe = parse_recipe(VQA, written(tmp_path, blocks), [str(written(tmp_path, blocks)), *flags])
    assert list(stage_lengths(recipe, 8)) == [
        *("teacher", "reducer", "student"),
        *("reducer-seed4", "student-seed4", "reducer-seed5", "student-seed5"),
    ]
    students = [stage_arguments(VQA, one, "student") for one in recipe.students()]
    assert [args.seed for args in students] == [3, 4, 5]
    assert [args.data_seed for args in students] == [7, 8, 9]
    assert [args.push_to_hub for args in students] == [True, False, False]
    assert [one.stage("reducer").seed for one in recipe.students()] == [9, 10, 11]
    assert [one.stage("teacher").seed for one in recipe.students()] == [3, 3, 3]
    scorers = [one.scorer_arguments() for one in recipe.students()]
    assert [(args.seed, args.output_dir.rpartition("/")[2]) for args in scorers] == [
        *((3, "scorer"), (4, "scorer-seed4"), (5, "scorer-seed5"))
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "0"], "training.seeds=0: must be at least 1"),
        (["--seeds", "2", "--method", "none"], "training.seeds=2: .*no student.*--method none"),
        (["--seeds", "2", "--method", "random", "--max_steps", "0"], "training.seeds=2: .*training.max_steps: 0"),
    ],
)
def test_what_does_not_go_with_several_seeds_is_said_before_the_work(flags, message, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["train_vqa.py", str(written(tmp_path)), "--output_dir", str(folder), *flags])
    with pytest.raises(SystemExit, match=message):
        run_recipe("vqa")
    assert not (folder / "teacher").exists()
