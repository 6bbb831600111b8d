"""A scorer reaches the model by every way in which a schedule is given."""

import json

import pytest
import torch
from tiny import assert_same_answers, noise
from tiny_tasks import save_tiny
from transformers import pipeline

import pumer_hf  # noqa: F401  registers the pipeline
from pumer_hf.cli import main
from pumer_hf.models.loading import load_checkpoint
from pumer_hf.models.scorers import save_scorer
from pumer_hf.training.scorer import add_scorer

LOOKAHEAD = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25}


@pytest.fixture(scope="module", params=["vilt", "meter"])
def base_and_scorer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    base = save_tiny(folder / "base", request.param, reduction=None)
    model, _ = load_checkpoint(base)
    add_scorer(model, {**LOOKAHEAD, "form": "bag", "rank": 8})
    save_scorer(model, folder / "scorer", trained_on="noise", steps=1)
    return base, {**LOOKAHEAD, "weights": str(folder / "scorer")}, model.base_model.inputs.reducer.state_dict()


def test_the_pipeline(base_and_scorer, tmp_path):
    base, schedule, weights = base_and_scorer
    answers = pipeline("pumer-vqa", model=base, model_kwargs={"reduction": schedule})
    for name, value in answers.model.base_model.inputs.reducer.state_dict().items():
        assert torch.equal(value.cpu(), weights[name])
    image = noise()
    expected = answers(image=image, question="what digit is red?")
    answers.save_pretrained(tmp_path / "saved")
    again = pipeline("pumer-vqa", model=str(tmp_path / "saved"))
    assert_same_answers(again(image=image, question="what digit is red?"), expected)
    assert again.model.config.reduction == answers.model.config.reduction


def test_the_flag_of_the_commands(base_and_scorer, tmp_path, monkeypatch, capsys):
    base, schedule, _ = base_and_scorer
    monkeypatch.chdir(tmp_path)
    noise().save("scene.png")
    words = ["explain", base, "scene.png", "what digit is red?", "--reduction"]
    assert main([*words, json.dumps(schedule)]) == 0
    capsys.readouterr()
    for wrong, message in (
        (LOOKAHEAD, f"pumer-hf train-scorer {base}"),
        ({**schedule, "weights": "x/y"}, "no scorer"),
    ):
        assert main([*words, json.dumps(wrong)]) == 2
        assert message in capsys.readouterr().err
