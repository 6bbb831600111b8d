"""`recipes/evaluate.py` on models that the recipes' own code made."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from datasets import Image as DatasetImage
from in_process import run_here
from PIL import Image
from readable import unreadable
from safetensors.torch import load_file
from tiny import PUMER
from tiny_tasks import CONFIGS, without_record
from transformers import set_seed

from pumer_hf.data.arguments import only_split
from pumer_hf.data.nlvr2 import NLVR2
from pumer_hf.data.retrieval import RETRIEVAL
from pumer_hf.data.snli_ve import SNLI_VE
from pumer_hf.data.vqa import VQA, VqaDataArguments
from pumer_hf.inputs import Encoder
from pumer_hf.recipes import evaluation
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.parser import read_blocks
from pumer_hf.recipes.recipe import ModelArguments
from pumer_hf.recipes.report import EvaluationReport
from pumer_hf.results import PERCENT, Environment, Evaluation

SCRIPT = Path(__file__).parents[2] / "recipes" / "evaluate.py"
REDUCTION = {**PUMER, "layers": [1], "image_merge_ratio": 0.2}


def checkpoint(folder, task, labels, reduction=REDUCTION):
    set_seed(0)
    words = ["how many sevens are there in the top left what is the digit"]
    model, processor = build_teacher(ModelArguments(config=CONFIGS["vilt"]), labels, words, 16, task)
    model.set_reduction(reduction)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


COMMON = ("--use_cpu", "true", "--max_text_length", "16")


def run(*words):
    task, *flags = map(str, words)
    return run_here([sys.executable, str(SCRIPT), task, *COMMON, *flags], Path.cwd())


def test_the_metric_of_a_split_is_printed_and_written(tmp_path):
    labels = ["entailment", "neutral", "contradiction"]
    model = checkpoint(tmp_path / "model", SNLI_VE, labels)
    reports = {}
    for flag in ("--split=test", "--split=validation", "--unreduced"):
        folders = ("--output_dir", tmp_path / "out", "-o", tmp_path / "metrics.json")
        process = run("snli_ve", "--model", model, "--eval_scenes", 20, *folders, flag)
        assert process.returncode == 0, process.stderr
        reports[flag] = json.loads((tmp_path / "metrics.json").read_text())
        assert EvaluationReport.load(tmp_path / "metrics.json").to_dict() == reports[flag]
        assert reports[flag]["metrics"] == {"accuracy": {"unit": "%", "higher_is_better": True}}
        lines = process.stdout.splitlines()
        assert unreadable(lines) == []
        assert re.search(rf"^accuracy +{reports[flag]['accuracy']:.2f} %$", process.stdout, re.MULTILINE)
        assert lines[-1] == f"Written to {tmp_path / 'metrics.json'}"
    assert reports["--split=test"]["split"] == "test"
    assert reports["--split=validation"]["split"] == "validation"
    assert all(report["questions"] == 60 and 0 <= report["accuracy"] <= 100 for report in reports.values())
    assert not (tmp_path / "out").exists()


def test_metrics_by_kind_stand_below_the_metric():
    values = {"accuracy": 92.33333333333333, "accuracy_by_kind": {"yes/no": 50.0, "count": 7.25}, "questions": 12000}
    evaluation = Evaluation.from_dict(values, {"accuracy": PERCENT})
    head, table = EvaluationReport("a/b", "vqa", "test", 32, evaluation, Environment()).lines()
    assert head == "a/b, task vqa, split test:"
    assert table.splitlines() == [
        "accuracy   92.33 %",
        "  count     7.25 %",
        "  yes/no   50.00 %",
        "questions   12,000",
    ]


def test_a_learned_method_is_evaluated_with_what_it_has_learned(tmp_path, monkeypatch, capsys):
    tip = {"method": "tip", "layers": [1], "prune_ratio": 0.5}
    folder = checkpoint(tmp_path / "model", SNLI_VE, ["entailment", "neutral", "contradiction"], tip)
    seen = {}
    monkeypatch.setattr(
        evaluation, "evaluate", lambda task, args, model, data, collator: seen.update(model=model) or Evaluation({})
    )
    monkeypatch.setattr(evaluation, "use_available_cores", lambda world_size: None)
    flags = ["--eval_scenes", "2", "--use_cpu", "true", "--max_text_length", "16", "--output_dir", str(tmp_path / "o")]
    evaluation.evaluate_recipe("", ["snli_ve", "--model", str(folder), *flags])
    assert f"{folder}, task snli_ve, split test:" in capsys.readouterr().out
    expected = load_file(folder / "model.safetensors")
    assert any(".reducer." in name for name in expected)
    assert all(torch.equal(value, expected[name]) for name, value in seen["model"].state_dict().items())


def test_rows_without_their_image_are_counted_beside_the_metric(tmp_path, monkeypatch, capsys):
    folder = checkpoint(tmp_path / "model", VQA, ["yes", "no"])
    Image.new("RGB", (48, 48), "red").save(tmp_path / "a.png")
    rows = [{"image": name, "question": "is it?", "answer": "yes"} for name in ("a.png", "gone.png", "gone.png")]
    path = tmp_path / "validation.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def evaluate(task, args, model, data, collator):
        return Evaluation({}, counts={"rows": len(data.test)})

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    monkeypatch.setattr(evaluation, "use_available_cores", lambda world_size: None)
    flags = ["--validation_file", str(path), "--missing_images", "skip"]
    flags += ["--use_cpu", "true", "--max_text_length", "16", "--output_dir", str(tmp_path / "o")]
    flags += ["-o", str(tmp_path / "metrics.json")]
    evaluation.evaluate_recipe("", ["vqa", "--model", str(folder), *flags])
    assert "missing images  2" in capsys.readouterr().out
    report = json.loads((tmp_path / "metrics.json").read_text())
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
    process = run(*words, "--image_dir", tmp_path)
    assert process.returncode == 0, process.stderr
    answers = json.loads(submission.read_text(encoding="utf-8"))
    assert [answer["question_id"] for answer in answers] == [7, 3]
    assert all(set(answer) == {"question_id", "answer"} and answer["answer"] in ("yes", "no") for answer in answers)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nlvr2", "--questions", "q.json"], "--questions .*vqa"),
        (["vqa", "--submission", "a.json"], "--submission .*--questions"),
        (["vqa", "--questions", "q.json", "--submission", "a.json"], "--questions .*--image_dir"),
        (["vqa", "-o", "no/such/metrics.json"], "-o no/such/metrics.json: .*no/such"),
        (
            ["vqa", "--questions", "q", "--submission", "a.json", "--image_dir", "i", "-o", "m.json"],
            "-o .*metrics",
        ),
        (["vqa", "--evaluation_scenes", "3"], "--evaluation_scenes"),
        (["vqa", "--image_dir", "pictures"], "--image_dir .*no file"),
        (["vqa", "--max_text_length", "41"], "data.max_text_length=41: .*40"),
        (["vqa", "--train_file", "a.jsonl"], "data.test_file .*data.validation_file"),
        (["vqa", "--test_file", "a.jsonl", "--split", "validation"], "data.validation_file"),
        (["snli_ve"], "PuMerViltForQuestionAnswering, .*snli_ve"),
        (["vqa", "--model", "nowhere"], "--model='nowhere'"),
    ],
)
def test_what_the_user_can_mend_is_a_message(words, message, tmp_path):
    process = run(words[0], "--model", checkpoint(tmp_path / "model", VQA, ["yes", "no"]), *words[1:])
    assert process.returncode != 0
    assert re.search(message, process.stderr.splitlines()[-1])
    assert "Traceback" not in process.stderr


def test_a_submission_that_cannot_be_written_is_named_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "write_submission", lambda *args: pytest.fail("it began"))
    (tmp_path / "file").write_text("")
    model = checkpoint(tmp_path / "model", VQA, ["yes", "no"])
    words = ("vqa", "--model", model, "--questions", questions_in(tmp_path), "--image_dir", tmp_path)
    process = run(*words, "--submission", tmp_path / "file" / "answers.json")
    assert process.returncode != 0
    last = process.stderr.splitlines()[-1]
    assert "--submission: " in last and str(tmp_path / "file") in last


# No split is needed but the one that is evaluated


@pytest.fixture
def evaluated(monkeypatch, capsys):
    """Runs the script, and gives the rows that it evaluates, and the length of their texts."""

    def run(task, model, *words):
        seen = {}

        def evaluate(task, args, model, data, collator):
            length = collator.encoder.record.max_text_length
            seen.update(rows=list(data.test), length=length, batch=args.per_device_eval_batch_size)
            return Evaluation({})

        monkeypatch.setattr(evaluation, "evaluate", evaluate)
        monkeypatch.setattr(evaluation, "use_available_cores", lambda world_size: None)
        flags = [task.name, "--model", str(model), "--use_cpu", "true", *map(str, words)]
        evaluation.evaluate_recipe("", flags)
        capsys.readouterr()
        return seen

    return run


@pytest.mark.parametrize("split", ["test", "validation"])
def test_retrieval_on_digit_scenes_is_evaluated(split, tmp_path):
    model = checkpoint(tmp_path / "model", RETRIEVAL, [])
    files = ("--output_dir", tmp_path / "out", "-o", tmp_path / "metrics.json")
    process = run("retrieval", "--model", model, "--eval_scenes", 3, *files, "--split", split)
    assert process.returncode == 0, process.stderr
    assert unreadable(process.stdout.splitlines()) == []
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["images"] == 3
    assert 0 <= report["mean_recall"] <= 100


@pytest.mark.parametrize("task", [NLVR2, SNLI_VE, RETRIEVAL], ids=lambda task: task.name)
def test_digit_scenes_are_those_of_the_recipe_that_trains_on_them(task, tmp_path, evaluated):
    labels = {"nlvr2": ["False", "True"], "snli_ve": ["entailment", "neutral", "contradiction"]}.get(task.name, [])
    seen = evaluated(task, checkpoint(tmp_path / "model", task, labels), "--eval_scenes", "2")
    block = read_blocks(SCRIPT.parent / "vilt" / f"digit_scenes_{task.name}" / "pumer.yaml", task)["data"]
    args = task.arguments(**{**block, "eval_scenes": 2, "train_scenes": 2})
    assert seen["rows"] == list(task.load(args, None).test)


def lines_in(path, answers):
    Image.new("RGB", (8, 8), "red").save(path.parent / "red.png")
    rows = [{"image": "red.png", "question": "is it red?", "answer": answer} for answer in answers]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("given", "split", "answers"),
    [
        (["test"], "test", ["no"]),
        (["validation"], "test", ["yes", "yes"]),
        (["validation", "test"], "test", ["no"]),
        (["validation", "test"], "validation", ["yes", "yes"]),
    ],
)
def test_files_need_no_training_data(given, split, answers, tmp_path, evaluated):
    model = without_record(checkpoint(tmp_path / "model", VQA, ["yes", "no"]))
    files = {"validation": ["yes", "yes"], "test": ["no"]}
    words = [word for name in given for word in (f"--{name}_file", lines_in(tmp_path / f"{name}.jsonl", files[name]))]
    seen = evaluated(VQA, model, *words, "--split", split)
    assert [row["answers"] for row in seen["rows"]] == [[answer] for answer in answers]
    assert seen["length"] == 32  # of the task, as neither the model nor a recipe says it
    assert seen["batch"] == 64  # of the paper
    assert evaluated(VQA, model, *words, "--split", split, "--per_device_eval_batch_size", 5)["batch"] == 5


def test_texts_are_as_long_as_in_the_run_that_trained_the_model(tmp_path, evaluated):
    model = without_record(checkpoint(tmp_path / "run" / "student", VQA, ["yes", "no"]))
    words = ["--validation_file", lines_in(tmp_path / "validation.jsonl", ["yes"])]
    record = {"student": {"data": {"max_text_length": 12, "keep_aspect_ratio": False}}}
    (tmp_path / "run" / "stages.json").write_text(json.dumps(record))
    assert evaluated(VQA, model, *words)["length"] == 12
    assert evaluated(VQA, model, *words, "--max_text_length", 9)["length"] == 9


def test_inputs_are_made_as_the_processor_says(tmp_path, evaluated):
    model = checkpoint(tmp_path / "model", VQA, ["yes", "no"])
    Encoder.from_pretrained(model, max_text_length=11).save_pretrained(model)
    words = ["--validation_file", lines_in(tmp_path / "validation.jsonl", ["yes"])]
    assert evaluated(VQA, model, *words)["length"] == 11
    assert evaluated(VQA, model, *words, "--max_text_length", 9)["length"] == 9


def test_texts_of_digit_scenes_are_as_long_as_in_their_recipe(tmp_path, evaluated):
    model = without_record(checkpoint(tmp_path / "model", RETRIEVAL, []))  # it takes 40 tokens
    seen = evaluated(RETRIEVAL, model, "--eval_scenes", 2)
    assert (seen["length"], seen["batch"]) == (16, 512)


@pytest.mark.parametrize(("flags", "row"), [([], 0), (["--test_split", "held_out"], 1)])
def test_a_data_set_needs_no_training_split(flags, row, tmp_path, evaluated):
    model = checkpoint(tmp_path / "model", VQA, ["yes", "no"])
    (tmp_path / "data").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    image = {"bytes": (tmp_path / "red.png").read_bytes(), "path": None}
    for split, answer in (("validation", "yes"), ("held_out", "no")):
        columns = {"image": [image], "question": ["is it red?"], "answers": [[answer]]}
        dataset = Dataset.from_dict(columns).cast_column("image", DatasetImage(decode=False))
        dataset.to_parquet(tmp_path / "data" / f"{split}.parquet")
    card = "configs:\n- config_name: default\n  data_files:\n"
    for split in ("validation", "held_out"):
        card += f"  - split: {split}\n    path: {split}.parquet\n"
    (tmp_path / "data" / "README.md").write_text(f"---\n{card}---\n")
    seen = evaluated(VQA, model, "--dataset", tmp_path / "data", *flags)
    assert [found["answers"] for found in seen["rows"]] == [[["yes"], ["no"]][row]]


@pytest.mark.parametrize(
    ("arguments", "split", "needed"),
    [
        ({}, "test", ("test",)),
        ({}, "validation", ("validation",)),
        ({"dataset": "user/data"}, "test", ("validation",)),
        ({"dataset": "user/data", "test_split": "held_out"}, "test", ("test",)),
        ({"test_file": ["t.jsonl"]}, "test", ("test",)),
        ({"validation_file": ["v.jsonl"]}, "test", ("validation",)),
        ({"validation_file": ["v.jsonl"], "test_file": ["t.jsonl"]}, "validation", ("validation",)),
    ],
)
def test_one_split_is_loaded(arguments, split, needed):
    assert only_split(VqaDataArguments, split)(**arguments).needed_splits == needed


def test_a_file_without_units_is_read():
    """As it was written before results said the units of their metrics: `{**facts, **metrics}`."""
    values = {"model": "m", "task": "nlvr2", "split": "test", "max_text_length": 32}
    values |= {"accuracy": 50.0, "questions": 4, "accuracy_by_kind": {"both": 25.0}, "missing_images": 1}
    report = EvaluationReport.from_dict(values)
    assert report.evaluation.counts == {"questions": 4, "missing_images": 1}
    assert str(report.evaluation.by_kind["accuracy"]["both"]) == "25.00 %"
