"""Several students of one teacher in one report: the runs, what is put together, and what tables and cards say."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from in_process import run_here
from tiny import vilt_fields

from laboratory import seeds
from laboratory.render import recipes_table
from laboratory.seeds import collect, seeds_command
from pumer_hf.recipes.cards import recipe_file_card
from pumer_hf.results import Command, Report

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "vilt" / "digit_scenes" / "pumer.yaml"
CHANGES = {0: (-1.0, 1.6), 1: (0.0, 1.9), 2: (-0.2, 1.7)}


def values_of(change, speed):
    """What a run leaves, whose student changes the accuracy by so many points at such a speed."""
    return {
        "teacher": {"accuracy": 93.5, "questions": 40},
        "student": {"accuracy": 93.5 + change, "questions": 40, "accuracy_by_kind": {"count": 50.0 + change}},
        "baselines": {"question_only": 15.0},
        "throughput": {
            "ratio": speed,
            "batch_size": 8,
            "rounds": 5,
            "regime": "forward",
            "teacher": {"examples_per_second": 100.0, "slowest": 90.0, "fastest": 110.0, "ratio": 1.0},
            "student": {"examples_per_second": 100 * speed, "slowest": 1.0, "fastest": 999.0, "ratio": speed},
        },
        "gflops": {"teacher": 0.02, "student": 0.01, "ratio": 2.0},
        "tokens_per_layer": {"teacher": [[12, 37]], "student": [[10, 20]]},
        "versions": {},
        "machine": {"processor": "Some CPU", "torch_threads": 2, "system": "Linux"},
        "command": "train_vqa.py",
    }


def run_of(change, speed):
    return Report.from_dict(values_of(change, speed))


@pytest.fixture
def runs():
    return {seed: run_of(*values) for seed, values in CHANGES.items()}


def test_a_report_has_the_means_the_median_speed_and_every_run(runs):
    report = collect(runs)
    student = report.evaluations["student"]
    assert student.main.value == pytest.approx(93.1)
    assert student.by_kind["accuracy"]["count"].value == pytest.approx(49.6)
    assert student.counts == {"questions": 40}
    assert report.evaluations["teacher"] == runs[0].evaluations["teacher"]
    assert report.cost.throughput == runs[2].cost.throughput
    assert [(run.seed, run.student.main.value, run.speed) for run in report.seeds] == [
        (seed, 93.5 + change, speed) for seed, (change, speed) in CHANGES.items()
    ]
    assert runs[0] == run_of(*CHANGES[0])  # as it was


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("teacher", {"accuracy": 90.0}, "seeds 0 and 2 .*teacher"),
        ("tokens_per_layer", {"student": [[1, 1]]}, "seeds .*tokens per layer"),
        ("machine", {"processor": "Other CPU", "torch_threads": 2}, "seeds .*machine"),
    ],
)
def test_runs_that_do_not_belong_together(runs, name, value, message):
    runs[2] = Report.from_dict({**values_of(*CHANGES[2]), name: value})
    with pytest.raises(ValueError, match=message):
        collect(runs)


def test_a_row_says_mean_range_and_number(runs):
    several, one = collect(runs), run_of(-0.4, 1.5)
    lines = recipes_table({"several": several, "one": one}).splitlines()
    assert lines[2] == (
        "| several | 93.50 % | 93.10 % (-0.40 [-1.00, +0.00] n=3) | 15.0 % | 1.73x [1.60x, 1.90x] "
        "| Some CPU, 2 threads | 0.0200 -> 0.0100 |"
    )
    assert "| 93.10 % (-0.40) | 15.0 % | 1.50x | Some CPU, 2 threads |" in lines[3]
    assert "one run" in lines[-1]
    assert "[lowest, highest]" in lines[-1]
    assert recipes_table({"one": one}).splitlines()[-1] == "Each row is one run."


def test_a_card_says_mean_range_and_number_and_the_processor_beside_the_speed(runs, tmp_path):
    for name, report in (("several", collect(runs)), ("one", run_of(-0.4, 1.5))):
        report.save(tmp_path / f"{name}.json")
    several, one = (recipe_file_card(RECIPE, tmp_path / f"{name}.json") for name in ("several", "one"))
    text = several.render()
    assert "| accuracy | 93.50 % | 93.10 % [92.50, 93.50] n=3 |" in text
    assert "| speed, interleaved | 1.00x | 1.73x [1.60, 1.90] n=3 |" in text
    assert "5 interleaved rounds. Measured on Some CPU, 2 threads." in text
    assert "3 students were trained from one teacher, a seed each" in text
    assert "one run" not in text
    assert several.metadata().eval_results[0].metric_value == 93.1
    text = one.render()
    assert "| accuracy | 93.50 % | 93.10 % |" in text
    assert "All figures are of one run." in text


MADE_FROM = {"reduction": {"method": "random", "layers": [1], "prune_ratio": 0.5}, "data": {"grid_size": 3}}


@pytest.fixture
def launched(monkeypatch):
    """The runs of the command, replaced: the words of each, and results where it would leave them."""
    started = []

    def run(command, **_):
        words = command[command.index("--quiet") + 1 :]
        started.append(words)
        folder, seed = (words[words.index(name) + 1] for name in ("--output_dir", "--seed"))
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "results.json").write_text(json.dumps(values_of(*CHANGES[int(seed)])))
        steps = int(words[words.index("--max_steps") + 1]) if "--max_steps" in words else 5
        student = {**MADE_FROM, "training": {"max_steps": steps, "seed": int(seed)}}
        (Path(folder) / "stages.json").write_text(json.dumps({"student": student}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(seeds.subprocess, "run", run)
    return started


def test_a_given_teacher_is_that_of_all_seeds(launched, tmp_path):
    words = [str(RECIPE), "-o", str(tmp_path / "report.json"), "--work", str(tmp_path / "work")]
    seeds_command("", ROOT, [*words, "--seeds", "0", "1", "--teacher", "mine"])
    assert [run[run.index("--teacher") + 1] for run in launched] == ["mine", "mine"]


def test_the_first_seed_trains_the_teacher_and_what_is_done_is_not_done_again(launched, tmp_path, capsys):
    def command(*numbers):
        words = [str(RECIPE), "--work", str(tmp_path / "work"), "-o", str(tmp_path / "all.json"), "--max_steps", "9"]
        seeds_command("", ROOT, [*words, "--seeds", *numbers])

    command("0", "1")
    assert [word[:2] for word in launched] == 2 * [[str(ROOT / "recipes" / "train_vqa.py"), str(RECIPE)]]
    assert all(words[-2:] == ["--max_steps", "9"] for words in launched)
    assert not {"--teacher", "--resume"} & set(launched[0])
    assert launched[1][launched[1].index("--teacher") + 1] == str(tmp_path / "work" / "seed0" / "teacher")
    (tmp_path / "work" / "seed2").mkdir()  # of a run that was interrupted
    command("0", "1", "2")
    assert launched[2][launched[2].index("--resume") + 1] == "true"
    assert [words[words.index("--seed") + 1] for words in launched] == ["0", "1", "2"]
    report = Report.load(tmp_path / "all.json")
    assert report == collect({seed: run_of(*values) for seed, values in CHANGES.items()})
    assert "seed 2: 93.30 %, 1.70x" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("block", "field", "value"),
    [("training", "max_steps", 4), ("reduction", "method", "tip"), ("data", "grid_size", 2)],
)
def test_seeds_of_different_recipes_are_not_put_together(launched, tmp_path, block, field, value):
    """As when the recipe, or a flag, has changed since some of them were done; it is said before the other seeds."""
    words = [str(RECIPE), "--work", str(tmp_path / "work"), "-o", str(tmp_path / "all.json"), "--seeds"]
    seeds_command("", ROOT, [*words, "0", "1"])
    path = tmp_path / "work" / "seed1" / "stages.json"
    record = json.loads(path.read_text())
    record["student"][block][field] = value
    path.write_text(json.dumps(record))
    with pytest.raises(SystemExit, match=rf"(?s)seed1.*seed0.*{block}\.{field}.*{value}"):
        seeds_command("", ROOT, [*words, "0", "1", "2"])
    assert len(launched) == 2


def test_a_flag_that_has_changed_is_named(launched, tmp_path):
    words = [str(RECIPE), "--work", str(tmp_path / "work"), "-o", str(tmp_path / "all.json"), "--seeds"]
    seeds_command("", ROOT, [*words, "0", "1"])
    with pytest.raises(SystemExit, match=r"(?s)seed2.*training\.max_steps .*5 .*9"):
        seeds_command("", ROOT, [*words, "0", "1", "2", "--max_steps", "9"])


def test_a_seed_without_a_record_is_not_put_together_with_others(launched, tmp_path):
    words = [str(RECIPE), "--work", str(tmp_path / "work"), "-o", str(tmp_path / "all.json"), "--seeds", "0", "1"]
    seeds_command("", ROOT, words)
    (tmp_path / "work" / "seed1" / "stages.json").unlink()
    with pytest.raises(SystemExit, match=r"seed1/stages\.json"):
        seeds_command("", ROOT, words)


def test_the_commands_in_the_report_lack_what_says_nothing_about_the_result(runs):
    own = "--output_dir /home/me/seed{} --seed {} --resume true --report_to none"
    for seed, run in runs.items():
        words = ["recipes/a.yaml", *own.format(seed, seed).split(), "--x", '{"a": 1}', "--max_steps", "9"]
        runs[seed] = replace(run, environment=replace(run.environment, command=Command("train_vqa.py", tuple(words))))
    report = collect(runs)
    assert str(report.environment.command) == """train_vqa.py recipes/a.yaml --seed 0 --x '{"a": 1}' --max_steps 9"""
    assert str(report.seeds[2].command) == """train_vqa.py recipes/a.yaml --seed 2 --x '{"a": 1}' --max_steps 9"""


def test_ctrl_c_ends_the_command_in_one_line(monkeypatch, tmp_path, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(seeds.subprocess, "run", stop)
    with pytest.raises(SystemExit) as caught:
        seeds_command("", ROOT, [str(RECIPE), "--work", str(tmp_path), "-o", str(tmp_path / "all.json")])
    assert caught.value.code == 130
    assert "same command" in capsys.readouterr().err.splitlines()[-1]


def test_two_students_are_trained_from_one_teacher(monkeypatch, tmp_path):
    """The runs themselves, in this process."""
    monkeypatch.setattr(
        seeds.subprocess, "run", lambda command, **_: run_here(command[command.index("--quiet") :], tmp_path)
    )
    flags = [
        "--config",
        json.dumps(vilt_fields(max_position_embeddings=12)),
        "--train_scenes",
        "8",
        "--eval_scenes",
        "4",
        "--unknown_answers",
        "ignore",
    ]
    flags += ["--max_steps", "1", "--teacher_training", '{"max_steps": 1}', "--per_device_train_batch_size", "4"]
    flags += ["--per_device_eval_batch_size", "16", "--benchmark_seconds", "0.1", "--report_to", "none", "--use_cpu"]
    words = [str(RECIPE), "--work", str(tmp_path / "work"), "-o", str(tmp_path / "all.json"), "--seeds", "4", "7"]
    seeds_command("", ROOT, [*words, *flags])
    report = json.loads((tmp_path / "all.json").read_text())
    assert [run["seed"] for run in report["seeds"]] == [4, 7]
    assert "--teacher" in report["seeds"][1]["command"]
    assert str(tmp_path) not in json.dumps(report)
    assert not (tmp_path / "work" / "seed7" / "teacher").exists()
    card = recipe_file_card(RECIPE, tmp_path / "all.json")
    assert "n=2" in card.render()
    assert card.training["seed"] == 4


def test_a_run_that_fails_ends_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(seeds.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 3))
    with pytest.raises(SystemExit, match="status 3"):
        seeds_command("", ROOT, [str(RECIPE), "--work", str(tmp_path), "-o", str(tmp_path / "all.json")])
    assert not (tmp_path / "all.json").exists()


@pytest.mark.parametrize(
    ("recipe", "output", "flags", "message"),
    [
        ("none.yaml", "all.json", [], "none.yaml.*no such recipe"),
        (str(RECIPE), "all.json", ["--seeds", "3"], "--seeds 3: .*two"),
        (str(RECIPE), "all.json", ["--seed", "3"], "--seed: "),
        (str(RECIPE), "all.json", ["--seed=3"], "--seed: "),
        (str(RECIPE), "no/folder/all.json", [], "-o"),
    ],
)
def test_what_is_wrong_is_said_before_the_work(launched, tmp_path, recipe, output, flags, message):
    words = [recipe, "--work", str(tmp_path / "work"), "-o", str(tmp_path / output), *flags]
    with pytest.raises(SystemExit, match=message):
        seeds_command("", ROOT, words)
    assert not launched


def test_help_teaches(tmp_path):
    process = run_here([sys.executable, str(ROOT / "benchmarks" / "seeds.py"), "--help"], tmp_path)
    assert process.returncode == 0
    assert "--seeds" in process.stdout
    assert "-o benchmarks/results/digit_scenes_vilt.json" in process.stdout
