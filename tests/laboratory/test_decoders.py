"""The study of decoder models: its schedules, its measurement with a tiny model, its results and tables."""

import json

import numpy as np
import pytest
import torch

from laboratory.decoder_command import decoders_command
from laboratory.decoder_results import DecoderReport, MethodRow, TeacherResults, setting_tables, short_table
from laboratory.decoders import DRAWS, DecoderBench, methods
from laboratory.lookahead_results import Accuracy
from laboratory.second_question import kept_maps, other_questions, second_methods, second_question_table
from pumer_hf.data.chat import ChatCollator
from pumer_hf.data.scenes.digits import digit_scenes
from pumer_hf.recipes.generating import generated_answers
from pumer_hf.recipes.small_llava import new_llava
from pumer_hf.reducers import parse_reduction
from pumer_hf.reducers.keeping import POSITIONS
from pumer_hf.training.answers import BUDGETS

TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    rows = digit_scenes("train", 200, grid_size=3)
    texts = [*rows["question"], *rows["answer"]]
    fields = {**TINY, "initializer_range": 0.3}
    model, processor = new_llava({**fields, "image_size": 24, "patch_size": 8}, fields, texts, 0, 0.5)
    folder = tmp_path_factory.mktemp("llava")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def bench(folder):
    return DecoderBench.load(str(folder), "plain", "test", 12, "cpu")


@pytest.mark.parametrize("ratio", BUDGETS.values(), ids=BUDGETS)
def test_every_schedule_keeps_the_part_that_it_is_compared_at(ratio):
    named = methods(ratio)
    for draws in named.values():
        for fields in draws:
            for positions in POSITIONS:
                (part,) = parse_reduction({**fields, "positions": positions}).parts
                assert part.keep_ratio == ratio
    assert [len(draws) for draws in named.values()].count(DRAWS) == 1


def test_the_scores_are_those_of_generated_answers(bench):
    answers = generated_answers(bench.model, ChatCollator(bench.processor), bench.rows, max_new_tokens=1, show=False)
    right = [answer.text == given[0] for answer, given in zip(answers, bench.rows["answers"], strict=True)]
    np.testing.assert_array_equal(bench.scores(None), right)


def test_keeping_all_tokens_gives_the_unreduced_scores(bench):
    everything = {"method": "diverse", "site": "inputs", "keep_ratio": 1.0}
    np.testing.assert_array_equal(bench.scores(everything), bench.scores(None))


def test_the_command_measures_joins_and_renders(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("laboratory.decoders.KEPT", {"1/3": 1 / 3})
    chosen = {"tome", "pumer", "grounded"}
    every = methods(1 / 3)
    monkeypatch.setattr(
        "laboratory.decoders.methods", lambda *_: {name: every[name] for name in every if name in chosen}
    )
    parts = []
    for seed in ("0", "1"):
        parts.append(str(tmp_path / f"{seed}.json"))
        common = ["plain", "--teachers", str(folder), "--seeds", seed, "--questions", "8", "--device", "cpu"]
        decoders_command("", [*common, "-o", parts[-1]])
    decoders_command("", ["plain", "--join", *parts, "-o", str(tmp_path / "all.json")])
    report = DecoderReport.load(tmp_path / "all.json")
    assert [one.seed for one in report.teachers] == [0, 1]
    assert set(report.teachers[0].baselines) == {"unreduced", "no image", "wrong image"}
    assert set(report.names) == chosen
    assert len(report.values("pumer", "1/3", "original")) == 2
    assert json.loads((tmp_path / "all.json").read_text())["machine"]


def test_the_second_question_finds_the_tokens_of_the_first(bench):
    first = other_questions(bench.rows)
    assert sorted(first["question"]) == sorted(bench.rows["question"])
    for one, other in zip(bench.rows, first, strict=True):
        assert one["image"] == other["image"]
        assert one["origin"] != other["origin"]
    everything = {"method": "grounded", "site": "inputs", "keep_ratio": 1.0}
    np.testing.assert_array_equal(bench.scores(everything, kept_maps(bench, everything)), bench.scores(None))
    for name, schedule in second_methods(1 / 3, None).items():
        maps = kept_maps(bench, schedule)
        assert all(set(one.tolist()) == {0.0, 1.0} for one in maps)
        given = {"method": "grounded", "site": "inputs", "keep_ratio": 1 / 3}
        # the choice for the question itself, given as a map, is the choice that the method makes
        np.testing.assert_array_equal(bench.scores(given, maps), bench.scores(schedule), err_msg=name)


def test_the_command_measures_second_questions(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("laboratory.second_question.BUDGETS", {"1/3": 1 / 3})
    flags = ["plain", "--second-question", "--teachers", str(folder), "--questions", "8", "--device", "cpu"]
    decoders_command("", [*flags, "-o", str(tmp_path / "second.json")])
    report = DecoderReport.load(tmp_path / "second.json")
    assert "grounded, chosen for another question" in report.names
    assert "diverse (max_min), chosen for another question" not in report.names
    text = second_question_table({"second": report})
    assert "| plain | 1/3 (3 tokens) |" in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 2 + len(report.names)


def test_an_image_with_one_question_has_no_second_one(bench):
    with pytest.raises(ValueError, match="--second-question"):
        other_questions(bench.rows.select([0, 1, 2, 3, 4]))


def test_models_of_other_questions_are_not_joined():
    one = DecoderReport("plain", "test", 8, ())
    with pytest.raises(ValueError, match="num_questions=9"):
        DecoderReport.joined([one, DecoderReport("plain", "test", 9, ())])


def test_the_tables_have_a_row_per_method_and_a_column_per_number_of_tokens():
    def teacher(seed):
        rows = tuple(
            MethodRow("pumer", kept, positions, Accuracy(80.0 + seed + 5 * (positions == "original")))
            for kept in ("1/3", "1/9")
            for positions in POSITIONS
        )
        return TeacherResults(seed, 36, {"unreduced": Accuracy(90.0 + seed, {"one place": 95.0})}, rows)

    text = setting_tables(DecoderReport("plain", "test", 2000, (teacher(0), teacher(1))))
    assert "| original positions | 1/3 (12 tokens) | 1/9 (4 tokens) |" in text
    assert "| pumer | 85.5 [85.0, 86.0] | 85.5 [85.0, 86.0] |" in text
    assert "| pumer | 80.5 [80.0, 81.0] | 80.5 [80.0, 81.0] |" in text
    assert "2,000 test questions" in text
    assert "unreduced 90.5 [90.0, 91.0] (one place 95.0)" in text
    short = short_table({"plain": DecoderReport("plain", "test", 2000, (teacher(0), teacher(1)))})
    assert "| image tokens kept | plain, 12 tokens | plain, 4 tokens |" in short
    assert "| all of them | 90.5 [90.0, 91.0] | 90.5 [90.0, 91.0] |" in short
    assert "| pumer | 85.5 [85.0, 86.0] | 85.5 [85.0, 86.0] |" in short
