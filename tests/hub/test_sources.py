"""A folder is not an id on the Hub, and no path of a machine is published."""

import json
import shlex
from pathlib import Path

import pytest
import tiny_models
from huggingface_hub import ModelCard
from tiny import WIDTH
from transformers import CLIPVisionConfig, CLIPVisionModel, RobertaConfig, RobertaModel

from pumer_hf import DistillationTrainer, DistillationTrainingArguments, PuMerMeterModel
from pumer_hf.data.vqa import VQA
from pumer_hf.hub.card import PuMerCard
from pumer_hf.hub.files import published_files
from pumer_hf.hub.sources import is_hub_id, may_be_hub_id, public_name, public_words
from pumer_hf.models.encoders.meter import PuMerMeterProcessor
from pumer_hf.models.encoders.meter.processing import build_roberta_tokenizer
from pumer_hf.recipes.cards import recipe_card
from pumer_hf.recipes.parser import parse_recipe
from pumer_hf.results import PERCENT, Command, Environment, Evaluation, Report

ROOT = Path(__file__).parents[2]
FOLDERS = (
    "outputs/teacher",
    "checkpoints/meter",
    "./a/b",
    "/a/b",
    "a/b/c",
    "../a",
    "~/a/b",
    "a b/c",
    r"C:\a\b",
    r"a\b",
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the folders `my/data` and `my/teacher`, whose names look like ids."""
    for name in ("my/data", "my/teacher"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_a_hub_id(here):
    assert is_hub_id("dandelin/vilt-b32-mlm")
    assert not any(map(is_hub_id, (None, "", "a", *FOLDERS, "user/-x-", "my/data", "my/teacher")))
    assert may_be_hub_id("squad")
    assert not any(map(may_be_hub_id, (*FOLDERS, "my", "my/data", "data")))


def test_of_a_path_only_the_last_part_is_told(here):
    assert [public_name(folder) for folder in FOLDERS] == ["teacher", "meter", "b", "b", "c", "a", "b", "c", "b", "b"]
    assert public_name("my/data") == public_name(str(here / "my" / "data")) == "data"
    for name in ("user/data", "recipes/vilt/vqav2/pumer.yaml", "plain"):
        assert public_name(name) == public_name(public_name(name)) == name


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("train_vqa.py", "train_vqa.py"),
        ("train_vqa.py /home/me/r.yaml --layers 0 1", "train_vqa.py r.yaml --layers 0 1"),
        ("train_vqa.py recipes/vilt/a/b.yaml --resume", "train_vqa.py recipes/vilt/a/b.yaml --resume"),
        ("x.py --dataset my/data --teacher user/t", "x.py --dataset data --teacher user/t"),
        ("x.py --dataset=my/data --teacher=/home/me/t", "x.py --dataset=data --teacher=t"),
        ("x.py --train_file /a/q.json ../b/a.json --resume", "x.py --train_file q.json a.json --resume"),
        (
            """x.py --teacher_training '{"max_steps": 2, "output_dir": "/home/me/x"}' --seed 1""",
            """x.py --teacher_training '{"max_steps": 2, "output_dir": "x"}' --seed 1""",
        ),
        ("x.py --output_dir '/home/me/my run' '--teacher=/a b/c d'", "x.py --output_dir 'my run' '--teacher=c d'"),
        ("x.py --image https://host/a/b.png file:///home/me/c.png", "x.py --image https://host/a/b.png c.png"),
        ("x.py --hub_token hf_1 --push_to_hub_token=hf_2", "x.py --hub_token ... --push_to_hub_token=..."),
    ],
)
def test_a_command_names_files_and_folders_by_their_last_part(command, expected, here):
    assert public_words(shlex.split(command)) == shlex.split(expected)


def report_of(program, *arguments):
    """What a run with such a command leaves."""
    evaluations = {"student": Evaluation({"accuracy": PERCENT.of(50.0)})}
    return Report(evaluations, environment=Environment(command=Command(program, arguments)))


RECIPE = ROOT / "recipes" / "vilt" / "digit_scenes" / "pumer.yaml"


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
def test_the_card_of_a_recipe_on_folders(absolute, here):
    data, teacher = (str(here / name) if absolute else name for name in ("my/data", "my/teacher"))
    flags = ["--dataset", data, "--teacher", teacher, "--output_dir", str(here / "out")]
    report = report_of("train_vqa.py", str(here / "r.yaml"), *flags)
    recipe = parse_recipe(VQA, RECIPE, flags)
    card = recipe_card(VQA, recipe, "student", report, name="mine", recipe_file=str(here / "r.yaml"))
    card.save(here / "card")
    text, facts = ((here / "card" / name).read_text() for name in ("README.md", "results.json"))
    for written in (text, facts):
        assert "my/data" not in written
        assert "my/teacher" not in written
        assert str(here) not in written
    data = ModelCard(text).data
    assert (data.base_model, data.datasets) == (None, None)
    assert data.eval_results[0].dataset_type == "data"
    for line in (
        "- Base model: `teacher`",
        "- Teacher: `teacher`",
        "- Data: data",
        "- Recipe: `r.yaml`",
        "- Command: `accelerate launch recipes/train_vqa.py r.yaml --dataset data --teacher teacher --output_dir out`",
    ):
        assert line in text.splitlines()
    assert PuMerCard.load(here / "card").render() == text


def test_the_card_of_a_recipe_on_ids(here):
    flags = ["--dataset", "user/data", "--teacher", "user/teacher"]
    recipe = parse_recipe(VQA, RECIPE, flags)
    report = report_of("train_vqa.py", *flags)
    text = recipe_card(VQA, recipe, "student", report, name="mine").render()
    data = ModelCard(text).data
    assert (data.base_model, data.datasets) == ("user/teacher", ["user/data"])
    assert "- Data: [user/data](https://huggingface.co/user/data)" in text
    assert "- Command: `accelerate launch recipes/train_vqa.py --dataset user/data --teacher user/teacher`" in text


def test_other_facts_name_no_path_either(here):
    card = PuMerCard(
        "mine", "vilt", "vqa", training={"optim": str(here / "a")}, report=Report(other={"notes": [str(here / "b")]})
    )
    card.dataset = {"name": "mine", "id": "my/data", "path": str(here / "c")}
    assert card.facts["training"] == {"optim": "a"}
    assert card.facts["report"] == {"notes": ["b"]}
    assert card.facts["dataset"] == {"name": "mine", "path": "c"}
    assert card.dataset["id"] == "my/data"  # only what is published is without it


def test_the_card_of_a_trainer_whose_model_comes_from_a_folder(here):
    tiny_models.FAMILIES["vilt"].model(reduction=tiny_models.schedule("pumer", "small")).save_pretrained("my/model")
    model = tiny_models.FAMILIES["vilt"].model_class.from_pretrained("my/model")
    args = DistillationTrainingArguments(str(here / "run"), use_cpu=True, report_to=[])
    trainer = DistillationTrainer(model, args=args)
    trainer.create_model_card(dataset={"name": "my/data", "id": "my/data"}, teacher=str(here / "my" / "teacher"))
    text, facts = ((here / "run" / name).read_text() for name in ("README.md", "results.json"))
    assert json.loads(facts)["base_model"] == "model"
    assert json.loads(facts)["dataset"] == {"name": "data"}
    assert "- Teacher: `teacher`" in text
    assert "my/" not in text + facts


@pytest.fixture
def towers(here):
    small = {**WIDTH, "num_hidden_layers": 2}
    CLIPVisionModel(CLIPVisionConfig(**small, image_size=16, patch_size=8)).save_pretrained("my/clip")
    RobertaModel(RobertaConfig(**small, vocab_size=300, max_position_embeddings=14)).save_pretrained("my/roberta")
    return str(here / "my" / "clip"), str(here / "my" / "roberta")


def test_a_config_does_not_say_from_which_folders_its_towers_came(towers, here):
    model = PuMerMeterModel.from_towers(*towers, image_size=16, num_hidden_layers=1, **WIDTH)
    model.save_pretrained("saved")
    assert str(here) not in Path("saved/config.json").read_text()
    assert json.loads(Path("saved/config.json").read_text())["vision_config"]["hidden_size"] == 16


def test_config_files_that_were_saved_with_paths_are_pushed_without(here):
    tiny_models.FAMILIES["meter"].model().save_pretrained("saved")
    PuMerMeterProcessor.from_tokenizer(build_roberta_tokenizer(["a b"], 9), 16).save_pretrained("saved")
    for name, keys in (("config.json", ["text_config"]), ("tokenizer_config.json", [])):
        content = json.loads(Path("saved", name).read_text())
        part = content
        for key in keys:
            part = part[key]
        part |= {"_name_or_path": str(here), "name_or_path": str(here), "tokenizer_file": str(here)}
        Path("saved", name).write_text(json.dumps(content))
    published = published_files("saved", "user/x").published
    for name, content in published.items():
        if name.endswith((".json", ".md", ".py")):
            assert str(here).encode() not in (content if isinstance(content, bytes) else content.read_bytes()), name
    text = json.loads(Path("saved/config.json").read_text())["text_config"]
    assert json.loads(published["config.json"])["text_config"] == {
        name: value for name, value in text.items() if value != str(here)
    }
