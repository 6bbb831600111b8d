import json
from pathlib import Path

import pytest
from tiny import vilt_fields, words_of

from pumer_hf.data.snli_ve import SNLI_VE
from pumer_hf.recipes import pretraining
from pumer_hf.recipes.parser import parse_recipe

ROOT = Path(__file__).parents[2]
TINY = vilt_fields(num_hidden_layers=2, image_size=40, max_position_embeddings=9)


@pytest.fixture
def stages(monkeypatch):
    calls = []
    monkeypatch.setattr(pretraining, "train_stage", lambda args, model, **rest: calls.append((args, model, rest)))
    return calls


@pytest.fixture
def recipe(tmp_path):
    def make(**flags):
        values = {
            "output_dir": str(tmp_path / "run"),
            "config": json.dumps(TINY),
            "max_text_length": "9",
            "grid_size": "5",
            "num_digits": "4",
            "train_scenes": "6",
            "eval_scenes": "2",
            "pretraining": '{"max_steps": 7, "learning_rate": 0.5}',
            **flags,
        }
        return parse_recipe(SNLI_VE, ROOT / "recipes/vilt/digit_scenes_snli_ve/pumer.yaml", words_of(values))

    return make


def test_the_stage_is_about_the_scenes_of_the_task(recipe, stages, tmp_path):
    flags = {"push_to_hub": "true", "hub_model_id": "user/name", "label_smoothing_factor": "0.1"}
    block = pretraining.pretrain(recipe(**flags), ["there is a walrus"])
    assert (block.checkpoint, block.config) == (str(tmp_path / "run" / "pretraining"), None)
    ((args, model, rest),) = stages
    assert (args.output_dir, args.max_steps, args.learning_rate) == (block.checkpoint, 7, 0.5)
    assert not args.push_to_hub
    assert args.label_smoothing_factor == 0  # questions have soft targets
    assert model.reduction is None
    assert set(rest["train"]["kind"]) == set(pretraining.QUESTION_KINDS)
    assert len(rest["train"]) == 24
    assert "walrus" in rest["processor"].tokenizer.get_vocab()  # the task's words, though no question has them
    batch = rest["collator"](list(rest["train"].select(range(2))))
    assert batch["input_ids"].shape == (2, 9)
    assert batch["pixel_values"].shape == (2, 3, 40, 40)
    assert (model(**batch).logits.shape[1]) == len(model.config.id2label)


@pytest.mark.parametrize("flags", [{"pretraining": "null"}, {"checkpoint": "user/model"}, {"teacher": "user/model"}])
def test_without_need_there_is_none(flags, recipe, stages):
    made = recipe(**flags)
    assert pretraining.pretrain(made, []) is made.model
    assert not stages
