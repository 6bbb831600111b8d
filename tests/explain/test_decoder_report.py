"""`pumer-hf explain` for decoder models."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models.decoders.tiny import IMAGE, ONE, TWO, tiny_inputs, tiny_model
from PIL import Image
from tiny import noise
from tiny_llava import save_tiny_llava
from tiny_tasks import save_tiny

from pumer_hf.cli import main
from pumer_hf.explain.decoder_pictures import decoder_panels

SCHEDULE = {"method": "diverse", "site": "inputs", "keep_ratio": 0.25}
PROCESSOR = SimpleNamespace(image_processor=SimpleNamespace(do_normalize=False))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    return str(save_tiny_llava(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "scene.png"
    noise().save(path)
    return str(path)


def explained(*arguments):
    return main(["explain", *map(str, arguments)])


def test_several_questions(checkpoint, scene, tmp_path, capsys):
    heights = []
    for questions in (["what digit is red?"], ["what digit is red?", "seven?"]):
        flags = ["-o", tmp_path / "out.png", "--reduction", json.dumps(SCHEDULE), "--max-new-tokens", 3]
        assert explained(checkpoint, scene, *questions, *flags) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if not line.startswith(" ")] == [
            *questions,
            f"Written to {tmp_path / 'out.png'}",
        ]
        reduced = [line for line in lines if line.startswith("  reduced by diverse: ")]
        assert len(reduced) == len(questions)
        assert all("(9 of 36 image tokens; " in line and "the first after" in line for line in reduced)
        assert sum("  unreduced: " in line and "(all 36 image tokens; " in line for line in lines) == len(questions)
        kept = "  before the decoder: 9 of 36 image tokens; of 36 patches, 9 stay, 27 are gone"
        assert lines.count(kept) == len(questions)
        with Image.open(tmp_path / "out.png") as drawn:
            heights.append(drawn.height)
    assert heights[1] > 1.8 * heights[0]


def model_and_inputs(name, prompt, reduction):
    model = tiny_model(name, ours=True, reduction=reduction)
    inputs = tiny_inputs(model, name, [prompt])
    with torch.inference_mode():
        return model, inputs, model(**inputs).reduction


@pytest.mark.parametrize("name", ["qwen2_vl", "gemma4"])
def test_patches_lie_on_the_whole_image(name):
    """A family that gets patches one by one sees the image stretched to the shape of its tokens."""
    reduction = {"method": "grounded", "site": "inputs", "num_keep": 1}
    model = tiny_model(name, ours=True, reduction=reduction)
    inputs = tiny_inputs(model, name, [[5, TWO, 6]])
    saliency = torch.zeros(24)
    saliency[8] = 1.0  # row 1, column 2
    with torch.inference_mode():
        (trace,) = model(**inputs, image_saliency=saliency).reduction
    white = Image.new("RGB", (600, 400), "white")
    first, kept = decoder_panels(model, PROCESSOR, white, inputs, [trace])
    assert first.caption == ["what the model sees: 4 x 6 patches"]
    assert first.picture.width * 4 == first.picture.height * 6
    assert kept.caption[0] == "before the decoder: 1 of 24 image tokens"
    darkest = np.asarray(kept.picture).reshape(4, kept.picture.height // 4, 6, -1, 3).min(axis=(1, 3, 4))
    assert np.argwhere(darkest == 255).tolist() == [[1, 2]]  # the others are hatched


def test_each_tile_has_its_picture():
    """Idefics3 cuts an image into tiles, with words between them."""
    model, inputs, traces = model_and_inputs("idefics3", [5, ONE, 7, ONE, 8, ONE, 6], SCHEDULE)
    panels = decoder_panels(model, PROCESSOR, noise(90, 60), inputs, traces)
    assert panels[0].caption == ["the image, cut into 3 tiles, 108 patches"]
    assert [panel.caption[0] for panel in panels[1:]] == [
        f"tile {number}: 9 of 36 image tokens" for number in (1, 2, 3)
    ]
    assert len({panel.picture.width for panel in panels}) == 1
    assert panels[0].picture.width * 60 == panels[0].picture.height * 90


def test_merged_patches_share_a_colour():
    merging = {"method": "pumer", "site": "inputs", "num_keep": 2}
    model, inputs, traces = model_and_inputs("llava", [5, ONE, 6], merging)
    _, kept = decoder_panels(model, PROCESSOR, noise(), inputs, traces)
    assert "gone" not in kept.caption[1]
    _, whole = decoder_panels(*model_and_drawn("llava", {**merging, "num_keep": 36}))
    assert whole.caption[1] == "of 36 patches, 36 stay"
    assert kept.picture.tobytes() != whole.picture.tobytes()


def model_and_drawn(name, reduction):
    model, inputs, traces = model_and_inputs(name, [5, ONE, 6], reduction)
    return model, PROCESSOR, noise(), inputs, traces


def test_what_went_into_another_tile_is_said():
    together = {"method": "diverse", "site": "inputs", "num_keep": 1, "per_prompt": True, "merge_rest": True}
    model, inputs, traces = model_and_inputs("internvl", [5, ONE, ONE, 6], together)
    assert int((inputs["input_ids"] == IMAGE).sum()) == 72
    panels = decoder_panels(model, PROCESSOR, noise(), inputs, traces)
    said = " ".join(line for panel in panels for line in panel.caption)
    assert "of those that are gone, 36 went into tokens of other tiles" in said


def test_each_reduction_has_its_picture():
    """The patches are those of the whole image, also after a second cut."""
    before = {"method": "pumer", "site": "inputs", "num_keep": 12}
    inside = {
        "method": "pumer",
        "layers": [0, 1],
        "prune_ratio": 0.5,
        "image_merge_ratio": 0.0,
        "text_merge_ratio": 0.0,
    }
    model, inputs, traces = model_and_inputs("llava", [5, ONE, 6], [before, inside])
    _, *panels = decoder_panels(model, PROCESSOR, noise(), inputs, traces)
    places = ("before the decoder", "after layer 0", "after layer 1")
    kept = [len(trace.kept) for trace in traces]
    assert kept[0] == 12 > kept[1] > kept[2]
    assert [panel.caption[0] for panel in panels] == [
        f"{place}: {number} of 36 image tokens" for place, number in zip(places, kept, strict=True)
    ]
    assert len({panel.picture.size for panel in panels}) == 1
    assert "gone" not in panels[0].caption[1] and "gone" in panels[1].caption[1]


def test_a_reduction_inside_has_a_picture_of_each_tile():
    inside = {"method": "pumer", "layers": [1], "prune_ratio": 0.5, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0}
    model, inputs, traces = model_and_inputs("idefics3", [5, ONE, 7, ONE, 6], inside)
    _, *panels = decoder_panels(model, PROCESSOR, noise(90, 60), inputs, traces)
    kept = [len(trace.kept) for trace in traces]
    assert sum(kept) < 72
    assert [panel.caption[0] for panel in panels] == [
        f"tile {index + 1} after layer 1: {number} of 36 image tokens" for index, number in enumerate(kept)
    ]


def test_a_family_without_a_grid_is_named_with_those_that_have_one():
    model, inputs, traces = model_and_inputs("llava_next", [5, ONE, 6], SCHEDULE)
    with pytest.raises(ValueError, match=r"^LLaVA-NeXT: .*choose a model of LLaVA-1.5, Qwen2-VL.*Gemma-4"):
        decoder_panels(model, PROCESSOR, noise(), inputs, traces)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--second-image", "b.png"], "--second-image: for encoder models only"),
        (["--no-keep-aspect-ratio"], "--keep-aspect-ratio: for encoder models only"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0"),
        (["--dtype", "int8"], "dtype='int8'"),
        (["--device", "tpu"], "device='tpu'"),
        (["--reduction", "null"], "the model reduces no tokens: give a schedule, such as --reduction"),
        (["--reduction", '{"method": "pumer", "layers": [1], "prune_ratio": 0.1}'], "reduction"),
        (["-o", "out.txt"], "-o out.txt: "),
    ],
)
def test_a_bad_argument_is_named(words, message, checkpoint, scene, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = words if "--reduction" in words else ["--reduction", json.dumps(SCHEDULE), *words]
    assert explained(checkpoint, scene, "what?", *flags) == 2
    captured = capsys.readouterr()
    assert "pumer-hf explain: error: " in captured.err
    assert message in captured.err
    assert not list(tmp_path.glob("*.png"))


def test_flags_of_decoders_are_refused_for_an_encoder(scene, tmp_path, capsys):
    folder = save_tiny(tmp_path / "model", "vilt")
    assert explained(folder, scene, "what?", "-o", tmp_path / "out.png", "--max-new-tokens", 3) == 2
    assert "--max-new-tokens: for decoder models only" in capsys.readouterr().err
