import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from pumer_hf import preset
from pumer_hf.data.nlvr2 import NLVR2
from pumer_hf.data.retrieval import RETRIEVAL
from pumer_hf.data.snli_ve import SNLI_VE
from pumer_hf.data.vqa import VQA, VqaDataArguments
from pumer_hf.images import DataError
from pumer_hf.models.families import FAMILIES
from pumer_hf.recipes.parser import parse_recipe, read_blocks, recipe_task
from pumer_hf.recipes.program import exit_on_user_error
from pumer_hf.reducers import parse_reduction

RECIPES = Path(__file__).parents[2] / "recipes"
TASK_OF_FOLDER = {
    "digit_scenes": VQA,
    "digit_scenes_cluttered": VQA,
    "digit_scenes_nlvr2": NLVR2,
    "digit_scenes_retrieval": RETRIEVAL,
    "digit_scenes_snli_ve": SNLI_VE,
    "easy_vqa": VQA,
    "nlvr2": NLVR2,
    "own_data": VQA,
    "retrieval": RETRIEVAL,
    "snli_ve": SNLI_VE,
    "vqav2": VQA,
}  # by the folder of a recipe
PAPER_TASKS = ("vqav2", "nlvr2", "snli_ve", "retrieval")
RECIPE_FILES = sorted(path.relative_to(RECIPES) for family in FAMILIES for path in RECIPES.glob(f"{family}/*/*.yaml"))

RECIPE = """
model:
  config: {hidden_size: 8}
  image_std: 0.25
reduction:
  method: pumer
  layers: [1, 3]
  prune_ratio: 0.1
  image_merge_ratio: [0.2, 0.3]
  text_merge_ratio: 0.4
data:
  grid_size: 5
training:
  output_dir: out
  alpha: 0.5
  max_steps: 40
  teacher_training: {max_steps: 70, warmup_steps: 3}
"""


@pytest.fixture
def recipe_file(tmp_path):
    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def parse(recipe_file):
    """Parses the recipe above, or another one, with flags."""

    def parse(*flags, text=RECIPE):
        return parse_recipe(VQA, Path("default.yaml"), [recipe_file(text), *flags])

    return parse


@pytest.fixture
def error_of(parse):
    def error_of(*flags, text=RECIPE):
        with pytest.raises(ValueError) as error:
            parse(*flags, text=text)
        return str(error.value)

    return error_of


# blocks


def test_the_blocks_of_a_file_become_the_parts_of_a_recipe(parse):
    recipe = parse()
    assert recipe.model.config == {"hidden_size": 8}
    assert recipe.model.image_std == 0.25
    assert recipe.reduction == {
        "method": "pumer",
        "layers": [1, 3],
        "prune_ratio": 0.1,
        "image_merge_ratio": [0.2, 0.3],
        "text_merge_ratio": 0.4,
    }
    assert recipe.data.grid_size == 5
    assert (recipe.training.output_dir, recipe.training.alpha, recipe.training.max_steps) == ("out", 0.5, 40)


def test_what_a_file_leaves_out_has_its_default(parse):
    recipe = parse()
    assert (recipe.model.backbone, recipe.model.image_mean) == ("vilt", 0.5)
    assert recipe.data == VqaDataArguments(grid_size=5)
    assert recipe.training.temperature == 1.0
    assert recipe.training.remove_unused_columns is False


@pytest.mark.parametrize("text", ["{}", "model:\ndata:\n", "data: {grid_size: 6}"])
def test_a_file_without_a_reduction_reduces_nothing(parse, text):
    assert parse(text=text).reduction is None


def test_the_default_file_is_read_if_the_command_line_names_none(recipe_file):
    default = Path(recipe_file(RECIPE))
    assert parse_recipe(VQA, default, []).data.grid_size == 5
    assert parse_recipe(VQA, default, ["--num_digits", "4"]).data == VqaDataArguments(grid_size=5, num_digits=4)


def test_the_command_line_is_the_default_for_arguments(recipe_file, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train_vqa.py", recipe_file(RECIPE), "--alpha", "0.75"])
    recipe = parse_recipe(VQA, Path("default.yaml"))
    assert (recipe.training.max_steps, recipe.training.alpha) == (40, 0.75)


def test_a_recipe_takes_the_data_block_of_another_task(recipe_file):
    @dataclass
    class OtherArguments:
        _argument_group_name: ClassVar[str] = "data"
        num_negatives: int = field(default=15)

    path = recipe_file("data: {num_negatives: 3}")
    other = replace(VQA, arguments=OtherArguments)
    assert parse_recipe(other, Path("default.yaml"), [path]).data == OtherArguments(3)
    assert "num_negatives" in read_blocks(Path(path), other)["data"]
    with pytest.raises(ValueError, match="unknown key 'num_negatives' .*'data'"):
        read_blocks(Path(path), VQA)


def test_a_recipe_of_another_task_is_refused(recipe_file):
    path = Path(recipe_file("task: snli_ve\n\nmodel: {backbone: vilt}"))
    assert recipe_task(path) is SNLI_VE
    assert read_blocks(path, SNLI_VE)["model"] == {"backbone": "vilt"}
    with pytest.raises(ValueError, match="task: snli_ve: .* for vqa"):
        read_blocks(path, VQA)


def test_a_recipe_without_a_task_is_for_any_command(recipe_file):
    path = Path(recipe_file("model: {backbone: vilt}"))
    assert read_blocks(path, VQA) == read_blocks(path, SNLI_VE)
    with pytest.raises(ValueError, match=r"task: None: .*nlvr2"):
        recipe_task(path)
    path.write_text(f"task: null\n{path.read_text()}")
    assert read_blocks(path, VQA) == read_blocks(path, SNLI_VE)
    path.write_text(f"# accelerate launch recipes/train_nlvr2.py\n{path.read_text()}")
    assert recipe_task(path) is NLVR2  # as versions before named it


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("captions", "task: captions: "),
        ("3", "task: 3: must be a name"),
        ("[vqa]", r"task: \['vqa'\]: must be a name, .*vqa"),
        ("{vqa: 1}", "task: .*'vqa': 1.*: must be a name"),
        ("true", "task: True: must be a name"),
    ],
)
def test_an_unknown_task_is_refused(recipe_file, task, message):
    path = Path(recipe_file(f"task: {task}"))
    for read in (recipe_task, lambda path: read_blocks(path, VQA)):
        with pytest.raises(ValueError, match=message):
            read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: {}", r"'modle': .*model\?"),
        ("model: {checkpont: a}", r"'checkpont' .*'model': .*checkpoint\?"),
        ("data: {grid_siz: 5}", r"'grid_siz' .*'data': .*grid_size\?"),
        (
            "training: {learning_rat: 1}",
            r"'learning_rat' .*'training': .*learning_rate\?",
        ),
        (
            "training: {teacher_training: {max_stps: 1}}",
            r"'max_stps' .*'training.teacher_training': .*max_steps\?",
        ),
        (
            "reduction: {method: pumer, layers: [1], prun_ratio: 0.1}",
            r"reduction.prun_ratio .*'pumer': .*prune_ratio\?",
        ),
        ("data: {xyzzy: 5}", "'xyzzy' .*'data': .*dataset, "),
        ("model: 3", "'model' .*keys and values, got 3"),
        ("data: {5: grid_size}", "unknown key '5' .*'data'"),
        ("5: {}", "unknown block '5'"),
    ],
)
def test_a_wrong_name_is_an_error_with_its_block_and_the_nearest_right_one(error_of, text, message):
    assert re.search(message, error_of(text=text))


@pytest.mark.parametrize("text", ["", "- model", "model", "model: {", "model: [\t"])
def test_a_file_that_is_no_recipe_is_named(error_of, text):
    assert "recipe.yaml: " in error_of(text=text)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: .*no such recipe"):
        parse_recipe(VQA, Path("default.yaml"), ["nowhere.yaml"])
    with pytest.raises(FileNotFoundError, match=r"default\.yaml: .*no such recipe"):
        parse_recipe(VQA, Path("default.yaml"), ["--alpha", "1"])


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes("model: {checkpoint: là}".encode("latin-1"))
    with pytest.raises(ValueError, match=r"recipe\.yaml"):
        parse_recipe(VQA, Path("default.yaml"), [str(path)])


# flags


def test_flags_override_the_file(parse):
    flags = [
        "--grid_size",
        "7",
        "--alpha",
        "2",
        "--image_std",
        "1",
        "--config",
        '{"hidden_size": 16}',
        "--output_dir=o",
    ]
    recipe = parse(*flags)
    assert recipe.data.grid_size == 7
    assert (recipe.training.alpha, recipe.training.output_dir, recipe.training.max_steps) == (2.0, "o", 40)
    assert (recipe.model.image_std, recipe.model.config) == (1.0, {"hidden_size": 16})


def test_flags_of_lists_and_booleans(parse):
    recipe = parse(
        "--train_file", "q.json", "a.json", "--validation_file", "v.jsonl", "--keep_aspect_ratio", "--resume"
    )
    assert recipe.data.train_file == ["q.json", "a.json"]
    assert recipe.data.keep_aspect_ratio is True
    assert recipe.training.resume is True


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [("--prune_ration", "--prune_ratio"), ("--alfa", "--alpha"), ("--grid", "--grid_size"), ("--layer", "--layers")],
)
def test_an_unknown_flag_is_an_error_with_the_nearest_right_one(error_of, flag, nearest):
    assert error_of(flag, "0.1").endswith(f"unknown argument '{flag}': did you mean {nearest}?")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backbone", "clip"], "model.backbone='clip': .*'vilt'.*'meter'"),
        (["--image_std", "0"], "model.image_std=0.0: "),
        (["--config", "{hidden_size"], "model.config='{hidden_size': .*JSON"),
        (["--config", "[1]"], r"model.config=\[1\]: .*object"),
        (["--teacher_training", "3"], "training.teacher_training=3: .*object"),
        (["--pretraining", '{"max_stps": 3}'], "'max_stps' .*'training.pretraining'"),
        (["--pretraining", '{"alpha": -2}'], "alpha=-2.0: "),
        (
            ["--question_kinds", "colour_of_digit", "weather"],
            r"data.question_kinds=\['colour_of_digit', 'weather'\]: ",
        ),
        (["--reduction_warmup_steps", "-1"], "training.reduction_warmup_steps=-1: "),
        (["--elastic", "0.5"], r"training.elastic=\[0.5\]: .*two numbers"),
        (["--elastic", "1", "0"], r"training.elastic=\[1.0, 0.0\]: .*least factor comes first"),
        (["--elastic", "0", "1", "--reduction_warmup_steps", "5"], r"training.reduction_warmup_steps=5 and .*elastic"),
        (["--alpha", "-1"], "alpha=-1.0: "),
        (["--save_minutes", "-1"], "training.save_minutes=-1.0: "),
        (["--resume_from_checkpoint", "out"], "training.resume_from_checkpoint .*recipes"),
        (["--min_answer_count", "0"], "data.min_answer_count=0: "),
    ],
)
def test_a_wrong_value_is_named(error_of, flags, message):
    assert re.search(message, error_of(*flags))


def test_a_flag_of_the_wrong_type_is_named(parse, capsys):
    with pytest.raises(SystemExit) as error:
        parse("--grid_size", "six")
    assert error.value.code == 2
    assert "--grid_size" in capsys.readouterr().err


@pytest.mark.parametrize("entry", ["max_text_length: null", "grid_size: 5.5", "train_scenes: [1]"])
def test_a_value_of_the_wrong_type_in_the_file_is_named(error_of, entry):
    assert entry.split(":")[0] in error_of(text=f"data: {{{entry}}}")


def test_numbers_that_yaml_takes_for_text_are_read_as_numbers(parse):
    text = "training: {learning_rate: 1e-3, teacher_training: {learning_rate: 2e-3}}"
    recipe = parse(text=text)
    assert recipe.training.learning_rate == 0.001
    assert recipe.stage("teacher").learning_rate == 0.002


# the reduction


def test_one_ratio_on_the_command_line_counts_for_all_layers(parse):
    reduction = parse("--prune_ratio", "0.25", "--image_merge_ratio", "0").reduction
    assert (reduction["prune_ratio"], reduction["image_merge_ratio"]) == (0.25, 0.0)
    assert (reduction["text_merge_ratio"], reduction["layers"]) == (0.4, [1, 3])


def test_a_budget_on_the_command_line(parse):
    assert parse("--flops", "0.5").reduction["flops"] == 0.5
    assert parse("--method", "pumer", "--flops", "0.5", text="{}").schedule.flops == 0.5
    with pytest.raises(ValueError, match=r"reduction.flops=1.5: must be a number in \(0, 1\)"):
        parse("--flops", "1.5")


def test_several_ratios_on_the_command_line_count_per_layer(parse):
    flags = ["--layers", "0", "2", "4", "--prune_ratio", "0.1", "0.2", "0.3", "--image_merge_ratio", "0.5"]
    schedule = parse(*flags).schedule.at("layers")
    assert schedule.layers == (0, 2, 4)
    assert [schedule.ratio("prune_ratio", layer) for layer in schedule.layers] == [0.1, 0.2, 0.3]
    assert [schedule.ratio("image_merge_ratio", layer) for layer in schedule.layers] == [0.5] * 3


def test_the_command_line_alone_can_describe_a_reduction(parse):
    ratios = {"prune_ratio": 0.1, "image_merge_ratio": 0.2, "text_merge_ratio": 0.3}
    flags = [part for name, ratio in ratios.items() for part in (f"--{name}", str(ratio))]
    reduction = parse("--method", "pumer", "--layers", "1", *flags, text="{}").reduction
    assert reduction == {"method": "pumer", "layers": [1], **ratios}


def test_a_list_of_schedules_is_a_block_whose_part_at_the_layers_flags_change(parse):
    pumer = {"method": "pumer", "layers": [1], "prune_ratio": 0.1, "image_merge_ratio": 0.2, "text_merge_ratio": 0.3}
    tower = {"method": "tome", "site": "tower", "merge_ratio": 0.25}
    text = json.dumps({"reduction": [pumer, tower]})
    recipe = parse(text=text)
    assert recipe.reduction == [pumer, tower]
    assert [part.site for part in recipe.schedule.parts] == ["tower", "layers"]
    assert parse("--prune_ratio", "0.4", text=text).reduction == [{**pumer, "prune_ratio": 0.4}, tower]
    assert parse("--method", "none", text=text).reduction is None
    with pytest.raises(ValueError, match="--prune_ratio: no part of the block 'reduction' has the site 'layers'"):
        parse("--prune_ratio", "0.4", text=json.dumps({"reduction": [tower]}))
    with pytest.raises(ValueError, match="reduction.merge_ratio is not a field of method 'pumer'"):
        parse("--merge_ratio", "0.4", text=text)


def test_the_old_field_for_merging_in_the_tower_is_read(parse):
    pumer = {"method": "pumer", "layers": [1], "prune_ratio": 0.1, "image_merge_ratio": 0.2, "text_merge_ratio": 0.3}
    recipe = parse("--layers", "2", text=json.dumps({"reduction": {**pumer, "image_tower_merge_ratio": 0.25}}))
    assert recipe.schedule.at("tower").merge_ratio == 0.25
    assert recipe.schedule.at("layers").layers == (2,)


def test_method_none_switches_the_reduction_of_the_file_off(parse):
    assert parse_reduction(parse("--method", "none").reduction) is None


def test_the_same_method_keeps_the_rest_of_the_reduction(parse):
    assert parse("--method", "pumer").reduction == parse().reduction


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prune_ratio", "1"], "reduction.prune_ratio=1.0: "),
        (["--prune_ratio", "-0.1"], "reduction.prune_ratio=-0.1: "),
        (["--prune_ratio", "0.1", "0.2", "0.3"], "reduction.prune_ratio .*3 values .*2 layers"),
        (["--layers", "3", "1"], r"reduction.layers=\[3, 1\].*ascend"),
        (["--layers", "0", "1", "2"], "reduction.image_merge_ratio .*2 values .*3 layers"),
        (["--method", "none", "--prune_ratio", "0.1"], "reduction.method='none' .*no other"),
    ],
)
def test_a_wrong_reduction_on_the_command_line_is_named(error_of, flags, message):
    assert re.search(message, error_of(*flags))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reduction: {layers: [1], prune_ratio: 0.1}", "reduction.method=None: .*pumer"),
        ("reduction: {method: pumr}", "reduction.method='pumr': .*pumer"),
        ("reduction: {method: pumer, layers: [1], prune_ratio: 0.1}", "lacks image_merge_ratio"),
        ("reduction: [pumer]", "'reduction' .*keys and values"),
        (RECIPE.replace("prune_ratio: 0.1", "prune_ratio: high"), "reduction.prune_ratio='high': "),
    ],
)
def test_a_wrong_reduction_in_the_file_is_named(error_of, text, message):
    assert re.search(message, error_of(text=text))


# stages


def test_each_stage_has_a_folder_of_its_own(parse):
    recipe = parse("--output_dir", "somewhere/else")
    assert Path(recipe.stage("teacher").output_dir) == Path("somewhere/else/teacher")
    assert Path(recipe.stage("student").output_dir) == Path("somewhere/else/student")
    assert recipe.training.output_dir == "somewhere/else"


def test_the_teacher_trains_differently_where_the_file_says_so(parse):
    recipe = parse()
    teacher, student = recipe.stage("teacher"), recipe.stage("student")
    assert (teacher.max_steps, teacher.warmup_steps) == (70, 3)
    assert (student.max_steps, student.warmup_steps) == (40, recipe.training.warmup_steps)
    assert teacher.alpha == student.alpha == 0.5


def test_the_teacher_trains_like_the_student_if_the_file_says_nothing(parse):
    recipe = parse(text="training: {max_steps: 40, alpha: 0.5}")
    for stage in ("teacher", "student"):
        assert (recipe.stage(stage).max_steps, recipe.stage(stage).alpha) == (40, 0.5)


def test_teacher_training_on_the_command_line_is_json(parse):
    teacher = parse("--teacher_training", '{"max_steps": 9}').stage("teacher")
    assert (teacher.max_steps, teacher.warmup_steps) == (9, 0)


def test_an_unknown_key_of_teacher_training_on_the_command_line_is_named(error_of):
    message = "unknown key 'max_step' in the block 'training.teacher_training': did you mean max_steps?"
    assert message in error_of("--teacher_training", '{"max_step": 9}')


def test_a_wrong_value_of_teacher_training_is_found_before_anything_runs(error_of):
    assert "alpha=-1" in error_of("--teacher_training", '{"alpha": -1}')


# ending the program


@pytest.fixture
def without_launcher(monkeypatch):
    monkeypatch.setattr("sys.argv", ["recipes/train_vqa.py"])
    for name in ("TORCHELASTIC_ERROR_FILE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, FileExistsError, PermissionError, ImportError])
def test_an_error_of_the_user_ends_the_program_with_a_message(kind, without_launcher):
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        raise kind("the answer is missing")
    assert error.value.code == "train_vqa.py: error: the answer is missing"


def test_under_accelerate_launch_the_message_tells_of_the_traceback_that_follows(without_launcher, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        raise ValueError("the answer is missing")
    first, second = error.value.code.splitlines()
    assert first == "train_vqa.py: error: the answer is missing"
    assert "accelerate launch --quiet" in second


def test_a_launcher_of_several_processes_gets_the_message_for_its_last_lines(without_launcher, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit), exit_on_user_error():
        raise ValueError("the answer is missing")
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(tmp_path / "error.json"))
    last = str(ChildFailedError("train_vqa.py", {0: failure})).strip().splitlines()[-2]
    assert last.endswith("train_vqa.py: error: the answer is missing")


def test_an_error_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        1 / 0  # noqa: B018
    with exit_on_user_error():
        pass


# help, and the recipes that we ship


def test_help_shows_every_flag_under_its_block(capsys):
    with pytest.raises(SystemExit) as error:
        parse_recipe(VQA, RECIPES / "vilt" / "digit_scenes" / "pumer.yaml", ["--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert "pumer.yaml is used" in text
    sections = dict(re.findall(r"^(\w+):\n(.*?)(?=^\w+:\n|\Z)", text, flags=re.MULTILINE | re.DOTALL))
    flags = {
        "model": ["--backbone", "--checkpoint", "--config"],
        "data": ["--train_file", "--max_text_length", "--grid_size"],
        "training": ["--alpha", "--learning_rate", "--teacher_training"],
        "reduction": ["--method", "--layers", "--prune_ratio", "--image_merge_ratio", "--text_merge_ratio"],
    }
    for block, names in flags.items():
        assert [name for name in names if name not in sections.get(block, "")] == [], f"missing under '{block}:'"


def test_there_are_recipes():
    assert Path("vilt/digit_scenes/pumer.yaml") in RECIPE_FILES


@pytest.mark.parametrize("path", RECIPE_FILES, ids=str)
def test_every_recipe_loads_and_says_what_its_path_says(path):
    backbone, task, _ = path.parts
    recipe = parse_recipe(TASK_OF_FOLDER[task], Path("default.yaml"), [str(RECIPES / path)])
    assert recipe.model.backbone == backbone
    if task != "own_data":  # which is for all tasks
        assert recipe_task(RECIPES / path) is TASK_OF_FOLDER[task]
    unreduced = "finetune" if recipe.model.image_size is None else "smaller_images"
    schedule = recipe.schedule
    name = unreduced if schedule is None else (schedule.at("layers") or schedule.at("inputs")).method
    name += "_tower" if schedule is not None and schedule.at("tower") else ""
    name = "elastic" if recipe.training.elastic else name
    assert ("scratch" if task == "own_data" else name) == path.stem
    assert recipe.stage("teacher").output_dir != recipe.stage("student").output_dir
    if recipe.model.config is not None:
        config = FAMILIES[backbone].config_class(**recipe.model.config, reduction=recipe.reduction)
        assert config.reduction == (None if schedule is None else schedule.to_dict())


@pytest.mark.parametrize("path", [path for path in RECIPE_FILES if path.parts[1] in PAPER_TASKS], ids=str)
def test_recipes_of_the_paper_reduce_as_its_table_6_says(path):
    backbone, task, _ = path.parts
    recipe = parse_recipe(TASK_OF_FOLDER[task], Path("default.yaml"), [str(RECIPES / path)])
    if path.stem == "pumer":
        assert parse_reduction(recipe.reduction) == parse_reduction(preset(backbone, task))
    assert recipe.data.max_text_length == (32 if task == "vqav2" else 40)
    assert recipe.data.rand_augment


OF_A_WORKER = "Caught DataError in DataLoader worker process 0.\nTraceback ...\npumer_hf.images.DataError: "


@pytest.mark.parametrize("before", ["", OF_A_WORKER], ids=["here", "in a worker"])
def test_an_example_that_cannot_be_used_ends_the_work_with_a_line(before):
    with pytest.raises(SystemExit) as end, exit_on_user_error((DataError,)):
        raise DataError(f"{before}a.jsonl, line 5: cannot read the image")
    assert str(end.value.code).endswith("error: a.jsonl, line 5: cannot read the image")
    with pytest.raises(ValueError, match="a mistake of ours"), exit_on_user_error((DataError,)):
        raise ValueError("a mistake of ours")
