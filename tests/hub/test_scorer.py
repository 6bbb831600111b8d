"""Scorers on the Hub: what is pushed, the card, and loading them from there."""

import json
import re

import pytest
import torch
from huggingface_hub import constants
from tiny_models import FAMILIES
from tiny_tasks import save_tiny

from pumer_hf import push_folder
from pumer_hf.cli import main
from pumer_hf.hub.push import files_to_push
from pumer_hf.hub.scorer import scorer_card
from pumer_hf.models.loading import load_checkpoint
from pumer_hf.models.scorers import SCORER_CONFIG, SCORER_WEIGHTS, save_scorer
from pumer_hf.release import install_commands
from pumer_hf.results import BudgetRow, Command, Environment, ScorerReport
from pumer_hf.training.scorer import add_scorer
from pumer_hf.wheel import make_wheel

# huggingface_hub's own way of calling its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "user/tiny-lookahead"
LOOKAHEAD = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25, "form": "bag", "rank": 8, "target_layer": 1}
MADE = {"README.md", make_wheel()[0]}
REPORT = ScorerReport(
    layers={"1": 0.9},
    target_layer=1,
    rows=(
        BudgetRow("1/2", 18, {"lookahead": 0.995, "diverse": 0.9}, 1.5),
        BudgetRow("1/9", 4, {"lookahead": 0.75, "diverse": 0.8, "target": 0.7}, 2.25),
    ),
    examples=500,
    batch_size=8,
    environment=Environment(command=Command("pumer-hf", ("train-scorer", "/secret/teacher"))),
)


@pytest.fixture
def base(tmp_path):
    return save_tiny(tmp_path / "base", "vilt", reduction=None)


@pytest.fixture
def folder(base, tmp_path):
    """The folder of a scorer, with what training leaves in it."""
    model, _ = load_checkpoint(base)
    add_scorer(model, LOOKAHEAD)
    save_scorer(model, tmp_path / "scorer", trained_on=f"3 images of {tmp_path}/pictures", steps=2000)
    REPORT.save(tmp_path / "scorer" / "results.json")
    (tmp_path / "scorer" / "checkpoint-8").mkdir()
    (tmp_path / "scorer" / "training_args.bin").write_bytes(b"pickle")
    return tmp_path / "scorer"


def with_base(folder, base):
    record = json.loads((folder / SCORER_CONFIG).read_text())
    (folder / SCORER_CONFIG).write_text(json.dumps({**record, "base": base}))


def test_it_is_pushed_and_loaded_from_the_hub(hub, folder, base, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert main(["push", str(folder), NAME]) == 0
    assert f"/{NAME}/commit/" in capsys.readouterr().out
    files = hub.files(NAME)
    assert set(files) == {".gitattributes", SCORER_CONFIG, SCORER_WEIGHTS, "results.json", *MADE}
    assert str(tmp_path) not in b"".join(files[name] for name in (SCORER_CONFIG, "README.md")).decode()
    assert b"/secret" not in files["results.json"]
    local = {**LOOKAHEAD, "weights": str(folder)}
    inputs = FAMILIES["vilt"].inputs()
    expected = load_checkpoint(base, local)[0](**inputs)
    found = load_checkpoint(base, {**local, "weights": NAME})[0](**inputs)
    assert torch.equal(found.logits, expected.logits)
    with pytest.raises(ValueError, match="reduction.weights='user/other': there is no scorer there"):
        load_checkpoint(base, {**local, "weights": "user/other"})


def test_the_card_has_the_table_and_code_that_works(hub, folder, base, monkeypatch):
    with_base(folder, "someone/vilt")
    card = files_to_push(folder, NAME).published["README.md"].decode()
    assert "\nbase_model: someone/vilt\n" in card
    assert "\nbase_model_relation: adapter\n" in card
    assert "| 1/9 (4) | 75.0 % | 80.0 % | 70.0 % | 2.25x |" in card
    assert "lookahead keeps fewer answers than diverse (75.0 % and 80.0 %)" in card
    assert all(command in card for command in install_commands(NAME))
    code = re.search("```python\n(.*?)```", card, re.DOTALL)[1]
    assert code.count("\n") <= 6
    monkeypatch.chdir(folder.parent)
    values = {}
    exec(code.replace("someone/vilt", base).replace(NAME, str(folder)), values)
    assert values["model"].config.reduction["form"] == "bag"
    assert values["model"].config.reduction["keep_ratio"] == 0.25


def test_a_card_without_results_and_of_a_base_in_a_folder(folder, capsys):
    (folder / "results.json").unlink()
    assert main(["card", str(folder)]) == 0
    assert "README.md" in capsys.readouterr().out
    card = (folder / "README.md").read_text()
    assert card == scorer_card(folder)
    assert "Answers kept" not in card
    assert "base_model" not in card
    assert str(folder.parent) not in card
    pushed = files_to_push(folder, NAME).published["README.md"]
    assert NAME in pushed.decode()  # made anew, because nobody has edited it


def test_an_edited_card_is_pushed_as_it_is_unless_it_misleads(folder):
    (folder / "README.md").write_text("Mine.\n")
    assert files_to_push(folder, NAME).published["README.md"] == folder / "README.md"
    (folder / "README.md").write_text("Run `pip install -e .`\n")
    with pytest.raises(ValueError, match="does not install"):
        files_to_push(folder, NAME)
    (folder / "README.md").write_text("Trained by /secret/teacher\n")
    with pytest.raises(ValueError, match="names /secret/teacher"):
        files_to_push(folder, NAME)


def test_a_push_leaves_a_model_in_the_repository_alone(hub, folder):
    push_folder(folder, NAME)
    hub.repos[NAME].commit("main", {**hub.files(NAME), "model.safetensors": b"x", "pumer_hf-0.whl": b"old"}, "by hand")
    push_folder(folder, NAME)
    assert "model.safetensors" in hub.files(NAME)
    assert "pumer_hf-0.whl" not in hub.files(NAME)


def test_a_scorer_that_is_not_complete_is_not_pushed(folder, capsys):
    assert main(["push", str(folder), NAME, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "left out: checkpoint-8, training_args.bin" in printed
    assert all(name in printed for name in (SCORER_CONFIG, SCORER_WEIGHTS, "results.json", *MADE))
    content = (folder / SCORER_WEIGHTS).read_bytes()
    (folder / SCORER_WEIGHTS).write_bytes(content[:100])
    assert main(["push", str(folder), NAME, "--dry-run"]) == 2
    assert "cut short" in capsys.readouterr().err
    (folder / SCORER_WEIGHTS).unlink()
    assert main(["push", str(folder), NAME, "--dry-run"]) == 2
    assert f"error: {folder}: there is no scorer there" in capsys.readouterr().err
