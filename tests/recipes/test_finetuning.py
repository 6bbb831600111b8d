"""The recipe of a run on own data, where the command line names no recipe file."""

import json
import re
import shlex
from pathlib import Path

import pytest
from datasets import Dataset, IterableDataset
from tiny_tasks import TASKS, save_tiny, without_record

from pumer_hf import preset
from pumer_hf.recipes.finetuning import fit_to_rows, training_recipe
from pumer_hf.recipes.parser import parse_recipe, read_blocks

RECIPES = Path(__file__).parents[2] / "recipes"
PAPER = {"vqa": "vqav2", "nlvr2": "nlvr2", "snli_ve": "snli_ve", "retrieval": "retrieval"}
FILES = ("--train_file", "train.jsonl", "--validation_file", "validation.jsonl")
BACKBONES = ("vilt", "meter")
RATES = ("learning_rate", "cross_modal_learning_rate", "classifier_learning_rate", "lr_scheduler_type", "warmup_steps")


def default_of(task):
    return RECIPES / "vilt" / ("digit_scenes" if task == "vqa" else f"digit_scenes_{task}") / "pumer.yaml"


def recipe_of(task, *flags):
    return training_recipe(TASKS[task], list(flags))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Gives a tiny model of a family and a task, with 3 layers that reduce; made once."""
    made = {}

    def checkpoint(backbone, task="vqa", **config):
        key = json.dumps([backbone, task, config])
        if key not in made:
            made[key] = save_tiny(
                tmp_path_factory.mktemp("models") / "model", backbone, task, reduction=None, **config
            )
        return made[key]

    return checkpoint


@pytest.mark.parametrize("flag", ["checkpoint", "teacher"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_recipe_comes_from_the_model_and_the_task(backbone, task, flag, checkpoint):
    recipe = recipe_of(task, *FILES, f"--{flag}", checkpoint(backbone, task))
    assert (recipe.model.backbone, getattr(recipe.model, flag)) == (backbone, checkpoint(backbone, task))
    assert recipe.model.config is None
    paper = preset(backbone, PAPER[task])
    depth = {"vilt": 12, "meter": 6}[backbone]
    assert recipe.reduction == {**paper, "layers": sorted({layer * 3 // depth for layer in paper["layers"]})}
    expected = TASKS[task].arguments(
        train_file=["train.jsonl"], validation_file=["validation.jsonl"], max_text_length=40
    )
    assert recipe.data == expected
    published = read_blocks(RECIPES / backbone / PAPER[task] / "pumer.yaml", TASKS[task])["training"]
    for name in RATES:
        assert getattr(recipe.training, name) == published.get(name, getattr(recipe.training, name)), name
    assert recipe.training.learning_rate == published["learning_rate"]
    for stage, epochs in (("teacher", published["teacher_training"]), ("student", published)):
        args = recipe.stage(stage)
        assert (args.max_steps, args.num_train_epochs) == (-1, epochs["num_train_epochs"])
    assert recipe.training.output_dir == f"outputs/own-data-{task}"


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_as_deep_as_the_paper_has_the_schedule_of_the_paper(backbone, checkpoint):
    deep = checkpoint(backbone, "snli_ve", num_hidden_layers={"vilt": 12, "meter": 6}[backbone])
    assert recipe_of("snli_ve", *FILES, "--checkpoint", deep).reduction == preset(backbone, "snli_ve")


@pytest.mark.parametrize("task", TASKS)
def test_data_on_the_hub_are_own_data_too(task, checkpoint):
    recipe = recipe_of(task, "--dataset", "user/data", "--checkpoint", checkpoint("meter", task))
    assert (recipe.model.backbone, recipe.data.dataset) == ("meter", "user/data")
    assert recipe.training.max_steps == -1


def test_texts_are_no_longer_than_the_model_takes(tmp_path):
    short = without_record(save_tiny(tmp_path / "model", "vilt"))
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": 9}))
    assert recipe_of("vqa", *FILES, "--checkpoint", short).data.max_text_length == 9


def test_inputs_are_as_in_the_run_that_trained_the_model(tmp_path):
    teacher = without_record(save_tiny(tmp_path / "run" / "teacher", "vilt"))
    record = {"teacher": {"data": {"max_text_length": 12, "keep_aspect_ratio": True, "rand_augment": True}}}
    (tmp_path / "run" / "stages.json").write_text(json.dumps(record))
    recipe = recipe_of("vqa", *FILES, "--teacher", teacher)
    assert (recipe.data.max_text_length, recipe.data.keep_aspect_ratio, recipe.data.rand_augment) == (12, True, False)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_flags_win(backbone, checkpoint):
    flags = ["--learning_rate", "0.5", "--num_train_epochs", "3", "--max_text_length=7", "--output-dir", "here"]
    flags += ["--min_answer_count", "2", "--prune_ratio", "0.25", "--layers", "1", "--rand_augment"]
    recipe = recipe_of("vqa", *FILES, "--checkpoint", checkpoint(backbone), *flags)
    assert [recipe.stage(stage).learning_rate for stage in ("teacher", "student")] == [0.5, 0.5]
    assert [recipe.stage(stage).num_train_epochs for stage in ("teacher", "student")] == [3, 3]
    assert (recipe.data.max_text_length, recipe.data.min_answer_count, recipe.data.rand_augment) == (7, 2, True)
    assert recipe.training.output_dir == "here"
    assert recipe.reduction == {**preset(backbone, "vqav2"), "layers": [1], "prune_ratio": 0.25}


def test_the_flag_of_a_stage_wins(checkpoint):
    flags = ["--num_train_epochs", "3", "--teacher_training", '{"num_train_epochs": 5}']
    recipe = recipe_of("vqa", *FILES, "--checkpoint", checkpoint("vilt"), *flags)
    assert [recipe.stage(stage).num_train_epochs for stage in ("teacher", "student")] == [5, 3]


def test_the_schedule_of_another_method_is_not_that_of_pumer(checkpoint):
    flags = [*FILES, "--checkpoint", checkpoint("vilt")]
    assert recipe_of("vqa", *flags, "--method", "none").reduction is None
    tip = recipe_of("vqa", *flags, "--method", "tip", "--prune_ratio", "0.5").reduction
    assert tip == {"method": "tip", "layers": [0, 1, 2], "prune_ratio": 0.5}
    with pytest.raises(ValueError, match="'tip' .*prune_ratio"):
        recipe_of("vqa", *flags, "--method", "tip")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint", "nowhere"], "model.checkpoint='nowhere'"),
        (["--teacher", "nowhere"], "model.teacher='nowhere'"),
        (["--checkpont", "nowhere"], "'--checkpont': "),
        (["--backbone", "bert"], "model.backbone='bert'"),
    ],
)
def test_what_is_wrong_is_named(flags, message):
    with pytest.raises(ValueError) as error:
        recipe_of("vqa", *FILES, *flags)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_teacher_must_have_the_head_of_the_task(checkpoint):
    with pytest.raises(ValueError, match="nlvr2 .*trained model"):
        recipe_of("nlvr2", *FILES, "--teacher", checkpoint("vilt"))


# Neither a model nor a recipe file


@pytest.mark.parametrize(
    "data", [FILES, ("--dataset", "user/data"), ("--test-file=t.jsonl",)], ids=["files", "hub", "="]
)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_own_data_alone_are_an_error_with_two_commands(backbone, task, data, checkpoint, monkeypatch):
    monkeypatch.chdir(RECIPES.parent)
    script = f"recipes/train_{task}.py"
    monkeypatch.setattr("sys.argv", [script])
    family = [] if backbone == "vilt" else ["--backbone", backbone]  # vilt is the default
    flags = [*data, "--image_dir", "my pictures", *family]
    with pytest.raises(ValueError) as error:
        recipe_of(task, *flags)
    first, *commands = str(error.value).splitlines()
    assert f"data.{data[0].lstrip('-').partition('=')[0].replace('-', '_')} is given" in first
    assert "model.checkpoint" in first
    finetune, scratch = (shlex.split(line[line.index("accelerate launch") :]) for line in commands)
    assert finetune[:3] == scratch[:3] == ["accelerate", "launch", script]
    flag, source, *rest = finetune[3:]
    published = read_blocks(RECIPES / backbone / PAPER[task] / "pumer.yaml", TASKS[task])["model"]
    assert (flag, source) == ("--checkpoint", published["checkpoint"])
    assert rest == scratch[4:] == flags
    if data != ("--test-file=t.jsonl",):  # which is not enough by itself
        assert recipe_of(task, flag, checkpoint(backbone, task), *rest).model.backbone == backbone
        recipe = recipe_of(task, *scratch[3:])
        assert (recipe.model.backbone, recipe.model.checkpoint) == (backbone, None)
        assert recipe.model.config["image_size" if backbone == "vilt" else "vision_config"]


@pytest.mark.parametrize("data", [FILES, ("--dataset=user/data",)], ids=["files", "hub"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_file_for_digit_scenes_does_not_train_on_own_data(backbone, task, data, checkpoint, monkeypatch):
    monkeypatch.chdir(RECIPES.parent)
    script = f"recipes/train_{task}.py"
    monkeypatch.setattr("sys.argv", [script])
    path = default_of(task).relative_to(RECIPES.parent / "recipes" / "vilt")
    path = f"recipes/{backbone}/{path}"
    with pytest.raises(ValueError) as error:
        recipe_of(task, path, *data)
    first, *commands = str(error.value).splitlines()
    assert f"data.{data[0].lstrip('-').partition('=')[0]} is given" in first
    assert f"{path} is for digit scenes" in first
    finetune, scratch = (shlex.split(line[line.index("accelerate launch") :]) for line in commands)
    published = read_blocks(RECIPES / backbone / PAPER[task] / "pumer.yaml", TASKS[task])["model"]
    assert finetune == ["accelerate", "launch", script, "--checkpoint", published["checkpoint"], *data]
    assert scratch == ["accelerate", "launch", script, f"recipes/{backbone}/own_data/scratch.yaml", *data]


@pytest.mark.parametrize("flag", ["--checkpoint", "--teacher"])
def test_with_a_model_the_file_for_digit_scenes_is_left_out(flag, checkpoint, monkeypatch):
    monkeypatch.chdir(RECIPES.parent)
    monkeypatch.setattr("sys.argv", ["recipes/train_vqa.py"])
    flags = [*FILES, flag, checkpoint("vilt")]
    with pytest.raises(ValueError) as error:
        recipe_of("vqa", "recipes/vilt/digit_scenes/tome.yaml", *flags)
    first, command = str(error.value).splitlines()
    assert "recipes/vilt/digit_scenes/tome.yaml is for digit scenes" in first
    assert shlex.split(command[command.index("accelerate") :])[2:] == ["recipes/train_vqa.py", *flags]
    assert recipe_of("vqa", *flags).data.train_file == ["train.jsonl"]


def test_a_file_for_own_data_may_say_scenes_too(tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text("data: {train_file: [a.jsonl], validation_file: [b.jsonl], num_digits: 3}")
    assert recipe_of("vqa", str(path), *FILES).data.train_file == ["train.jsonl"]


def test_the_commands_of_the_example_are_for_its_files(checkpoint, monkeypatch):
    monkeypatch.chdir(RECIPES.parent)
    text = (RECIPES.parent / "examples" / "easy_vqa.py").read_text(encoding="utf-8").replace("\\\\\n", " ")
    found = re.findall(r"accelerate launch recipes/train_vqa\.py (.*)", text)
    commands = [shlex.split(command, comments=True) for command in found]
    scratch, finetuned = (
        recipe_of("vqa", *(checkpoint("vilt") if word == "dandelin/vilt-b32-mlm" else word for word in words))
        for words in commands
    )
    assert scratch.data.train_file == finetuned.data.train_file == ["data/easy-vqa/train.jsonl"]
    assert (scratch.model.checkpoint, scratch.data.max_text_length) == (None, 16)
    assert (finetuned.model.checkpoint, finetuned.data.max_text_length) == (checkpoint("vilt"), 40)


# A recipe file that is named, and digit scenes


@pytest.mark.parametrize("flags", [FILES, (*FILES, "--checkpoint", "any/model"), ("--prune_ratio", "0.2")])
def test_a_recipe_file_that_is_named_is_taken_as_it_is(flags):
    path = str(RECIPES / "vilt" / "easy_vqa" / "pumer.yaml")
    recipe = recipe_of("vqa", path, *flags)
    expected = parse_recipe(TASKS["vqa"], default_of("vqa"), [path, *flags])
    assert (recipe.model, recipe.reduction, recipe.data) == (expected.model, expected.reduction, expected.data)
    assert recipe.training_values == expected.training_values
    assert fit_to_rows(recipe, Dataset.from_dict({"x": [0]})) is recipe


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("flags", [(), ("--checkpoint", "any/model"), ("--grid_size", "5")])
def test_the_default_recipe_is_for_its_own_data(task, flags):
    recipe = recipe_of(task, *flags)
    expected = parse_recipe(TASKS[task], default_of(task), list(flags))
    assert (recipe.model, recipe.reduction, recipe.data) == (expected.model, expected.reduction, expected.data)
    assert recipe.training_values == expected.training_values


# Few rows


def fitted(rows, *flags):
    recipe = recipe_of("vqa", *FILES, *flags)
    return fit_to_rows(recipe, Dataset.from_dict({"x": list(range(rows))}))


def chosen(recipe):
    args = recipe.stage("student")
    assert args.per_device_train_batch_size == recipe.training.per_device_train_batch_size
    return args.per_device_train_batch_size, args.early_stopping_patience


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, (4, 0)), (20, (4, 0)), (100, (8, 0)), (255, (16, 0)), (256, (32, 5)), (10_000, (32, 5))]
)
def test_few_rows_are_trained_on_in_small_batches_to_the_end(rows, expected, checkpoint):
    assert chosen(fitted(rows, "--checkpoint", checkpoint("vilt"))) == expected


def test_flags_win_over_the_number_of_rows(checkpoint):
    flags = ["--per_device_train_batch_size", "16", "--early_stopping_patience", "2"]
    assert chosen(fitted(20, "--checkpoint", checkpoint("vilt"), *flags)) == (16, 2)


def test_accumulated_batches_are_one(checkpoint):
    flags = ["--checkpoint", checkpoint("vilt"), "--gradient_accumulation_steps", "4"]
    assert chosen(fitted(256, *flags)) == (8, 0)


def test_rows_of_a_stream_are_not_counted(checkpoint):
    recipe = recipe_of("vqa", *FILES, "--checkpoint", checkpoint("vilt"))
    assert fit_to_rows(recipe, IterableDataset.from_generator(lambda: iter([{"x": 1}]))) is recipe
