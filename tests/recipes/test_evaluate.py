"""`recipes/evaluate.py` on models that the recipes' own code made."""

import json
import sys
from pathlib import Path

import pytest
import torch
from in_process import run_here
from PIL import Image
from safetensors.torch import load_file
from tiny_tasks import CONFIGS
from transformers import set_seed

from pumer_hf.data.snli_ve import SNLI_VE
from pumer_hf.data.vqa import VQA
from pumer_hf.training import evaluation
from pumer_hf.training.build import build_teacher
from pumer_hf.training.recipe import ModelArguments

SCRIPT = Path(__file__).parents[2] / "recipes" / "evaluate.py"
REDUCTION = {
    "method": "pumer",
    "layers": [1],
    "prune_ratio": 0.2,
    "image_merge_ratio": 0.2,
    "text_merge_ratio": 0.2,
}


def checkpoint(folder, task, labels, reduction=REDUCTION):
    set_seed(0)
    words = ["how many sevens are there in the top left what is the digit"]
    model, processor = build_teacher(ModelArguments(config=CONFIGS["vilt"]), labels, words, 16, task)
    model.set_reduction(reduction)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def run(*words):
    command = [sys.executable, str(SCRIPT), *map(str, words), "--use_cpu", "true", "--max_text_length", "16"]
    return run_here(command, Path.cwd())


def test_the_metric_of_a_split_is_printed_as_json(tmp_path):
    labels = ["entailment", "neutral", "contradiction"]
    model = checkpoint(tmp_path / "model", SNLI_VE, labels)
    reports = {}
    for flag in ("--split=test", "--split=validation", "--unreduced"):
        process = run("snli_ve", "--model", model, "--eval_scenes", 20, "--output_dir", tmp_path / "out", flag)
        assert process.returncode == 0, process.stderr
        reports[flag] = json.loads(process.stdout.splitlines()[-1])
    assert reports["--split=test"]["split"] == "test"
    assert reports["--split=validation"]["split"] == "validation"
    assert all(report["questions"] == 60 and 0 <= report["accuracy"] <= 100 for report in reports.values())
    assert not (tmp_path / "out").exists()


def test_a_learned_method_is_evaluated_with_what_it_has_learned(tmp_path, monkeypatch, capsys):
    tip = {"method": "tip", "layers": [1], "prune_ratio": 0.5}
    folder = checkpoint(tmp_path / "model", SNLI_VE, ["entailment", "neutral", "contradiction"], tip)
    seen = {}
    monkeypatch.setattr(
        evaluation, "evaluate", lambda task, args, model, data, collator: seen.update(model=model) or {}
    )
    monkeypatch.setattr(evaluation, "use_available_cores", lambda world_size: None)
    flags = ["--eval_scenes", "2", "--use_cpu", "true", "--max_text_length", "16", "--output_dir", str(tmp_path / "o")]
    default = SCRIPT.parent / "vilt" / "digit_scenes_snli_ve" / "pumer.yaml"
    evaluation.evaluate_recipe("", default, ["snli_ve", "--model", str(folder), *flags])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["task"] == "snli_ve"
    expected = load_file(folder / "model.safetensors")
    assert any(".reducer." in name for name in expected)
    assert all(torch.equal(value, expected[name]) for name, value in seen["model"].state_dict().items())


def test_rows_without_their_image_are_counted_beside_the_metric(tmp_path, monkeypatch, capsys):
    folder = checkpoint(tmp_path / "model", VQA, ["yes", "no"])
    Image.new("RGB", (48, 48), "red").save(tmp_path / "a.png")
    rows = [{"image": name, "question": "is it?", "answer": "yes"} for name in ("a.png", "gone.png", "gone.png")]
    path = tmp_path / "validation.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(evaluation, "evaluate", lambda task, args, model, data, collator: {"rows": len(data.test)})
    monkeypatch.setattr(evaluation, "use_available_cores", lambda world_size: None)
    flags = ["--train_file", str(path), "--validation_file", str(path), "--missing_images", "skip"]
    flags += ["--use_cpu", "true", "--max_text_length", "16", "--output_dir", str(tmp_path / "o")]
    default = SCRIPT.parent / "vilt" / "digit_scenes" / "pumer.yaml"
    evaluation.evaluate_recipe("", default, ["vqa", "--model", str(folder), *flags])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["rows"], report["missing_images"]) == (1, 2)


def questions_in(folder):
    Image.new("RGB", (48, 48), "red").save(folder / "COCO_test2015_000000000042.jpg")
    questions = [{"question_id": number, "image_id": 42, "question": "how many sevens?"} for number in (7, 3)]
    (folder / "questions.json").write_text(json.dumps({"questions": questions}), encoding="utf-8")
    return folder / "questions.json"


def test_answers_are_written_as_the_leaderboard_takes_them(tmp_path):
    model = checkpoint(tmp_path / "model", VQA, ["yes", "no"])
    submission = tmp_path / "new" / "answers.json"
    words = ("vqa", "--model", model, "--questions", questions_in(tmp_path), "--submission", submission)
    process = run(*words, "--image_dir", tmp_path, "--train_file", "x.jsonl", "--validation_file", "x.jsonl")
    assert process.returncode == 0, process.stderr
    answers = json.loads(submission.read_text(encoding="utf-8"))
    assert [answer["question_id"] for answer in answers] == [7, 3]
    assert all(set(answer) == {"question_id", "answer"} and answer["answer"] in ("yes", "no") for answer in answers)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nlvr2", "--questions", "q.json"], "--questions is for the task vqa"),
        (["vqa", "--submission", "a.json"], "--submission needs --questions"),
        (["vqa", "--evaluation_scenes", "3"], "--evaluation_scenes"),
    ],
)
def test_what_the_user_can_mend_is_a_message(words, message, tmp_path):
    process = run(*words, "--model", checkpoint(tmp_path / "model", VQA, ["yes", "no"]))
    assert process.returncode != 0
    assert message in process.stderr
    assert "Traceback" not in process.stderr
