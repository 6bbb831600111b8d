"""`pumer-hf explain`."""

import json

import pytest
from PIL import Image
from tiny import WIDTH, noise
from tiny_tasks import LABELS, REDUCTION, save_tiny
from transformers import ViltConfig, ViltForQuestionAnswering

from pumer_hf.cli import main
from pumer_hf.models.encoders.vilt import PuMerViltForQuestionAnswering
from pumer_hf.models.loading import load_checkpoint


@pytest.fixture
def scene(tmp_path):
    noise().save(tmp_path / "scene.png")
    return str(tmp_path / "scene.png")


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_several_questions(backbone, scene, tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", backbone)
    heights = []
    reduction = json.dumps({**REDUCTION, "text_merge_ratio": 0.45})  # padding is merged before words are
    for texts in (["what digit is red?"], ["what digit is red?", "is there a two?"]):
        assert (
            main(["explain", checkpoint, scene, *texts, "-o", str(tmp_path / "out.png"), "--reduction", reduction])
            == 0
        )
        lines = capsys.readouterr().out.splitlines()
        titles = [line for line in lines if not line.startswith((" ", "["))]  # "[": DeepSpeed's log, if it is there
        assert titles == [*texts, f"Written to {tmp_path / 'out.png'}"]
        answers = [line.split()[1] for line in lines if line.startswith("  -> ")]
        assert len(answers) == len(texts)
        assert set(answers) <= set(LABELS["vqa"])
        assert sum(line.startswith("  layer 2: ") for line in lines) == len(texts)
        assert "words merged: " in "".join(lines)
        assert sum("of 36 patches, " in line and " gone" in line for line in lines) == 2 * len(texts)
        with Image.open(tmp_path / "out.png") as drawn:
            heights.append(drawn.height)
    assert heights[1] > 1.8 * heights[0]


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_what_leaves_before_the_first_layer(backbone, scene, tmp_path, capsys):
    choice = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25, "rank": 8}
    tower = [{"method": "tome", "site": "tower", "merge_ratio": 0.3}] if backbone == "meter" else []
    checkpoint = save_tiny(tmp_path / "model", backbone, reduction=[choice, REDUCTION, *tower])
    assert main(["explain", checkpoint, scene, "what digit is red?", "-o", str(tmp_path / "out.png")]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    places = ["image tower, layer 0", "before the first layer", "layer 0", "layer 2"]
    found = [line.partition(":")[0] for line in lines if " image tokens; of 36 patches, " in line]
    assert found == (places if tower else places[1:])
    (inputs,) = (line for line in lines if line.startswith("before the first layer"))
    num_image = 26 if tower else 37  # the tower merges 11 of 37
    assert f": 40 text (33 padding) and {1 + round(0.25 * (num_image - 1))} image tokens; " in inputs


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_what_is_not_read_is_said(backbone, scene, tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", backbone)
    texts = ["what elephant is red?", "what digit is red? " * 30]
    assert main(["explain", checkpoint, scene, *texts, "-o", str(tmp_path / "out.png")]) == 0
    printed = capsys.readouterr().out
    assert "Read letter by letter" in printed
    assert "“elephant”" in printed
    assert "longer than 40 tokens" in printed


def test_two_images(scene, tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", "vilt", "nlvr2")
    arguments = ["explain", checkpoint, scene, "both show a two", "-o", str(tmp_path / "out.png")]
    assert main([*arguments, "--second-image", scene]) == 0
    printed = capsys.readouterr().out
    assert "image 1, layer 0: " in printed
    assert "image 2, layer 2: " in printed
    assert main(arguments) == 2
    assert "1 images " in capsys.readouterr().err


def test_a_picture_that_is_too_long_is_named(tmp_path, capsys):
    Image.new("RGB", (2000, 3)).save(tmp_path / "long.png")
    arguments = [save_tiny(tmp_path / "model", "vilt"), str(tmp_path / "long.png"), "what?"]
    assert main(["explain", *arguments, "-o", str(tmp_path / "out.png"), "--keep-aspect-ratio"]) == 2
    assert f"{tmp_path / 'long.png'} has 2000 x 3 pixels" in capsys.readouterr().err


def test_a_score(scene, tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", "meter", "retrieval")
    assert main(["explain", checkpoint, scene, "a two", "-o", str(tmp_path / "out.png")]) == 0
    printed = capsys.readouterr().out
    assert "-> match score " in printed and "fits the image better has a higher one" in printed


def test_an_unreduced_checkpoint_needs_a_schedule(scene, tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", "vilt", reduction=None)
    arguments = ["explain", checkpoint, scene, "what?", "-o", str(tmp_path / "out.png")]
    assert main(arguments) == 2
    assert "config.reduction is None" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()
    assert main([*arguments, "--reduction", json.dumps(REDUCTION)]) == 0
    assert (tmp_path / "out.png").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "nowhere.png"}, "nowhere.png: "),
        ({"image": __file__}, "cannot read the image"),
        ({"checkpoint": "no/such"}, "'no/such': there is no model"),
        ({"checkpoint": "."}, "'.' has no config.json"),
        ({"output": "out.txt"}, "-o out.txt: "),
        ({"output": "nowhere/out.png"}, "no folder nowhere"),
        ({"reduction": "{"}, "--reduction='{': "),
        ({"reduction": "nowhere.json"}, "--reduction='nowhere.json': "),
        ({"reduction": "null"}, "model: the model reduces"),
        ({"reduction": '{"method": "magic"}'}, "reduction.method='magic': "),
    ],
)
def test_errors(change, message, scene, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_tiny("model", "vilt")
    values = {"checkpoint": "model", "image": scene, "output": "out.png", "reduction": json.dumps(REDUCTION), **change}
    flags = ["-o", values["output"], "--reduction", values["reduction"]]
    assert main(["explain", values["checkpoint"], values["image"], "what?", *flags]) == 2
    captured = capsys.readouterr()
    assert "pumer-hf explain: error: " in captured.err
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_stock_vilt_loads_and_another_model_does_not(tmp_path):
    folder = save_tiny(tmp_path / "model", "vilt")
    config = ViltConfig(**WIDTH, num_hidden_layers=3)
    ViltForQuestionAnswering(config).save_pretrained(folder)
    model, _ = load_checkpoint(folder, REDUCTION)
    assert type(model) is PuMerViltForQuestionAnswering
    assert model.reduction.at("layers").layers == (0, 2)
    fields = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**fields, "architectures": ["BertModel"]}))
    with pytest.raises(ValueError, match=r"architectures=\['BertModel'\] in its config.json"):
        load_checkpoint(folder)
