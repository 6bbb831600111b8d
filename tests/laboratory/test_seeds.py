"""Several students of one teacher in one report: what is put together, and what tables, cards and a run say."""

from dataclasses import replace
from pathlib import Path

import pytest

from laboratory.render import recipes_table
from pumer_hf.data.vqa import VQA
from pumer_hf.recipes.cards import recipe_file_card
from pumer_hf.recipes.known import known_results
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.recipes.report import format_report
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
    report = Report.of_seeds(runs)
    student = report.evaluations["student"]
    assert student.main.value == pytest.approx(93.1)
    assert student.by_kind["accuracy"]["count"].value == pytest.approx(49.6)
    assert student.counts == {"questions": 40}
    assert report.evaluations["teacher"] == runs[0].evaluations["teacher"]
    assert report.cost == runs[2].cost
    assert [(run.seed, run.student.main.value, run.speed) for run in report.seeds] == [
        (seed, 93.5 + change, speed) for seed, (change, speed) in CHANGES.items()
    ]
    assert runs[0] == run_of(*CHANGES[0])  # as it was


def test_a_row_says_mean_range_and_number(runs):
    several, one = Report.of_seeds(runs), run_of(-0.4, 1.5)
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
    for name, report in (("several", Report.of_seeds(runs)), ("one", run_of(-0.4, 1.5))):
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


def test_a_run_prints_each_student_and_the_range(runs):
    lines = format_report(Report.of_seeds(runs)).splitlines()
    assert lines[0].split() == ["teacher", "mean", "of", "3", "students"]
    assert [" ".join(line.split()) for line in lines[-4:]] == [
        "0 92.50 -1.00 1.60x",
        "1 93.50 +0.00 1.90x",
        "2 93.30 -0.20 1.70x",
        "mean [lowest, highest] 93.10 [92.50, 93.50] -0.40 [-1.00, +0.00] 1.73x [1.60x, 1.90x]",
    ]
    assert "5 interleaved rounds; that of the student with the median speed." in "\n".join(lines)
    assert "student with" not in format_report(runs[0])
    assert "students" not in format_report(runs[0])


def named(report, *words):
    """The report of a run that was started with these words."""
    return replace(report, environment=replace(report.environment, command=Command("train_vqa.py", words)))


def test_a_run_is_shown_beside_the_known_range_of_its_recipe(runs, tmp_path):
    recipe, report = parse_recipe(VQA, RECIPE, []), run_of(-0.3, 1.5)
    named(Report.of_seeds(runs), str(RECIPE), "--seeds", "3").save(tmp_path / "digit_scenes_vilt.json")
    run_of(0, 1).save(tmp_path / "other_vilt.json")
    told = "\n".join(known_results(recipe, named(report, "--output_dir", "a", "--seed", "7"), tmp_path))
    assert "Some CPU, 2 threads (digit_scenes_vilt.json)" in told
    rows = [" ".join(line.split()) for line in told.splitlines()]
    assert "this run 93.20 -0.30 1.50x" in rows
    assert "3 known seeds 93.10 [92.50, 93.50] -0.40 [-1.00, +0.00] 1.73x [1.60x, 1.90x]" in rows
    smaller = replace(report, cost=replace(report.cost, gflops={"teacher": 0.02, "student": 0.009}))
    for other in (named(report, "--max_steps", "9"), named(smaller), named(Report.of_seeds(runs))):
        assert known_results(recipe, other, tmp_path) == []
    assert known_results(recipe, named(report), tmp_path / "of_a_wheel") == []
