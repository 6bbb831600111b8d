"""The recipes of decoder models: they load, train teacher and student, go on after an interruption, and report."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from PIL import Image
from tiny_llava import CHAT_TEMPLATE, save_tiny_llava
from tiny_qwen import save_tiny_qwen
from transformers import AutoModelForImageTextToText, AutoProcessor

from pumer_hf.data.scenes.digits import CELL_SIZE
from pumer_hf.data.vqa import VQA
from pumer_hf.hub.card import PuMerCard
from pumer_hf.models.families import DECODERS
from pumer_hf.recipes.adapters import with_adapters
from pumer_hf.recipes.build import build_teacher, load_model
from pumer_hf.recipes.cards import recipe_file_card
from pumer_hf.recipes.decoders import decoder_task
from pumer_hf.recipes.evaluation import evaluate_recipe
from pumer_hf.recipes.generating import Generated, evaluate_answers
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.recipes.recipe import ModelArguments
from pumer_hf.recipes.runner import run_recipe
from pumer_hf.recipes.small_llava import END

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
FILES = sorted(path for path in RECIPES.glob("*/*/*.yaml") if path.relative_to(RECIPES).parts[0] in DECODERS)
SCENES = [path for path in FILES if path.parent.name.startswith("digit_scenes")]
PUBLIC = [path for path in FILES if path not in SCENES]
PLAIN = RECIPES / "llava" / "digit_scenes" / "pumer.yaml"
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TINY_TEXT = {**TINY, "num_hidden_layers": 2}


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture
def run_blocks(tmp_path, monkeypatch, capsys):
    """Runs a recipe, as blocks, with flags; gives the folder of the run and what was printed."""

    def run(blocks, *flags):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(blocks), encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["train_vqa.py", str(recipe), *flags])
        monkeypatch.setattr("pumer_hf.recipes.runner.use_available_cores", lambda world_size: None)  # tests run on one
        run_recipe("vqa")
        return Path(blocks["training"]["output_dir"]), capsys.readouterr().out

    return run


QUICK = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 4,
    "logging_steps": 1,
    "save_steps": 1,
    "save_total_limit": None,
    "warmup_steps": 0,  # so that the first step changes something
    "benchmark_seconds": 0.05,
    "dataloader_num_workers": 0,
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
}


@pytest.fixture
def run(tmp_path, run_blocks):
    """Runs the recipe for plain digit scenes with a tiny model, for a few steps per stage."""

    def run(*flags, steps=2, **changes):
        blocks = read(PLAIN)
        configs = {"vision_config": {**TINY, "image_size": 48, "patch_size": 8}, "text_config": TINY_TEXT}
        blocks["model"] |= {"config": configs}
        blocks["data"] |= {"train_scenes": 8, "eval_scenes": 3}
        teacher = blocks["training"]["teacher_training"] | {"per_device_train_batch_size": 2, "warmup_steps": 0}
        blocks["training"] |= QUICK | {"output_dir": str(tmp_path / "run"), "max_steps": steps}
        blocks["training"] |= {"teacher_training": teacher | {"max_steps": steps}, **changes}
        return run_blocks(blocks, *flags)

    return run


@pytest.mark.parametrize("path", SCENES, ids=lambda path: path.parent.name)
def test_a_recipe_on_digit_scenes_has_a_patch_per_cell_and_a_gentle_student(path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_vqa.py"])
    recipe = parse_recipe(VQA, path, ["--use_cpu", "true"])
    config = recipe.model.config
    side = recipe.model.checkpoint_image_size if config is None else config["vision_config"]["image_size"]
    assert side == recipe.data.grid_size * CELL_SIZE
    assert ("cluttered" in path.parent.name) == (recipe.data.setting == "cluttered")
    teacher = recipe.stage("teacher")
    assert teacher.max_steps > recipe.training.max_steps > 0
    assert teacher.learning_rate > recipe.training.learning_rate
    assert (teacher.questions_per_image, recipe.training.questions_per_image) == (4, 1)


def weights_in(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).state_dict()


def test_a_run_trains_teacher_and_student_and_reports_what_they_generate(run):
    folder, printed = run()
    assert "Written to" in printed and "images with up to 4 questions" in printed
    report = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for role in ("teacher", "student"):
        assert {"accuracy", "exact_match", "ended"} <= report[role].keys()
        assert report[role]["questions"] == 12
        assert {"one place", "many places"} & report[role]["accuracy_by_kind"].keys()
    assert set(report["baselines"]) == {"majority", "question_only"}
    (text, kept), (_, whole) = report["tokens_in"]["student"], report["tokens_in"]["teacher"]
    assert (kept, whole) == (8, 36)
    assert report["tokens_per_layer"]["student"] == [[text, 8]] * TINY_TEXT["num_hidden_layers"]
    assert report["gflops"]["student"] < report["gflops"]["teacher"]
    assert report["throughput"]["batch_size"] == QUICK["per_device_eval_batch_size"]
    model = AutoModelForImageTextToText.from_pretrained(folder / "teacher")
    processor = AutoProcessor.from_pretrained(folder / "teacher")
    assert model.reduction is None
    assert processor.tokenizer.eos_token_id == model.generation_config.eos_token_id
    assert processor.tokenizer.eos_token == END
    student = AutoModelForImageTextToText.from_pretrained(folder / "student")
    assert student.reduction.parts[0].keep_ratio == read(PLAIN)["reduction"]["keep_ratio"]
    assert any(not torch.equal(value, model.state_dict()[name]) for name, value in student.state_dict().items())


def test_each_model_of_a_run_has_a_card_and_the_student_has_a_picture(run):
    folder, _ = run()
    for role in ("teacher", "student"):
        card = PuMerCard.load(folder / role)
        assert (card.backbone, card.role, card.task) == ("llava", role, None)
        assert card.evaluation.main_name == "accuracy"
    with Image.open(folder / "student" / "reduction.png") as picture:
        assert min(picture.size) > 48
    assert "reduction.png" in (folder / "student" / "README.md").read_text(encoding="utf-8")
    assert not (folder / "teacher" / "reduction.png").exists()


def test_a_recipe_without_a_reduction_trains_the_teacher_alone(run):
    folder, _ = run("--method", "none")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["teacher"]


def test_a_student_can_begin_from_a_teacher_that_is_there(run):
    teacher = run("--method", "none")[0] / "teacher"
    folder, _ = run("--teacher", str(teacher), output_dir=str(teacher.parent.parent / "again"))
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["student"]


def test_with_a_teacher_the_checkpoint_of_a_recipe_need_not_be_there(run):
    teacher = run("--method", "none")[0] / "teacher"
    flags = ("--teacher", str(teacher), "--checkpoint", "outputs/nowhere", "--max_steps", "0")
    folder, _ = run(*flags, output_dir=str(teacher.parent.parent / "again"))
    torch.testing.assert_close(weights_in(folder / "student"), weights_in(teacher), rtol=0, atol=0)


def test_a_complete_run_is_evaluated_and_not_trained_again(run):
    folder, first = run(steps=1)
    with pytest.raises(SystemExit, match="holds a run already"):
        run(steps=2)
    before = weights_in(folder / "student")
    _, again = run("--resume", "true", steps=2)
    assert "is complete in" in again
    assert json.loads((folder / "student" / "trainer_state.json").read_text())["global_step"] == 1
    torch.testing.assert_close(weights_in(folder / "student"), before, rtol=0, atol=0)
    scores = [
        [line for line in text.splitlines() if line.startswith(("accuracy", "exact"))] for text in (first, again)
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_an_interrupted_stage_ends_as_one_that_was_not(run, stage):
    folder = run(steps=3)[0]
    whole = weights_in(folder / "student")
    if stage == "teacher":
        shutil.rmtree(folder / "student")
    for path in ("trainer_state.json", "model.safetensors"):
        (folder / stage / path).unlink()
    shutil.rmtree(folder / stage / "checkpoint-3")
    assert (folder / stage / "checkpoint-2").is_dir()
    run("--resume", "true", steps=3)
    state = json.loads((folder / stage / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == [1, 2, 3]
    torch.testing.assert_close(weights_in(folder / "student"), whole, rtol=0, atol=0)


def test_another_reduction_is_refused_on_a_resume(run):
    run(steps=1)
    with pytest.raises(SystemExit, match="reduction.keep_ratio was 0.22 and is 0.5"):
        run("--resume", "true", "--keep_ratio", "0.5", steps=1)


def test_teacher_logits_can_be_computed_once(run):
    folder, _ = run(cache_teacher_logits=True)
    assert list((folder / "cache").iterdir())
    logs = json.loads((folder / "student" / "trainer_state.json").read_text())["log_history"]
    assert all("distillation_loss" in entry for entry in logs if "loss" in entry)


def test_a_larger_image_begins_from_a_checkpoint(tmp_path):
    folder = str(save_tiny_llava(tmp_path / "llava"))
    args = ModelArguments(backbone="llava", checkpoint=folder, checkpoint_image_size=64)
    model, processor = build_teacher(args, [], [], 32)
    assert model.config.image_seq_length == 64
    assert processor.image_processor.size["height"] == 64
    assert torch.equal(model.lm_head.weight, AutoModelForImageTextToText.from_pretrained(folder).lm_head.weight)


WORDS = "what digit is red? colour seven of the in row column there a no yes blue one two"
TINY_CHECKPOINTS = {
    "llava": lambda folder: save_tiny_llava(folder, CHAT_TEMPLATE, [WORDS]),
    "qwen2_5_vl": lambda folder: save_tiny_qwen(folder, [WORDS]),
}


def save_vqa_v2(folder, blocks):
    """Write a few questions and annotations in the official form, and their images, under the paths of a recipe."""
    pictures = folder / "images"
    pictures.mkdir()
    for number, colour in enumerate(("red", "blue")):
        Image.new("RGB", (48, 48), colour).save(pictures / f"COCO_train2014_{number:012d}.jpg")
    questions = [
        {"question_id": number, "image_id": number % 2, "question": "what colour is the"} for number in range(8)
    ]
    answers = [
        {
            "question_id": one["question_id"],
            "image_id": one["image_id"],
            "multiple_choice_answer": ("red", "blue")[one["image_id"]],
            "answers": [{"answer": ("red", "blue")[one["image_id"]]}] * 9 + [{"answer": "seven"}],
        }
        for one in questions
    ]
    for split in ("train_file", "validation_file"):
        paths = [folder / Path(name).name for name in blocks["data"][split]]
        for path, content in zip(paths, ({"questions": questions}, {"annotations": answers}), strict=True):
            path.write_text(json.dumps(content), encoding="utf-8")
        blocks["data"][split] = [str(path) for path in paths]
    blocks["data"]["image_dir"] = str(pictures)


@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: "/".join(path.parts[-3:]))
def test_a_recipe_for_large_models_trains_two_steps_with_a_tiny_one(path, run_blocks, tmp_path):
    pytest.importorskip("peft", reason="adapters need peft: pip install -e '.[lora]'")
    blocks = read(path)
    assert blocks["training"]["gradient_checkpointing"]
    checkpoint = TINY_CHECKPOINTS[blocks["model"]["backbone"]](tmp_path / "checkpoint")
    blocks["model"]["checkpoint"] = str(checkpoint)
    blocks["training"] |= {**QUICK, "output_dir": str(tmp_path / "run"), "gradient_accumulation_steps": 2}
    save_vqa_v2(tmp_path, blocks)
    folder, _ = run_blocks(blocks)
    report = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert {"vqa_accuracy", "exact_match"} <= report["student"].keys()
    assert report["tokens_in"]["student"][1] == report["tokens_in"]["teacher"][1] // 4
    before, teacher, student = (weights_in(where) for where in (checkpoint, folder / "teacher", folder / "student"))
    assert before.keys() == teacher.keys() == student.keys()
    for old, new in ((before, teacher), (teacher, student)):
        changed = {name for name in old if not torch.equal(old[name], new[name])}
        assert changed
        assert all("language_model" in name and name.endswith("_proj.weight") for name in changed)


@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: "/".join(path.parts[-3:]))
def test_the_adapters_of_a_recipe_are_in_the_decoder_alone(path):
    pytest.importorskip("peft", reason="adapters need peft: pip install -e '.[lora]'")
    model = read(path)["model"]
    row = DECODERS[model["backbone"]]
    with torch.device("meta"):
        stock = row.model_class(row.config_class())
    adapted = with_adapters(stock, model["lora"])
    names = [name for name, value in adapted.named_parameters() if value.requires_grad]
    layers = stock.config.get_text_config().num_hidden_layers
    assert len(names) == 2 * 7 * layers  # two matrices for each of seven
    assert all("language_model" in name for name in names)


@pytest.mark.parametrize("name", ["outputs", "own"])
def test_a_decoder_is_evaluated_on_any_split(name, tmp_path, monkeypatch, capsys):
    folder = save_tiny_llava(tmp_path / "llava")
    monkeypatch.setattr("pumer_hf.recipes.evaluation.use_available_cores", lambda world_size: None)
    flags = ["--eval_scenes", "2", "--use_cpu", "true", "--disable_tqdm", "true"]
    if name == "own":
        Image.new("RGB", (48, 48), "red").save(tmp_path / "a.png")
        row = {"image": "a.png", "question": "what colour?", "answer": "red"}
        (tmp_path / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
        flags = ["--validation_file", str(tmp_path / "rows.jsonl"), *flags[2:]]
    output = tmp_path / "results.json"
    evaluate_recipe("", ["vqa", "--model", str(folder), "--split", "validation", "-o", str(output), *flags])
    report = json.loads(output.read_text(encoding="utf-8"))
    assert {"accuracy", "exact_match", "ended"} <= report.keys()
    assert report["questions"] == (1 if name == "own" else 8)
    assert "exact match" in capsys.readouterr().out.lower()


def test_own_data_need_no_recipe_file(run_blocks, tmp_path, monkeypatch, capsys):
    pytest.importorskip("peft", reason="adapters need peft: pip install -e '.[lora]'")
    folder = save_tiny_llava(tmp_path / "llava", CHAT_TEMPLATE)
    Image.new("RGB", (48, 48), "red").save(tmp_path / "a.png")
    row = {"image": "a.png", "question": "what colour?", "answer": "red"}
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps(row)] * 4), encoding="utf-8")
    files = ["--train_file", str(tmp_path / "rows.jsonl"), "--validation_file", str(tmp_path / "rows.jsonl")]
    flags = ["--max_steps", "1", "--use_cpu", "true", "--disable_tqdm", "true", "--benchmark_seconds", "0.05"]
    flags += ["--output_dir", str(tmp_path / "own")]
    monkeypatch.setattr(sys, "argv", ["train_vqa.py"])
    monkeypatch.setattr("pumer_hf.recipes.runner.use_available_cores", lambda world_size: None)
    run_recipe("vqa", ["--checkpoint", str(folder), *files, *flags])
    assert "recipes/llava/vqav2/pumer.yaml" in capsys.readouterr().out
    assert (tmp_path / "own" / "student" / "config.json").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_text_length", "5"], "data.max_text_length=5: is for encoder models"),
        (["--pretraining", '{"max_steps": 1}'], "training.pretraining: is for encoder models"),
        (["--image_size", "24"], "model.image_size=24: is not for decoder models"),
        (["--checkpoint_image_size", "64"], "model.checkpoint_image_size=64: is for a checkpoint"),
        (["--config", '{"hidden_size": 16}'], "model.config=.*vision_config and text_config"),
        (["--backbone", "qwen2_vl"], "model.config=.*only a small llava can start from scratch"),
        (["--questions_per_image", "0"], "training.questions_per_image=0: must be at least 1"),
        (["--questions_per_image", "4"], "training.questions_per_image=4: a student reads one question"),
        (["--lora", '{"rnk": 4}'], "unknown key 'rnk' in the block 'model.lora'"),
        (["--backbone", "vilt"], "training.questions_per_image=4: is for decoder models"),
        (["--keep_ratio", "1.5"], "keep_ratio=1.5"),
    ],
)
def test_what_is_wrong_is_named(run, flags, message):
    with pytest.raises(SystemExit, match=f"train_vqa.py: error: .*{message}"):
        run(*flags)


def test_encoders_refuse_what_is_for_decoders(run_blocks, tmp_path):
    blocks = read(RECIPES / "vilt" / "digit_scenes" / "pumer.yaml")
    blocks["training"] |= {"output_dir": str(tmp_path / "run"), "use_cpu": True}
    with pytest.raises(SystemExit, match="model.lora=.*is not for encoder models"):
        run_blocks(blocks, "--lora", '{"r": 4}')
    with pytest.raises(SystemExit, match="training.questions_per_image=2: is for decoder models"):
        run_blocks(blocks, "--questions_per_image", "2")


def test_a_decoder_does_only_the_task_vqa():
    from pumer_hf.data.nlvr2 import NLVR2

    with pytest.raises(ValueError, match="model.backbone='llava': .*vqa.* not for nlvr2"):
        decoder_task(NLVR2, "llava")


def test_a_card_says_what_a_recipe_file_defines():
    card = recipe_file_card(RECIPES / "llava" / "vqav2" / "pumer.yaml")
    assert (card.backbone, card.task, card.base_model) == ("llava", None, "llava-hf/llava-1.5-7b-hf")
    assert "zero2_4xa100" in card.launch
    assert "This model has not been trained" in card.render()


def test_generated_answers_score_as_annotators_agree():
    rows = Dataset.from_dict(
        {"answers": [["red"], ["3", "4"], ["no"]], "kind": ["a", "b", "b"], "groups": [["x"], ["x"], ["y"]]}
    )
    result = evaluate_answers([Generated(" Red", True), Generated("4", True), Generated("yes", False)], rows)
    assert result["accuracy"] == 50
    assert result["accuracy_by_kind"] == {"a": 100, "b": 25, "x": 75, "y": 0}
    assert result["exact_match"] == pytest.approx(100 / 3)  # most annotators of the second question said 3 first
    assert result["ended"] == pytest.approx(200 / 3)
    assert "vqa_accuracy" not in result


def test_an_answer_that_did_not_end_is_no_exact_match():
    rows = Dataset.from_dict({"answers": [["red"] * 10]})
    ended, cut = (evaluate_answers([Generated("red", value)], rows) for value in (True, False))
    assert (ended["exact_match"], cut["exact_match"]) == (100, 0)
    assert ended["vqa_accuracy"] == cut["accuracy"] == 100


def test_a_decoder_loads_with_the_reduction_that_is_asked_for(tmp_path):
    folder = str(save_tiny_llava(tmp_path / "llava"))
    assert load_model(folder, None).reduction is None
    assert load_model(folder, {"method": "pumer", "site": "inputs", "keep_ratio": 0.5}).reduction is not None
