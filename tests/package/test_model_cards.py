"""`model_cards/` is what `pumer-hf card model_cards --recipe recipes --results benchmarks/results` writes."""

import json
import re
import shlex
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id

from pumer_hf.hub.card import PuMerCard, published_report
from pumer_hf.models.families import DECODERS, FAMILIES
from pumer_hf.recipes.cards import recipe_file_card
from pumer_hf.release import install_commands
from pumer_hf.results import Report

ROOT = Path(__file__).parents[2]
ALL_RECIPES = {f"{path.parent.name}_{path.parent.parent.name}": path for path in ROOT.glob("recipes/*/*/pumer.yaml")}
RECIPES = {
    name: path
    for name, path in ALL_RECIPES.items()
    if path.parent.parent.name in {**FAMILIES, **DECODERS}  # an older transformers has no decoders
}
CARDS = {
    path.parent.name: path.parent
    for path in sorted(ROOT.glob("model_cards/*/README.md"))
    if path.parent.name in RECIPES or path.parent.name not in ALL_RECIPES
}
MEASURED = {path.stem: path for path in ROOT.glob("benchmarks/results/*.json")}


def test_every_recipe_has_a_card():
    assert len(RECIPES) >= 11
    assert set(CARDS) == set(RECIPES)


@pytest.mark.parametrize("name", CARDS)
def test_a_card_renders_from_its_results(name):
    card = PuMerCard.load(CARDS[name])
    assert card.files(CARDS[name])["README.md"] == (CARDS[name] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CARDS)
def test_a_card_that_was_not_pushed_names_no_repository(name):
    """There is no wheel beside it, and nothing to download."""
    text = (CARDS[name] / "README.md").read_text(encoding="utf-8")
    assert "hf download" not in text
    assert "beside this model" not in text
    assert all(f"\n{command}\n" in text for command in install_commands())


@pytest.mark.parametrize("name", CARDS)
def test_a_card_has_what_the_hub_asks_for(name):
    card = ModelCard.load(CARDS[name] / "README.md")
    assert card.data.license == ("apache-2.0" if name.startswith("digit_scenes") else None)  # what is all our own
    assert all(validate_repo_id(result.dataset_type) is None for result in card.data.eval_results or ())
    (command,) = re.findall(r"^- Command: `(.*)`$", card.text, re.MULTILINE)
    words = shlex.split(command)
    assert words[:2] == ["accelerate", "launch"]
    named = [word for word in words if word.startswith("recipes/")]
    assert any(re.fullmatch(r"recipes/train_\w+\.py", word) for word in named)
    assert all((ROOT / word).is_file() for word in named)


@pytest.mark.parametrize("name", CARDS)
def test_a_card_says_what_recipe_and_results_say(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    facts = json.loads((CARDS[name] / "results.json").read_text(encoding="utf-8"))
    card = recipe_file_card(RECIPES[name].relative_to(ROOT), MEASURED.get(name))
    assert facts == card.facts, "run `pumer-hf card model_cards --recipe recipes --results benchmarks/results`"
    untrained = "**This model has not been trained.**" in card.render()
    assert untrained == (name not in MEASURED)
    if not untrained:
        measured = Report.load(MEASURED[name])
        assert Report.from_dict(facts["report"]) == published_report(measured)
        figures = json.loads(MEASURED[name].read_text(encoding="utf-8"))
        for part in ("teacher", "student", "throughput", "tokens_per_layer", "versions", "machine"):
            assert facts["report"][part] == figures[part]
        assert facts["report"]["gflops"] == pytest.approx(figures["gflops"], rel=1e-15)  # the ratio is made anew
