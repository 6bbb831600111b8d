"""Pretrained decoder models on public sets: rows and budgets, cells of a tiny model, the command and its tables."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_llava import save_tiny_llava
from tiny_qwen import save_tiny_qwen

from laboratory.shards import shard_of
from laboratory.site_speeds import Point
from laboratory.vlm_cells import CellRunner, keep_for
from laboratory.vlm_command import build_parser, vlm_command, work_list
from laboratory.vlm_model import Form, VlmModel, picture_of
from laboratory.vlm_results import VlmCell, VlmSettings
from laboratory.vlm_rows import BASELINE, WHOLE, Budget, OutOfReachError, budgets_of, rows_of
from laboratory.vlm_sets import drawn, read_own_questions
from laboratory.vlm_tables import paired_change, read_cells, vlm_section
from pumer_hf.models.families import DECODERS
from pumer_hf.reducers import parse_reduction

LAYERS = 8
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "vlm.py"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny model and six questions about pictures of several colours."""
    folder = tmp_path_factory.mktemp("vlm")
    torch.manual_seed(0)
    save_tiny_llava(folder / "llava", num_layers=LAYERS)
    lines = []
    for number in range(6):
        Image.new("RGB", (48, 48), (40 * number, 0, 200)).save(folder / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "question": "what digit is red?", "answer": "seven"}))
    (folder / "mine.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(place):
    return VlmModel.load(str(place / "llava"), "float32", "cpu", 4, 0.0)


@pytest.fixture(scope="module")
def questions(place):
    return read_own_questions(str(place / "mine.jsonl"), "exact", None, 0, 2)


@pytest.fixture(scope="module")
def rows(model):
    return {row.key: row for row in rows_of(model.family, model.model.config, None)}


def test_rows_of_one_keep_run_the_decoder_on_as_many_tokens(model, questions, rows):
    assert rows["layers_fastv"].parts[0].layers == (1,)
    reducing = [row for row in rows.values() if row.parts]
    assert len(reducing) >= 11
    for row in reducing:
        whole, kept = model.tokens(questions.rows, Form(schedule=tuple(row.schedule(0.6))))
        assert (whole, kept) == (36, pytest.approx(0.6 * 36, abs=1)), row.key
    with pytest.raises(OutOfReachError, match="keeps more than 38 %"):
        rows["layers_pyramid"].schedule(0.3)


def test_a_family_that_cannot_reduce_inside_its_decoder_has_no_rows_there(model):
    family = next(row for row in DECODERS.values() if row.no_layers)
    found = {row.place for row in rows_of(family, model.model.config, None)}
    assert found == {"baseline", "images", "inputs"}


def test_lookahead_comes_with_a_scorer(model):
    found = [row for row in rows_of(model.family, model.model.config, "my-scorer") if "lookahead" in row.name]
    assert [row.key for row in found] == ["inputs_lookahead", "both_lookahead_and_pumer"]
    assert parse_reduction(found[1].schedule(0.5, "my-scorer")).parts[0].weights == "my-scorer"


def test_each_row_is_on_one_of_several_machines(rows):
    shards = [shard_of(rows.values(), f"{number}/3", lambda row: row.key) for number in (1, 2, 3)]
    assert sorted(row.key for shard in shards for row in shard) == sorted(rows)
    for wrong in ("0/3", "4/3", "2", "a/b"):
        with pytest.raises(ValueError, match=f"--shard {wrong}: .*such as 1/4"):
            shard_of(rows.values(), wrong, lambda row: row.key)
    assert budgets_of(rows["inputs_tome"], [0.5], [1.5]) == [Budget(keep=0.5), Budget(speed=1.5)]
    assert budgets_of(rows["baseline_unreduced"], [0.5], [1.5]) == [WHOLE]


def test_the_keep_for_a_speed_is_found(rows):
    row, asked = rows["inputs_tome"], []

    def measured(keeps):
        asked.extend(keeps)
        return [Point(keep, 1 / (0.4 + 0.6 * keep)) for keep in keeps]

    assert keep_for(measured, row, 1.6) == pytest.approx(0.38, abs=0.01)
    assert asked[:2] == [0.01, 0.6]
    with pytest.raises(OutOfReachError, match=r"at most 2.46x"):
        keep_for(measured, row, 4.0)


def test_the_images_of_a_row(questions):
    row = questions.rows[0]
    assert picture_of(row, Form("grey")).getcolors() == [(48 * 48, (127, 127, 127))]
    assert picture_of(row, Form("smaller", 0.5)).size == (24, 24)
    assert picture_of(row, Form()).getcolors() == picture_of(row, Form("wrong")).getcolors()


def test_smaller_images_have_fewer_tokens_in_a_model_that_takes_any_size(questions, tmp_path):
    one = VlmModel.load(str(save_tiny_qwen(tmp_path, texts=questions.rows["question"])), "float32", "cpu", 2, 0.0)
    assert one.tokens(questions.rows, Form("smaller", 0.5**0.5)) == (36, 16)


@pytest.mark.slow
def test_two_processes_share_the_questions(place, model, questions):
    """In two processes, the scores and their order are those of one."""
    lines = []
    for number, (text, _) in enumerate(model.answers(questions.rows, range(6), Form(), 2)):
        row = questions.rows[number]
        answer = text if number in (0, 1, 4) else "something else"
        lines.append(json.dumps({"image": row["image"]["path"], "question": row["question"], "answer": answer}))
    (place / "own.jsonl").write_text("\n".join(lines), encoding="utf-8")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
    flags = [str(place / "llava"), "--file", str(place / "own.jsonl"), "--methods", "inputs_random", "--keep", "0.5"]
    flags += ["--max-new-tokens", "2", "--seconds", "0", "-o"]
    subprocess.run([*launch, str(SCRIPT), *flags, str(place / "two")], check=True)
    vlm_command("", [*flags, str(place / "one")])
    one, two = ({cell.name: cell.score for cell in read_cells(place / name)} for name in ("one", "two"))
    assert {name: score.scores for name, score in one.items()} == {name: score.scores for name, score in two.items()}
    assert one.keys() == {"unreduced", "random"}
    assert one["unreduced"].scores == tuple(float(place in (0, 1, 4)) for place in drawn(6, None, 0))


def test_a_cell_has_the_scores_of_its_questions_and_its_times(model, questions, rows, monkeypatch):
    said = iter(["Seven.", "two", "seven", "seven", "three", "seven"] * 2)

    def answers(self, asked, places, form, longest):
        assert (len(asked), longest, form.schedule[0]["method"]) == (6, 2, "random")
        return [(next(said), 0.5 + form.schedule[0]["seed"]) for _ in places]

    monkeypatch.setattr(VlmModel, "answers", answers)
    settings = VlmSettings(None, 0, 4, "float32", None, draws=2)
    cell = CellRunner(model, "llava", None, settings).run(questions, rows["inputs_random"], Budget(keep=0.5))
    assert cell.status == "done", cell.reason
    assert cell.score.accuracy.value == pytest.approx(100 * 4 / 6)
    assert cell.score.scores == (1, 0, 1, 1, 0, 1)
    assert cell.score.seconds == 1.0
    assert (cell.score.image_tokens, cell.score.kept_tokens, cell.score.prefill.prompts) == (36, 18, 4)
    assert VlmCell.from_dict(json.loads(json.dumps(cell.to_dict()))) == cell


def test_the_answers_are_those_of_questions_that_are_asked_alone(model, questions, rows):
    form = Form(schedule=tuple(rows["both_diverse_and_fastv"].schedule(0.5)))
    together = [text for text, _ in model.answers(questions.rows, range(6), form, 2)]
    alone = [text for place in range(6) for text, _ in model.answers(questions.rows, [place], form, 2)]
    assert together == alone
    assert any(together)


def run(place, *flags):
    always = ["--file", str(place / "mine.jsonl"), "--seconds", "0", "--keep", "0.5", "--batch-size", "6"]
    few = ["--methods", "baseline_no_image", "inputs_grid", "images_smaller_images"]
    vlm_command("", [str(place / "llava"), *always, *few, "-o", str(place / "out"), *flags])


def test_the_command_goes_on_where_it_ended_and_tells_what_failed(place, monkeypatch, capsys):
    out, whole = place / "out", VlmModel.answers

    def failing(self, rows, places, form, longest):
        if form.images == "grey":
            raise RuntimeError("out of\nmemory")
        return whole(self, rows, places, form, longest)

    monkeypatch.setattr(VlmModel, "answers", failing)
    run(place)
    cells = {cell.name: cell for cell in read_cells(out)}
    assert {name: cell.status for name, cell in cells.items()} == {
        "unreduced": "done",
        "no image": "failed",
        "smaller images": "out_of_reach",
        "grid": "done",
    }
    assert cells["no image"].reason == "RuntimeError: out of memory"
    assert str(place) not in "".join(path.read_text(encoding="utf-8") for path in out.glob("*.json"))
    table = (out / "README.md").read_text(encoding="utf-8")
    assert "| no image |  |  |  |  | failed |" in table
    assert "| images: smaller images |  |  |  |  | has 100 % of the tokens |" in table
    assert "| inputs: grid | 50 % | " in table
    monkeypatch.setattr(VlmModel, "answers", whole)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.json")}
    run(place)
    run(place, "--retry-failed")
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert [name for name in after if after[name] != before[name]] == ["llava-mine-baseline_no_image-whole.json"]
    capsys.readouterr()
    run(place, "--list", "--only", "*-whole")
    assert capsys.readouterr().out.split() == [
        *("done", "llava-mine-baseline_unreduced-whole"),
        *("done", "llava-mine-baseline_no_image-whole"),
    ]
    with pytest.raises(SystemExit, match=r"--output: .*seed=0 \(now 1\): give the same flags"):
        run(place, "--seed", "1")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sets", "tables"], r"--sets tables: choose from vqav2,"),
        (["--methods", "pumer"], r"--methods pumer: choose from baseline_unreduced, .*inputs_pumer"),
        (["--keep", "1.5"], r"--keep 1.5: "),
        (["--speed", "0.9"], r"--speed 0.9: "),
        (["--limit", "0"], r"--limit 0: "),
        (["--only", "x*"], r"--only x\*, .*--list"),
    ],
)
def test_wrong_flags_are_named(flags, message, place):
    args = build_parser("").parse_args([str(place / "llava"), "-o", str(place), *flags])
    with pytest.raises(ValueError, match=message):
        work_list(args)


def test_a_model_that_cannot_be_reduced_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(SystemExit, match="model_type='bert' is no decoder of a known family"):
        vlm_command("", [str(tmp_path), "-o", str(tmp_path / "out")])


def cell(name, place, questions, right, ratio=1.0, budget=WHOLE):
    scores = [1.0] * right + [0.0] * (4 - right)
    score = {
        "accuracy": {"value": 25.0 * right},
        "scores": scores,
        "draws": [25.0 * right],
        "seconds": 0.5,
        "image_tokens": 10.0,
        "kept_tokens": 5.0,
        "prefill": {"ratio": ratio, "seconds": 1.0, "unreduced_seconds": 1.0, "prompts": 2},
    }
    settings = vars(VlmSettings(4, 0, 2, "auto", None, 1))
    facts = {"model": "user/m", "set": questions, "title": questions, "source": "x", "metric": "exact"}
    row = {"name": name, "place": place, "budget": vars(budget), "settings": settings}
    return facts | row | {"status": "done", "score": score}


def test_tables_compare_the_same_questions_and_average_the_sets(tmp_path):
    half = Budget(keep=0.5)
    cells = [cell("unreduced", BASELINE, "gqa", 3), cell("unreduced", BASELINE, "pope", 4)]
    cells += [cell("grid", "inputs", "gqa", 2, 2.0, half), cell("grid", "inputs", "pope", 4, 0.5, half)]
    cells += [cell("tome", "inputs", "gqa", 2, 2.0, half)]
    for number, one in enumerate(cells):
        (tmp_path / f"{number}.json").write_text(json.dumps(one), encoding="utf-8")
    assert vlm_section(tmp_path).splitlines()[-5:] == [
        "| method | image tokens | prefill | time per question | mean | gqa | pope |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| unreduced | 50 % | 1.00x | 500 ms | 87.5 | 75.0 | 100.0 |",
        "| inputs: grid | 50 % | 1.00x | 500 ms | 75.0 (-12.5) | 50.0 (-25.0 ± 25.0) | 100.0 (+0.0 ± 0.0) |",
        "| inputs: tome | 50 % | 2.00x | 500 ms |  | 50.0 (-25.0 ± 25.0) | not run |",
    ]
    assert paired_change([1, 1, 0, 0], [1, 1, 1, 0]) == (-25.0, pytest.approx(25.0))
