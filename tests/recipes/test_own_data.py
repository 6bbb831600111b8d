"""A person with a folder of photographs, twenty questions about them, and a pretrained model: what the recipes do."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from in_process import run_here
from PIL import Image
from tiny import words_of
from tiny_tasks import CONFIGS, save_tiny, tiny
from transformers import ViltConfig, ViltForMaskedLM

from pumer_hf import preset
from pumer_hf.models.loading import load_checkpoint

RECIPES = Path(__file__).parents[2] / "recipes"
SCRIPT = RECIPES / "train_vqa.py"
COLOURS = ("red", "green", "blue", "white")
FLAGS = {
    "train_file": "train.jsonl",
    "validation_file": "validation.jsonl",
    "image_dir": "photographs",
    "checkpoint": "pretrained",
    "output_dir": "mine",
    "benchmark_seconds": "0.05",
    "use_cpu": "true",
    "report_to": "none",
}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def questions():
    """Twenty, the last four for validation."""
    rows = []
    for number in range(10):
        colour = COLOURS[number % 4]
        answers = (colour, "yes" if colour == "red" else "no")
        asked = ("what colour is this?", "is this red?")
        rows += [
            {"image": f"{number}.jpg", "question": question, "answer": answer}
            for question, answer in zip(asked, answers, strict=True)
        ]
    return rows[:16], rows[16:]


@pytest.fixture
def person(tmp_path, monkeypatch):
    """The folder of that person, in which the pretrained model is still missing."""
    monkeypatch.setattr("pumer_hf.recipes.runner.use_available_cores", lambda world_size: None)  # tests run on one
    (tmp_path / "photographs").mkdir()
    for number in range(10):
        size = (64, 40) if number % 3 else (30, 90)
        Image.new("RGB", size, COLOURS[number % 4]).save(tmp_path / "photographs" / f"{number}.jpg")
    for name, rows in zip(("train", "validation"), questions(), strict=True):
        write_rows(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


def save_pretrained(folder, backbone):
    """A checkpoint without the head of a task: of ViLT a stock one, as on the Hub; of METER what `convert` writes."""
    model, processor = tiny(backbone, "snli_ve", reduction=None)
    if backbone == "vilt":
        stock = ViltConfig(**CONFIGS["vilt"], vocab_size=model.config.vocab_size)
        ViltForMaskedLM(stock).save_pretrained(folder)
    else:
        model.base_model.save_pretrained(folder)
    processor.save_pretrained(folder)


def run(folder, *recipe, script=SCRIPT, **flags):
    values = {**FLAGS, **flags}
    flags = words_of({name: value for name, value in values.items() if value is not None})
    return run_here([sys.executable, str(script), *recipe, *flags], folder)


@pytest.mark.parametrize(
    ("backbone", "flags", "epochs"),
    [("vilt", {}, (10, 20)), ("meter", {"num_train_epochs": "2"}, (2, 2))],
    ids=["vilt", "meter"],
)
def test_twenty_questions_and_a_pretrained_model_give_a_finetuned_one(backbone, flags, epochs, person):
    save_pretrained(person / "pretrained", backbone)
    process = run(person, **flags)
    assert process.returncode == 0, process.stderr
    assert f"recipes/{backbone}/vqav2/pumer.yaml" in process.stdout
    model, processor = load_checkpoint(str(person / "mine" / "student"))
    assert list(model.config.id2label.values()) == ["no", "blue", "green", "red", "white", "yes"]
    assert model.config.reduction["layers"] == [0, 1, 2][: {"vilt": 3, "meter": 2}[backbone]]
    assert model.config.reduction["prune_ratio"] == preset(backbone, "vqav2")["prune_ratio"]
    assert type(model).__name__.startswith(f"PuMer{backbone.capitalize()}ForQuestionAnswering")
    assert processor.tokenizer is not None
    record = json.loads((person / "mine" / "stages.json").read_text())
    assert record["student"]["data"]["max_text_length"] == 40
    results = json.loads((person / "mine" / "results.json").read_text())
    assert results["student"]["questions"] == 4
    assert results["tokens_per_layer"]["teacher"][0] == [40, 37]  # the checkpoint's: 48 pixels, patches of 8
    for stage, number in zip(("teacher", "student"), epochs, strict=True):
        state = json.loads((person / "mine" / stage / "trainer_state.json").read_text())
        assert (state["global_step"], state["epoch"]) == (4 * number, number)  # 16 rows, in batches of 4


OTHER_ROWS = {
    "nlvr2": lambda n: {
        "images": [f"{n}.jpg", f"{9 - n}.jpg"],
        "identifier": f"own-{n}-0-0",
        "sentence": "both are red",
        "label": ("True", "False")[n % 2],
    },
    "snli_ve": lambda n: {
        "image": f"{n}.jpg",
        "sentence2": f"it is {COLOURS[n // 2 % 4]}",
        "gold_label": ("entailment", "neutral", "contradiction")[n % 3],
    },
    "retrieval": lambda n: {"image": f"{n}.jpg", "captions": [f"picture {n}", f"it is {COLOURS[n % 4]}, {n}"]},
}


@pytest.mark.slow
@pytest.mark.parametrize("task", OTHER_ROWS)
def test_the_other_tasks_finetune_a_pretrained_model_on_own_data(task, person):
    save_pretrained(person / "pretrained", "vilt")
    rows = [OTHER_ROWS[task](number) for number in range(10)]
    write_rows(person / "train.jsonl", rows[:7])
    write_rows(person / "validation.jsonl", rows[7:])
    process = run(person, script=RECIPES / f"train_{task}.py", max_steps="2")
    assert process.returncode == 0, process.stderr
    model, _ = load_checkpoint(str(person / "mine" / "student"))
    assert model.config.reduction == {**preset("vilt", task), "layers": [0, 1, 2]}
    for stage in ("teacher", "student"):
        record = json.loads((person / "mine" / "stages.json").read_text())[stage]
        assert record["data"]["max_text_length"] == 40
        assert record["training"]["max_steps"] == 2


def without_processor(person):
    for path in (person / "pretrained").iterdir():
        if "token" in path.name or "processor" in path.name:
            path.unlink()


def add_violet(split):
    """One more row, whose answer no other row has."""

    def add(person):
        rows = questions()[("train", "validation").index(split)]
        write_rows(person / f"{split}.jsonl", [*rows, {**rows[0], "answer": "violet"}])

    return add


def always_yes(person):
    write_rows(person / "train.jsonl", [{**row, "answer": "yes"} for row in questions()[0]])


def no_answer(person):
    write_rows(person / "train.jsonl", [{"image": "0.jpg", "question": "what is it?"}])


def nothing(person):
    """All is there."""


@pytest.mark.parametrize(
    ("spoil", "flags", "said"),
    [
        (lambda person: (person / "photographs" / "3.jpg").unlink(), {}, ["photographs/3.jpg"]),
        (nothing, {"image_dir": "fotos"}, ["fotos/0.jpg"]),
        (lambda person: shutil.rmtree(person / "pretrained"), {}, ["model.checkpoint='pretrained'", "is no model"]),
        (without_processor, {}, ["model.checkpoint='pretrained'", "is no processor"]),
        (nothing, {"validation_file": None}, ["data.validation_file is missing", "set rows aside"]),
        (lambda person: write_rows(person / "train.jsonl", []), {}, ["train.jsonl: the file holds no question"]),
        (no_answer, {}, ["train.jsonl, line 1", "answer"]),
        (add_violet("validation"), {}, ["'violet'", "data.unknown_answers"]),
        (
            add_violet("train"),
            {"min_answer_count": "2"},
            ["'violet'", "data.min_answer_count=2", "data.unknown_answers"],
        ),
        (always_yes, {}, ["data.min_answer_count=1 ", "'yes' (16x)"]),
        (
            nothing,
            {"min_answer_count": "9"},
            ["data.min_answer_count=9 ", "'no' (6x) and 'blue' (2x)", "2 or less"],
        ),
    ],
)
def test_what_is_missing_is_one_sentence(spoil, flags, said, person):
    save_tiny(person / "pretrained", "vilt", "snli_ve", reduction=None)
    spoil(person)
    process = run(person, **flags)
    assert process.returncode == 1
    last = process.stderr.splitlines()[-1]
    assert last.startswith("train_vqa.py: error: ")
    assert [part for part in said if part not in last] == []
    assert "Traceback" not in process.stderr


def test_without_a_model_two_commands_are_shown(person):
    process = run(person, checkpoint=None)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    finetune, scratch = process.stderr.splitlines()[-2:]
    assert "--checkpoint dandelin/vilt-b32-mlm --train_file train.jsonl" in finetune
    assert "recipes/vilt/own_data/scratch.yaml --train_file train.jsonl" in scratch
    assert not (person / "mine").exists()


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_the_recipe_from_scratch_trains_a_small_model_on_own_data(backbone, person):
    path = str(RECIPES / backbone / "own_data" / "scratch.yaml")
    process = run(person, path, checkpoint=None, max_steps="2")
    assert process.returncode == 0, process.stderr
    results = json.loads((person / "mine" / "results.json").read_text())
    assert results["tokens_per_layer"]["teacher"][0] == [40, 65]
    assert results["gflops"]["ratio"] > 1
