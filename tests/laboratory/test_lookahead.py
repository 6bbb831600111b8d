"""The study of lookahead: its results, its tables, and scorers that were trained on other data."""

import json

import pytest

from laboratory.lookahead import CARRIES, Carry, has_unseen_word
from laboratory.lookahead_command import lookahead_command
from laboratory.lookahead_mass import LEAST, MASSES, ByKind, MassReport, MassRow, MassRun, mass_table
from laboratory.lookahead_results import Accuracy, ChoiceRow, LookaheadReport, SeedAccuracy, report_table
from pumer_hf.results import Environment


def row(name, kept, number, values, speed=None):
    runs = tuple(
        SeedAccuracy(seed if len(values) > 1 else None, Accuracy(value, {"one place": value + 1}))
        for seed, value in enumerate(values)
    )
    return ChoiceRow(name, kept, number, runs, speed)


@pytest.fixture
def report():
    rows = (
        row("lookahead", "1/2", 18, [90.0, 92.0], 1.5),
        row("diverse", "1/2", 18, [80.0], 1.6),
        row("lookahead", "1/9", 4, [70.0, 71.0], 2.5),
    )
    baselines = {"unreduced": Accuracy(93.0, {"one place": 97.0}), "no image": Accuracy(10.0, {"one place": 9.0})}
    return LookaheadReport("plain", baselines, 2, rows, 400, Environment())


def test_a_table_has_a_row_per_choice_and_group_and_a_column_per_number_of_patches(report):
    lines = report_table(report).splitlines()
    assert lines[0] == "|  | 1/2 (18 patches) | 1/9 (4 patches) |"
    assert lines[2] == "| lookahead | 91.00 [90.00, 92.00] n=2, 1.50x | 70.50 [70.00, 71.00] n=2, 2.50x |"
    assert lines[3].startswith("| lookahead: one place | 92.00 [91.00, 93.00] n=2, 1.50x |")
    assert lines[4] == "| diverse | 80.00, 1.60x |  |"
    assert "unreduced 93.00 (one place 97.00); no image 10.00" in lines[-1]
    assert "400 test questions of plain" in lines[-1]


def test_a_report_is_read_as_it_was_written(report, tmp_path):
    report.save(tmp_path / "plain.json")
    assert json.loads((tmp_path / "plain.json").read_text())["setting"] == "plain"
    assert report_table(LookaheadReport.load(tmp_path / "plain.json")) == report_table(report)


@pytest.mark.parametrize(
    ("text", "unseen"),
    [("what digit is red?", True), ("how many sevens?", True), ("what colour is the six?", False)],
)
def test_unseen_words_are_whole_words(text, unseen):
    assert has_unseen_word(text) is unseen


def test_names_of_other_data_are_unique():
    for carries in CARRIES.values():
        names = [carry.name for carry in carries]
        assert len(set(names)) == len(names)
        assert all(isinstance(carry, Carry) for carry in carries)


@pytest.fixture
def mass_report():
    def runs(accuracy, patches):
        kinds = {"one place": accuracy + 1}, {"one place": patches - 1}
        return tuple(
            MassRun(seed, ByKind(accuracy + seed, kinds[0]), ByKind(patches + seed, kinds[1])) for seed in (0, 1)
        )

    rows = [MassRow(None, runs=runs(90.0, 36.0))]
    for mass in MASSES:
        rows += [MassRow(mass, False, least, runs(89.0, 10 * mass), 1.5) for least in LEAST]
        rows += [MassRow(mass, True, least, runs(88.0, 10.0)) for least in LEAST]
    return MassReport("plain", 36, 400, tuple(rows), Environment())


def test_a_table_of_keep_mass_has_each_choice_and_each_kind(mass_report, tmp_path):
    lines = mass_table({"plain": mass_report}).splitlines()
    cells = "8.5 [8.0, 9.0] | 89.50 [-1.00, -1.00], 1.50x | 88.50 [-2.00, -2.00]"
    assert f"| 0.8 | {cells} |" in lines
    assert f"| 0.8, at least a ninth | {cells} |" in lines
    assert "| one place | 7.0 | 90.00 | 89.00 | 91.00 |" in lines
    mass_report.save(tmp_path / "plain.json")
    assert MassReport.load(tmp_path / "plain.json") == mass_report


def test_a_teacher_is_given_for_each_seed(tmp_path, capsys):
    words = ["plain", "--mass", "--teacher", "one", "-o", str(tmp_path / "plain.json")]
    with pytest.raises(SystemExit, match="--teacher one: .*--seeds"):
        lookahead_command("", tmp_path, words)
