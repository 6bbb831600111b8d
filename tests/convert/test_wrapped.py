"""Weights under the names of a wrapper, and files of labels with gaps."""

import json

import pytest
import tiny_checkpoints as tiny
import torch
from tiny import vilt_fields
from transformers import ViltConfig, ViltForQuestionAnswering

from pumer_hf import convert_checkpoint
from pumer_hf.cli import main
from pumer_hf.convert.layouts import without_wrapper
from pumer_hf.models.loading import load_checkpoint_model

ANSWERS = [f"answer {index}" for index in range(tiny.LABELS)]
MAKERS = {
    "original_vilt": lambda: tiny.original_vilt("vqa_classifier"),
    "original_meter": lambda: tiny.original_meter("vqa_classifier"),
    "released_vilt": lambda: tiny.released("vilt", "vqa_classifier"),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "net."])
def test_wrapped_weights_are_unwrapped(wrapper, kind):
    weights = MAKERS[kind]()
    found = without_wrapper({f"{wrapper}{name}": value for name, value in weights.items()})
    assert found.keys() == weights.keys()
    assert all(value is weights[name] for name, value in found.items())


def test_a_checkpoint_of_a_wrapped_model(tmp_path):
    weights = MAKERS["original_vilt"]()
    source = tiny.save_lightning(tmp_path / "a.ckpt", {f"module.{name}": value for name, value in weights.items()})
    model = load_checkpoint_model(str(convert_checkpoint(source, tmp_path / "out")))
    assert torch.equal(model.classifier[3].weight, weights["vqa_classifier.3.weight"])
    assert torch.equal(model.vilt.embeddings.cls_token, weights["transformer.cls_token"])


@pytest.mark.parametrize("container", ["model", "module", "model_state_dict"])
def test_weights_beside_the_state_of_a_trainer(container, tmp_path):
    weights = MAKERS["original_vilt"]()
    heads = {"num_attention_heads": 2}
    torch.save({container: weights, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "a.pt")
    model = load_checkpoint_model(str(convert_checkpoint(tmp_path / "a.pt", tmp_path / "out", config=heads)))
    assert torch.equal(model.classifier[3].weight, weights["vqa_classifier.3.weight"])


def test_a_wrapper_of_some_weights_is_named(tmp_path):
    weights = {f"student.{name}": value for name, value in MAKERS["original_vilt"]().items()}
    source = tiny.save_lightning(tmp_path / "a.ckpt", {**weights, "ema.decay": torch.ones(1)})
    with pytest.raises(ValueError, match=r"'student.'.* ema.decay"):
        convert_checkpoint(source, tmp_path / "out")


@pytest.mark.parametrize("missing", [2, tiny.LABELS - 1])
def test_vilts_own_file_of_answers_and_a_gap_in_it(missing, tmp_path, capsys):
    """`vqa_dict.json`, which is published with ViLT, lacks an index."""
    source = tiny.save_lightning(tmp_path / "vilt_vqa.ckpt", MAKERS["original_vilt"]())
    answers = {str(index): answer for index, answer in enumerate(ANSWERS)}
    (tmp_path / "vqa_dict.json").write_text(json.dumps(answers))
    model = load_checkpoint_model(str(convert_checkpoint(source, tmp_path / "whole")))
    assert list(model.config.id2label.values()) == ANSWERS

    del answers[str(missing)]
    (tmp_path / "vqa_dict.json").write_text(json.dumps(answers))
    assert main(["convert", str(source), str(tmp_path / "out"), "--no-processor"]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'vqa_dict.json'}" in error
    assert f"index {missing}: " in error or f"{missing} labels" in error
    assert "--fill-labels" in error
    assert main(["convert", str(source), str(tmp_path / "out"), "--no-processor", "--fill-labels"]) == 0
    labels = load_checkpoint_model(str(tmp_path / "out")).config.id2label
    assert list(labels.values()) == [*ANSWERS[:missing], f"LABEL_{missing}", *ANSWERS[missing + 1 :]]


def test_labels_of_the_user_win_over_a_file_with_a_gap(tmp_path):
    source = tiny.save_lightning(tmp_path / "a.ckpt", MAKERS["original_vilt"]())
    (tmp_path / "vqa_dict.json").write_text('{"5": "five"}')
    model = load_checkpoint_model(str(convert_checkpoint(source, tmp_path / "out", config={"id2label": ANSWERS})))
    assert list(model.config.id2label.values()) == ANSWERS
    given = {"id2label": {"5": "five"}}
    model = load_checkpoint_model(str(convert_checkpoint(source, tmp_path / "b", config=given, fill_labels=True)))
    assert list(model.config.id2label.values()) == [f"LABEL_{i}" if i != 5 else "five" for i in range(tiny.LABELS)]


@pytest.mark.parametrize("fill", [False, True])
def test_a_gap_in_the_labels_of_a_stock_config(fill, tmp_path):
    labels = {0: "no", 1: "yes", 2: "two"}
    config = ViltConfig(**vilt_fields(num_hidden_layers=1, image_size=16), vocab_size=30, id2label=labels)
    ViltForQuestionAnswering(config).save_pretrained(tmp_path / "in")
    path = tmp_path / "in" / "config.json"
    fields = json.loads(path.read_text())
    del fields["id2label"]["1"]
    path.write_text(json.dumps(fields))
    if fill:
        model = load_checkpoint_model(str(convert_checkpoint(tmp_path / "in", tmp_path / "out", fill_labels=True)))
        assert model.config.id2label == {0: "no", 1: "LABEL_1", 2: "two"}
    else:
        with pytest.raises(ValueError, match="id2label of config.json: .*index 1: .*fill_labels"):
            convert_checkpoint(tmp_path / "in", tmp_path / "out")
