"""The study of sites: its rows, the match of speeds, its cells with a tiny model, its command, results and tables."""

import json
from dataclasses import replace

import pytest
import torch

from laboratory import site_command
from laboratory.lookahead_results import Accuracy
from laboratory.site_cells import load_labs
from laboratory.site_command import cell_name, claimed, sites_command, work_list
from laboratory.site_results import SiteCell, SiteReport, SiteScore, setting_section
from laboratory.site_rows import ROWS, TRAINED_FIRST, TRAINED_ON, Part, SiteRow
from laboratory.site_speeds import CORRECTIONS, Point, RowSpeeds, keeps_of
from pumer_hf.data.chat import ChatCollator
from pumer_hf.data.scenes.digits import digit_scenes
from pumer_hf.recipes.small_llava import new_llava
from pumer_hf.reducers import parse_reduction

SIDE = 6
LAYERS = 6
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "initializer_range": 0.3}
FEW = (
    SiteRow("inputs", "random", (Part("random"),)),
    SiteRow("layers, from layer 0 on", "tip", (Part("tip", (0,)),)),
    SiteRow("both", "pumer + fastv", (Part("pumer"), Part("fastv", (1,)))),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    rows = digit_scenes("train", 200, grid_size=SIDE)
    vision = {**TINY, "num_hidden_layers": 1, "image_size": 8 * SIDE, "patch_size": 8}
    model, processor = new_llava(
        vision, {**TINY, "num_hidden_layers": LAYERS}, [*rows["question"], *rows["answer"]], 0, 0.5
    )
    folder = tmp_path_factory.mktemp("llava")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def lab(folder):
    return load_labs("plain", {3: folder}, {}, questions=12, steps=2)[0]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_row_leaves_the_part_of_the_tokens_that_it_says(row, lab):
    if any(part.method == "lookahead" for part in row.parts):
        row = replace(row, parts=tuple(replace(part, method="random") for part in row.parts))  # it has no scorer here
    for keep in (keeps_of(row, SIDE**2)[0], 0.25, 0.5, 0.9):
        if keep < row.lowest:
            continue
        model = lab.load(row.schedule(keep))
        batch = {name: value for name, value in lab.data.test[0].items() if name != "image_saliency"}
        if any(part.method == "grounded" for part in row.parts):
            batch = lab.data.test[0]
        traces = model(**batch).reduction
        left = {trace.row: len(trace.kept) for trace in traces}  # the last one of each prompt
        assert len(left) == 12
        for number in left.values():
            assert abs(number - keep * SIDE**2) <= len(traces) // len(left), (keep, number)


def test_the_names_of_rows_and_of_their_files_differ():
    assert len({row.key for row in ROWS}) == len({(row.place, row.name) for row in ROWS}) == len(ROWS)
    names = [cell_name("plain", 0, work) for work in work_list([1.2, 1.5])]
    assert len(set(names)) == len(names)
    assert set(TRAINED_FIRST) <= {(row.place, row.name) for row in ROWS}


def test_all_that_needs_no_training_comes_first_and_each_row_is_trained():
    work = work_list([1.2, 1.5])
    kinds = [is_trained for _, _, is_trained in work]
    assert kinds == sorted(kinds)
    assert {(row, target) for row, target, is_trained in work if is_trained and target} == {
        (row, target) for row in ROWS for target in (1.2, 1.5)
    }


def test_a_keep_is_found_on_the_line_through_the_measured_times():
    keeps = tuple(number / 10 for number in range(1, 10))
    speeds = RowSpeeds("inputs", "tome", keeps, (Point(0.1, 2.0), Point(0.9, 1.0)))
    assert speeds.at(1 / 0.75).keep == 0.5
    assert speeds.at(1 / 0.75).speed == pytest.approx(1 / 0.75)
    assert speeds.expected(5.0).keep == 0.1
    assert speeds.at(5.0) is None
    assert speeds.limit == pytest.approx(2.0)
    noisy = speeds.with_points([Point(0.5, 1 / 0.85), Point(0.5, 1 / 0.65)])  # equally far on both sides
    assert noisy.at(1 / 0.75) == Point(0.5, pytest.approx(1 / 0.75))
    assert RowSpeeds.from_dict(json.loads(json.dumps(noisy.to_dict()))) == noisy


def test_a_row_is_measured_where_its_speed_should_be_that_of_the_target(lab, monkeypatch):
    watch = lab.stopwatch(seconds=0.0)
    asked = []

    def measured(self, keeps):
        asked.append(keeps)
        slow = {ROWS[0]: 0.4, ROWS[1]: 0.9}
        return {row: [Point(keep, 1 / (slow[row] + 0.7 * keep)) for keep in parts] for row, parts in keeps.items()}

    monkeypatch.setattr(type(watch), "measured", measured)
    fast, slow = watch.speeds(ROWS[:2], [1.25, 1.6, 9.0])
    assert asked[0] == {row: [1 / 36, pytest.approx(22 / 36)] for row in ROWS[:2]}
    assert [len(later[ROWS[0]]) for later in asked[1:]] == [3] * CORRECTIONS  # one keep for each target
    assert [later[ROWS[1]] for later in asked[1:]] == [[1 / 36]] * CORRECTIONS  # it reaches none
    assert fast.at(1.25).speed == pytest.approx(1.25, abs=0.03)
    assert fast.at(1.6).speed == pytest.approx(1.6, abs=0.03)
    assert fast.at(9.0) is None
    assert slow.at(1.25) is None
    assert slow.limit == pytest.approx(1.09, abs=0.01)


def test_a_measurement_has_a_speed_for_each_keep(lab):
    asked = {FEW[2]: [0.1, 0.5], FEW[0]: [0.3]}
    found = lab.stopwatch(seconds=0.0).measured(asked)
    assert {row: [point.keep for point in points] for row, points in found.items()} == asked
    assert all(point.speed > 0 for points in found.values() for point in points)


def test_an_answer_is_right_if_all_of_it_is_and_it_ends(lab):
    tokenizer = lab.data.bench.processor.tokenizer
    end, rows = tokenizer.eos_token_id, lab.data.bench.rows
    right = [tokenizer(answers[0], add_special_tokens=False)["input_ids"] for answers in rows["answers"]]
    said = [[*answer, end] for answer in right]
    said[1] = [*right[1], right[1][0]]  # goes on
    said[2] = [end, *right[2]]
    said[3] = [*right[3], right[3][0], end]

    class Says:
        def generate(self, input_ids, **kwargs):
            longest = max(map(len, said))
            answers = [[*answer, *[end] * (longest - len(answer))] for answer in said]
            answers[1] = said[1] + [right[1][0]] * (longest - len(said[1]))
            return torch.cat([input_ids, torch.tensor(answers)], dim=1)

    score = lab.score(Says(), None, lab.data.test)
    assert score.accuracy.value == pytest.approx(100 * 9 / 12)
    assert score.ended == pytest.approx(100 * 11 / 12)
    assert score.accuracy.by_group.keys() <= {"many places", "one place"}


def test_scores_are_those_of_questions_that_are_asked_alone(lab):
    collator = ChatCollator(lab.data.bench.processor)
    for row in FEW[::2]:
        schedule = row.schedule(0.4)
        model = lab.load(schedule)
        right = []
        for question in lab.data.bench.rows:
            inputs = collator([question])
            tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
            text = collator.processor.decode(tokens, skip_special_tokens=True)
            right.append(text == question["answers"][0] and collator.end_token_id in tokens.tolist())
        if row.name != "random":  # its choice depends on the place in the batch
            assert lab.score(model, schedule, lab.data.test).accuracy.value == pytest.approx(
                100 * sum(right) / len(right)
            )


@pytest.mark.parametrize("row", [None, *FEW, SiteRow("layers", "grounded", (Part("grounded", (1,)),))])
def test_a_copy_of_the_teacher_is_trained_behind_its_schedule(row, lab):
    schedule = None if row is None else row.schedule(0.5)
    first, student = lab.load(schedule), lab.trained(schedule)
    changed = [
        name
        for (name, old), new in zip(first.named_parameters(), student.parameters(), strict=True)
        if not torch.equal(old, new)
    ]
    assert any("lm_head" in name for name in changed)
    assert any("pruners" in name for name in changed) == (row == FEW[1])
    assert parse_reduction(student.config.reduction) == parse_reduction(schedule)
    assert not student.training


def test_the_teacher_says_the_whole_distribution(lab):
    batch = lab.train[0]
    log_probs = batch["teacher_log_probs"]
    assert log_probs.shape[:2] == batch["teacher_token_ids"].shape[:2]
    known = log_probs[batch["teacher_token_ids"][..., 0] >= 0]
    torch.testing.assert_close(known[:, :-1].exp().sum(dim=-1), torch.ones(len(known)))


def test_teachers_of_other_words_are_refused(lab, folder, tmp_path):
    model, processor = new_llava(
        {**TINY, "num_hidden_layers": 1, "image_size": 8 * SIDE, "patch_size": 8},
        {**TINY, "num_hidden_layers": 1},
        ["other words"],
        0,
        0.5,
    )
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="--teachers .*other words"):
        load_labs("plain", {0: folder, 1: str(tmp_path)}, {}, questions=4, steps=1)


def test_a_cell_is_claimed_once(tmp_path):
    with claimed(tmp_path, "cell") as first, claimed(tmp_path, "cell") as second:
        assert (first, second) == ("cell", None)
    with claimed(tmp_path, "cell") as again:
        assert again == "cell"
    (tmp_path / "cell.json").write_text("{}")
    with claimed(tmp_path, "cell") as done:
        assert done is None


def test_the_command_measures_trains_resumes_and_renders(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(site_command, "ROWS", FEW)
    monkeypatch.setattr(site_command, "training_order", lambda: (FEW[:1], FEW[1:]))
    monkeypatch.setattr("laboratory.site_results.ROWS", FEW)
    monkeypatch.setattr("laboratory.site_speeds.is_close", lambda speed, target, tolerance: target < 50)
    flags = ["plain", "--teachers", folder, folder, "--scorers", "none", "none", "--work", str(tmp_path / "work")]
    flags += ["--questions", "8", "--steps", "1", "--seconds", "0", "--targets", "1.1", "90"]
    flags += ["-o", str(tmp_path / "sites.json")]
    sites_command("", [*flags, "--minutes", "0"])
    assert not list((tmp_path / "work").glob("*-cell-*"))
    sites_command("", flags)
    assert (tmp_path / "sites.png").read_bytes().startswith(b"\x89PNG")
    report = SiteReport.load(tmp_path / "sites.json")
    assert (report.setting, report.num_tokens, report.num_questions, report.steps) == ("plain", 36, 8, 1)
    assert {(cell.seed, cell.name, cell.target, cell.is_trained) for cell in report.cells} == {
        (seed, *rest)
        for seed in (0, 1)
        for rest in (
            ("random", 1.1, False),
            ("pumer + fastv", 1.1, False),
            ("random", 1.1, True),
            ("tip", 1.1, True),
            ("pumer + fastv", 1.1, True),
            (TRAINED_ON, None, True),
        )
    }
    assert report.baselines.keys() == {0, 1}
    before = {path: path.read_text() for path in (tmp_path / "work").iterdir()}
    sites_command("", flags)
    assert before == {path: path.read_text() for path in (tmp_path / "work").iterdir()}
    assert SiteReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    for old, new, message in (
        ("90", "80", "give those, or another --work"),
        ("8", "4", "give these, or another --work"),
    ):
        other = [new if flag == old else flag for flag in flags]
        with pytest.raises(SystemExit, match=message):
            sites_command("", other)


def test_the_tables_say_what_was_left_how_fast_it_was_and_what_training_gave():
    def cell(seed, name, is_trained, value):
        return SiteCell(
            seed, "inputs", name, 1.2, is_trained, SiteScore(Accuracy(value), 100.0 - 10 * (not is_trained))
        )

    report = SiteReport(
        setting="plain",
        num_tokens=36,
        num_questions=1000,
        steps=200,
        batch_size=250,
        targets=(1.5, 1.2),
        speeds=(
            RowSpeeds("inputs", "pumer", (0.25, 0.5), (Point(0.5, 1.21), Point(0.25, 1.3))),
            RowSpeeds("layers, from layer 1 on", "tip", (0.5,), (Point(0.5, 1.2), Point(0.3, 1.4))),
        ),
        baselines={seed: {"unreduced": SiteScore(Accuracy(90.0 + seed), 99.0)} for seed in (0, 1)},
        cells=(
            cell(1, "pumer", False, 80.0),
            cell(0, "pumer", False, 70.0),
            cell(0, "pumer", True, 85.0),
            cell(1, "pumer", True, 87.0),
            SiteCell(0, "", TRAINED_ON, None, True, SiteScore(Accuracy(91.0), 100.0)),
        ),
    )
    text = setting_section(report)
    assert text.index("1.2 times as fast") < text.index("1.5 times as fast")
    assert "| inputs | pumer | 18 of 36 | 1.21x | 75.0 [70.0, 80.0] (90 ended) | 86.0 [85.0, 87.0] |" in text
    assert "| inputs | pumer |  | at most 1.30x |  |  |" in text
    assert "| layers, from layer 1 on | tip | 18 of 36 | 1.20x | learns | not run |" in text
    assert "unreduced 90.5 [90.0, 91.0] (99.0 ended); unreduced, trained on 91.0, 1 of 2 models." in text
