"""From an image and a text to model inputs: what is taken, what is refused, and which part the model sees."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from tiny_tasks import tiny
from transformers import CLIPImageProcessorPil

from pumer_hf.inputs import encode_example, seen_part

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
QUESTION = "what digit is red?"


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_images_paths_and_arrays_give_the_same(backbone, tmp_path):
    model, processor = tiny(backbone)
    image = Image.fromarray(PIXELS)
    image.save(tmp_path / "a.png")
    expected = encode_example(model, processor, image, QUESTION)
    for source in (PIXELS, [PIXELS], (image,), tmp_path / "a.png", [str(tmp_path / "a.png")]):
        found = encode_example(model, processor, source, QUESTION)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_two_images():
    model, processor = tiny("vilt", "nlvr2")
    assert encode_example(model, processor, [PIXELS, PIXELS], QUESTION)["pixel_values"].shape == (1, 2, 3, 48, 48)
    with pytest.raises(ValueError, match="1 images .*PuMerVilt.* takes 2"):
        encode_example(model, processor, PIXELS, QUESTION)


@pytest.mark.parametrize(
    ("image", "text", "message"),
    [
        (PIXELS / 255, QUESTION, r"\(40, 60, 3\) and dtype float64: .*uint8"),
        (torch.zeros(3, 40, 60), QUESTION, "image .*PIL image, .*got Tensor"),
        ("nowhere.png", QUESTION, r"cannot read .*nowhere\.png"),
        (PIXELS, "is it \ud83d?", r"text .*'\\ud83d'"),
        (PIXELS, " ", "text=' '"),
    ],
)
def test_what_is_refused_is_named(image, text, message):
    with pytest.raises(ValueError, match=message):
        encode_example(*tiny("vilt"), image, text)


def test_an_image_that_is_too_long_for_its_shape_is_named(tmp_path, monkeypatch):
    model, processor = tiny("vilt")
    monkeypatch.chdir(tmp_path)
    long = "long.png"
    Image.new("RGB", (2000, 3)).save(long)
    assert encode_example(model, processor, long, QUESTION)["pixel_values"].shape == (1, 3, 48, 48)
    with pytest.raises(ValueError, match=r"here: keep_aspect_ratio=True: .*long\.png .*2000 x 3 pixels.* \(8\)"):
        encode_example(model, processor, long, QUESTION, keep_aspect_ratio=True, origin="here")


def test_which_part_of_an_image_is_seen():
    _, processor = tiny("meter")
    assert seen_part((90, 30), processor) == (0, 0, 90, 30)
    assert seen_part((90, 30), tiny("vilt")[1]) == (0, 0, 90, 30)
    for size, crop, part in (
        ({"shortest_edge": 48}, 48, (30, 0, 60, 30)),
        ({"shortest_edge": 60}, 48, (33, 3, 57, 27)),
        ({"shortest_edge": 24}, 48, (15, -15, 75, 45)),
        ({"height": 60, "width": 60}, 48, (9, 3, 81, 27)),
    ):
        processor.image_processor = CLIPImageProcessorPil(size=size, crop_size={"height": crop, "width": crop})
        assert_allclose(seen_part((90, 30), processor), part)
