"""The plan that a recipe prints: what it says holds."""

import json

import pytest
from datasets import Dataset
from PIL import Image
from tiny_tasks import REDUCTION, tiny

from pumer_hf import DistillationTrainer
from pumer_hf.data.nlvr2 import NLVR2
from pumer_hf.data.retrieval import RETRIEVAL
from pumer_hf.data.snli_ve import SNLI_VE
from pumer_hf.data.vqa import VQA
from pumer_hf.models.families import FAMILIES
from pumer_hf.recipes.recipe import ModelArguments, Recipe, RecipeTrainingArguments
from pumer_hf.recipes.run_plan import (
    checkpoint_words,
    number_cut,
    part_words,
    planned_steps,
    run_plan,
    stage_lengths,
    trained_stages,
)
from pumer_hf.reducers import parse_method

TASKS = {task.name: task for task in (VQA, SNLI_VE, NLVR2, RETRIEVAL)}


@pytest.fixture
def recipe_of(tmp_path):
    def make(task=VQA, reduction=REDUCTION, data=None, model=None, **training):
        values = {"output_dir": str(tmp_path / "run"), "use_cpu": True, "report_to": "none", **training}
        scenes = {"train_scenes": 60, "eval_scenes": 4, **({"unknown_answers": "ignore"} if task is VQA else {})}
        return Recipe(
            ModelArguments(**(model or {})),
            reduction,
            task.arguments(**(scenes if data is None else data)),
            RecipeTrainingArguments(**values),
            values,
        )

    return make


@pytest.fixture
def plan_of(recipe_of):
    """The lines of a plan by their first word."""

    def make(task=VQA, backbone="vilt", **blocks):
        recipe = recipe_of(task, **blocks)
        model, processor = tiny(backbone, task.name, reduction=None)
        lines = run_plan(task, recipe, task.load(recipe.data, None), model, processor).splitlines()
        assert lines[0] == "Plan of this run:"
        return {name: words.strip() for name, _, words in (line.strip().partition("  ") for line in lines[1:])}

    return make


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
@pytest.mark.parametrize("task", TASKS)
def test_each_task_and_family_has_a_plan(task, backbone, plan_of):
    plan = plan_of(TASKS[task], backbone, max_steps=7, teacher_training={"max_steps": 1500})
    names = ["model", "reduction", "pictures", "texts", "train", "validation", "test"]
    assert list(plan) == [*names, "teacher", "student", "checkpoints", "results"]
    assert FAMILIES[backbone].heads[TASKS[task].head].__name__ in plan["model"]
    assert "pumer in layers [0, 2], prune_ratio=[0.1, 0.3]" in plan["reduction"]
    assert plan["pictures"] == "48 x 48 pixels: each picture becomes a square"
    assert ("labels" in plan["train"]) == (task != "retrieval")
    assert ("captions" in plan["train"]) == (task == "retrieval")
    assert plan["teacher"].startswith("1,500 steps ")
    assert plan["student"].startswith("7 steps ")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"method": "diverse", "site": "inputs", "num_keep": 7}, "diverse before the first layer, num_keep=7"),
        (
            {"method": "lookahead", "site": "inputs", "keep_ratio": 0.2},
            "lookahead before the first layer, keep_ratio=0.2",
        ),
        (
            {"method": "tome", "site": "tower", "merge_ratio": 0.1},
            "tome in every layer of the site 'tower', merge_ratio=0.1",
        ),
    ],
)
def test_a_part_in_words(part, said):
    assert part_words(parse_method(part)) == said


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({}, "random weights: it learns from scratch"),
        ({"checkpoint": "some/model"}, "pretrained weights from some/model"),
        ({"teacher": "some/model"}, "finetuned weights from some/model"),
    ],
)
def test_the_plan_says_where_the_weights_come_from(model, said, plan_of):
    plan = plan_of(model=model)
    assert said in plan["model"]
    assert ("teacher" in plan) == ("teacher" not in model)


def test_the_shape_of_pictures_that_keep_it(plan_of):
    plan = plan_of(data={"train_scenes": 60, "eval_scenes": 4, "keep_aspect_ratio": True, "rand_augment": True})
    assert plan["pictures"].startswith("48 pixels on the shorter side, at most 79 on the longer one")
    assert "RandAugment" in plan["pictures"]


def test_the_parts_of_the_schedule_that_an_elastic_student_uses(plan_of):
    assert plan_of(elastic=[0.25, 1.0])["reduction"].endswith("of which each training step uses a part from 0.25 to 1")


def test_smaller_images_of_the_student(plan_of):
    assert plan_of(reduction=None, model={"image_size": 24})["reduction"] == "none, images of 24 x 24 pixels"


# The data


@pytest.fixture
def hypotheses(tmp_path):
    """Files of SNLI-VE: three rows to train on, of which one has no label; two to validate on."""
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    rows = [
        {"image": "a.png", "sentence2": text, "gold_label": label, "pairID": "a.png#0"}
        for text, label in (("short", "neutral"), ("a " * 50, "entailment"), ("none", "-"))
    ]
    for split, part in (("train", rows), ("validation", rows[:2])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return {f"{split}_file": [str(tmp_path / f"{split}.jsonl")] for split in ("train", "validation")}


def test_what_is_cut_and_what_is_left_out_is_counted(hypotheses, plan_of):
    plan = plan_of(SNLI_VE, data=hypotheses)
    assert plan["train"].startswith("2 rows of ")
    assert "1 (50 %) of the texts are cut" in plan["train"]
    assert "1 rows without a label are left out" in plan["train"]
    assert "left out" not in plan["validation"]
    assert plan["test"] == "the validation rows"


def test_rows_of_a_data_set_without_a_label_are_counted(tmp_path, plan_of, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    rows = {
        "image": [str(tmp_path / "a.png")] * 3,
        "hypothesis": ["a", "b", "c"],
        "label": ["neutral", "-", "neutral"],
    }
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        Dataset.from_dict(rows).to_parquet(tmp_path / "data" / f"{split}.parquet")
    plan = plan_of(SNLI_VE, data={"dataset": str(tmp_path / "data")})
    for split in ("train", "validation"):
        assert f"2 rows of {tmp_path / 'data'}, {split}; 3 labels, 'neutral' 100%" in plan[split]
        assert "1 rows without a label are left out" in plan[split]


def test_rows_without_a_known_answer_are_counted(tmp_path, plan_of):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    for split, answers in (("train", ["yes", "yes", "no", "no", "rare"]), ("validation", ["yes", "other", "new"])):
        rows = [{"image": "a.png", "question": "is it?", "answer": answer} for answer in answers]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {f"{split}_file": [str(tmp_path / f"{split}.jsonl")] for split in ("train", "validation")}
    plan = plan_of(data={**files, "min_answer_count": 2, "unknown_answers": "ignore"})
    assert "4 rows of " in plan["train"]
    assert "2 labels, 'yes' 50%, 'no' 50%" in plan["train"]
    assert "1 rows without a known answer are left out" in plan["train"]
    assert "2 rows without a known answer count as wrong" in plan["validation"]


def test_a_text_is_cut_if_it_has_more_tokens_than_the_limit():
    _, processor = tiny("vilt", reduction=None)
    texts = ["red", "red red", "red red red", "red red red"]  # and [CLS] and [SEP]
    assert [number_cut(processor, texts, length) for length in (2, 3, 4, 5)] == [4, 3, 2, 0]


# The stages


@pytest.mark.parametrize(
    ("rows", "values"),
    [
        (9, {"num_train_epochs": 2}),
        (9, {"num_train_epochs": 1.5, "dataloader_drop_last": True}),
        (9, {"num_train_epochs": 2, "gradient_accumulation_steps": 2}),
        (1, {"num_train_epochs": 1, "gradient_accumulation_steps": 4}),
        (9, {"max_steps": 3}),
    ],
)
def test_the_steps_are_those_of_the_trainer(rows, values, make_model, make_rows, make_args):
    args = make_args(RecipeTrainingArguments, **{"max_steps": -1, **values})
    trainer = DistillationTrainer(make_model(), args=args, train_dataset=make_rows(rows))
    trainer.train()
    assert planned_steps(args, rows) == trainer.state.max_steps == trainer.state.global_step


def test_the_lengths_of_the_stages_are_those_of_the_plan(recipe_of):
    early = {"early_stopping_patience": 2, "load_best_model_at_end": True, "eval_strategy": "epoch"}
    recipe = recipe_of(
        per_device_train_batch_size=8,
        max_steps=1500,
        pretraining={"max_steps": 9},
        teacher_training={"max_steps": -1, "num_train_epochs": 2, "save_strategy": "epoch", **early},
    )
    assert stage_lengths(recipe, 20) == {
        "pretraining": "9 steps",
        "teacher": "at most 6 steps",
        "student": "1,500 steps",
    }
    assert stage_lengths(recipe, None)["teacher"] == "at most 2 epochs"


@pytest.mark.parametrize(("world_size", "steps"), [(1, 5), (2, 3), (4, 2)])
def test_several_processes_share_the_rows_out(world_size, steps, make_args, monkeypatch):
    args = make_args(RecipeTrainingArguments, max_steps=-1, num_train_epochs=1)
    monkeypatch.setattr(RecipeTrainingArguments, "world_size", world_size)
    assert planned_steps(args, 9) == steps  # two rows at a time on each


@pytest.mark.parametrize(
    ("reduction", "blocks", "stages"),
    [
        (REDUCTION, {}, ["teacher", "student"]),
        (None, {}, ["teacher"]),
        (REDUCTION, {"pretraining": {"max_steps": 3}}, ["pretraining", "teacher", "student"]),
        (REDUCTION, {"pretraining": {"max_steps": 3}, "model": {"checkpoint": "some/model"}}, ["teacher", "student"]),
        (REDUCTION, {"model": {"teacher": "some/model"}, "reducer_training": {}}, ["reducer", "student"]),
    ],
)
def test_the_stages_of_a_run(reduction, blocks, stages, recipe_of, plan_of):
    assert trained_stages(recipe_of(reduction=reduction, **blocks)) == stages
    assert [name for name in plan_of(reduction=reduction, **blocks) if name in (*stages, "reducer")] == stages


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"save_steps": 1000}, "every 1,000 steps and every 5 minutes"),
        ({"save_steps": 0.1, "save_minutes": 0}, "every 10% of the steps"),
        ({"save_strategy": "epoch", "save_minutes": 2.5}, "after each epoch and every 2.5 minutes"),
        ({"save_strategy": "no"}, "none (training.save_strategy): a stage that is stopped begins anew"),
    ],
)
def test_when_checkpoints_are_saved(values, words, tmp_path):
    assert checkpoint_words(RecipeTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **values)) == words
