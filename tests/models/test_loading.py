"""Loading a checkpoint: files that are broken or do not fit, and the schedule that an unreduced model is advised."""

import json
import shutil

import pytest
import tiny_models
import torch
from tiny import noise
from tiny_tasks import save_tiny
from transformers.utils import logging

from pumer_hf import preset
from pumer_hf.cli import main
from pumer_hf.models.loading import fitting_schedule, load_checkpoint, unreduced_error

HEADS = {
    "base_class": "vqav2",
    "model_class": "vqav2",
    "images_class": "nlvr2",
    "entailment_class": "snli_ve",
    "retrieval_class": "retrieval",
}
FULL_DEPTH = {"vilt": 12, "meter": 6}
CONFIGS = ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module", params=["vilt", "meter"])
def saved(request, tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("saved") / "model", request.param)


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def draw(path):
    noise().save(path)


def change_config(folder, change):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, **change}))


def cut(path, part=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999])
def test_weights_that_are_cut_short(part, folder):
    cut(folder / "model.safetensors", part)
    size = (folder / "model.safetensors").stat().st_size
    with pytest.raises(ValueError, match=rf"model.safetensors .*cut short \({size:,} bytes\): .*download"):
        load_checkpoint(str(folder))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_is_cut_short(name, folder):
    cut(folder / name)
    with pytest.raises(ValueError, match=rf"model/{name}: .*not valid JSON"):
        load_checkpoint(str(folder))
    (folder / name).write_text("[]")
    with pytest.raises(ValueError, match=rf"model/{name}: .*object, not a list"):
        load_checkpoint(str(folder))


@pytest.mark.parametrize("saved", ["vilt"], indirect=True)
@pytest.mark.parametrize(
    "command",
    [
        ["explain", "model", "scene.png", "what?"],
        ["bench", "model"],
        ["export", "model", "model.onnx"],
        ["measure", "model"],
        ["demo", "model"],
        ["demo", "model", "--export-space", "space"],
        ["push", "model", "user/name", "--dry-run"],
        ["push", "model", "user/name"],
        ["convert", "model", "converted"],
    ],
    ids=lambda words: " ".join(words[:1] + words[3:]),
)
def test_every_command_names_the_weights_that_are_cut_short(command, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    cut(folder / "model.safetensors")
    draw(folder.parent / "scene.png")
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"pumer-hf {command[0]}: error: model/model.safetensors " in error
    assert "cut short" in error
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model", "scene.png"]


@pytest.mark.parametrize("saved", ["vilt"], indirect=True)
def test_torch_weights_that_are_cut_short(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.ones(99)}, folder / "pytorch_model.bin")
    cut(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin .*cut short"):
        load_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 5}, "weights .*config.json, .*without .*3.*and"),
        ({"num_labels": 9, "id2label": {}}, "another shape: classifier.3.bias, classifier.3.weight"),
    ],
)
def test_a_config_that_does_not_fit_the_weights(change, message, folder):
    """Layers whose weights are missing must not stay random."""
    change_config(folder, change)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers prints a table of all weights
    try:
        with pytest.raises(ValueError, match=message) as caught:
            load_checkpoint(str(folder))
    finally:
        logging.set_verbosity(verbosity)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("saved", ["vilt"], indirect=True)
def test_a_field_of_a_wrong_type(folder):
    change_config(folder, {"hidden_size": "x"})
    with pytest.raises(ValueError, match="config.json .*hidden_size") as caught:
        load_checkpoint(str(folder))
    assert "\n" not in str(caught.value)


def test_a_method_that_learns_may_be_given_to_a_checkpoint_without_it(folder):
    model, _ = load_checkpoint(str(folder), {"method": "tip", "layers": [1], "prune_ratio": 0.5})
    assert model.reduction.at("layers").method == "tip"


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FULL_DEPTH)
@pytest.mark.parametrize("depth", [1, 2, 3, 6, 12])
def test_the_advised_schedule_has_layers_that_the_model_has(depth, family, head):
    two = {"num_images": 2, "modality_type_vocab_size": 3} if head == "images_class" else {}
    tiny = tiny_models.FAMILIES[family]
    with torch.device("meta"):
        model = getattr(tiny, head)(tiny.config(num_hidden_layers=depth, **two))
    advised = fitting_schedule(model)
    assert model.config.checked(advised).to_dict() == advised
    paper = preset(family, HEADS[head])
    if depth == FULL_DEPTH[family]:
        assert advised == paper
    else:
        assert {**advised, "layers": None} == {**paper, "layers": None}
        assert advised["layers"][0] == paper["layers"][0] * depth // FULL_DEPTH[family]
    told = str(unreduced_error(model, "mine"))
    assert told.startswith("mine: the model reduces no tokens")
    assert json.loads(told.split("'")[1]) == advised


def test_a_six_layer_vilt_is_advised_its_own_layers():
    assert fitting_schedule(tiny_models.FAMILIES["vilt"].model(num_hidden_layers=6))["layers"] == [1, 2, 4]


@pytest.mark.parametrize("command", [["explain", "scene.png", "what?"], ["demo"], ["bench"], ["measure"]])
@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_the_advice_of_every_command_works(backbone, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "scene.png")
    checkpoint = save_tiny("model", backbone, reduction=None)
    assert main([command[0], checkpoint, *command[1:]]) == 2
    advice = capsys.readouterr().err.split("--reduction '")[1].split("'")[0]
    assert max(json.loads(advice)["layers"]) < 3
    (tmp_path / "schedule.json").write_text(advice)
    if command[0] == "explain":
        assert main([command[0], checkpoint, *command[1:], "--reduction", "schedule.json"]) == 0


@pytest.fixture
def without_processor(folder):
    for path in folder.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    return str(folder)


def test_a_folder_without_a_processor_says_how_to_add_it(without_processor, tmp_path, capsys):
    draw(tmp_path / "scene.png")
    for words in (
        ["explain", without_processor, str(tmp_path / "scene.png"), "what digit is red?"],
        ["measure", without_processor, "--scenes", "2"],
        ["demo", without_processor, "--export-space", str(tmp_path / "space")],
    ):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert f"'{without_processor}': there is no processor in this folder" in told
        assert f".save_pretrained('{without_processor}')" in told
    assert main(["push", without_processor, "user/name", "--dry-run"]) == 2
    assert f"save_pretrained('{without_processor}')" in capsys.readouterr().err


def test_measuring_speed_needs_no_processor(without_processor, capsys):
    assert main(["bench", without_processor, "--seconds", "0.05", "--batch-size", "2", "--no-memory"]) == 0
