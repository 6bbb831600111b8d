"""From an image and a text to model inputs: what is taken, what is refused, and which part the model sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from tiny_tasks import tiny
from transformers import CLIPImageProcessorPil

from pumer_hf.encoding import EncodingRecord, with_record
from pumer_hf.inputs import Encoder, encode_example, seen_part

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


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_a_batch_is_its_single_examples(backbone):
    _, processor = tiny(backbone)
    encoder, texts = Encoder(processor), [QUESTION, f"{QUESTION} {QUESTION}"]
    batch = encoder([PIXELS, PIXELS[:, :20]], texts)
    assert batch["input_ids"].shape == (2, 40)
    assert torch.equal(encoder.encode_texts(texts)["input_ids"], batch["input_ids"])
    for number, (image, text) in enumerate(zip((PIXELS, PIXELS[:, :20]), texts, strict=True)):
        for name, value in encoder([image], [text]).items():
            assert torch.equal(value[0], batch[name][number]), name


def test_several_images_or_texts_make_one_more_dimension():
    _, processor = tiny("vilt")
    batch = Encoder(processor)([[PIXELS, PIXELS]] * 3, [[QUESTION] * 4] * 3)
    assert batch["pixel_values"].shape == (3, 2, 3, 48, 48)
    assert batch["input_ids"].shape == (3, 4, 40)


@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        ([PIXELS], [QUESTION, QUESTION], "1 images and 2 texts"),
        ([PIXELS, PIXELS], [QUESTION], "2 images and 1 texts"),
        ([PIXELS] * 2, [[QUESTION] * 2, [QUESTION]], r"texts: .*1, 2"),
        ([PIXELS] * 2, [[QUESTION], QUESTION], r"texts: .*list"),
        ([PIXELS] * 2, [QUESTION, [QUESTION]], r"texts: .*list"),
        ([[PIXELS] * 2, [PIXELS]], [QUESTION] * 2, r"images: .*1, 2"),
        ([[]], [QUESTION], r"images: .*empty"),
        ([], [], "empty"),
    ],
)
def test_a_batch_of_unequal_counts_is_an_error(images, texts, message):
    with pytest.raises(ValueError, match=message):
        Encoder(tiny("vilt")[1])(images, texts)


def test_the_record_says_how_texts_are_padded_and_squares_are_made():
    _, processor = tiny("vilt")
    encoder = Encoder(processor, EncodingRecord(30, padding="longest", resample="nearest"))
    batch = encoder([PIXELS], [QUESTION])
    assert batch["attention_mask"].all()
    square = Image.fromarray(PIXELS).resize((48, 48), Image.Resampling.NEAREST)
    assert torch.equal(batch["pixel_values"], Encoder(processor)([square], [QUESTION])["pixel_values"])


def test_overrides_leave_the_encoder_as_it_is():
    model, processor = tiny("vilt")
    encoder = Encoder.of(model, processor)
    assert encoder.replace(max_text_length=9, keep_aspect_ratio=None).record == EncodingRecord(9)
    assert encoder.record == Encoder(processor).record == EncodingRecord(40)


@pytest.mark.parametrize(
    ("backbone", "override", "message"),
    [
        ("vilt", {"max_text_length": 41}, r"max_text_length=41: must be in \[3, 40\]"),
        ("vilt", {"max_text_length": 2}, r"max_text_length=2: must be in \[3, 40\]"),
        ("meter", {"keep_aspect_ratio": True}, "keep_aspect_ratio=True: .*METER"),
    ],
)
def test_what_a_checkpoint_cannot_do_is_an_error(backbone, override, message, tmp_path):
    model, processor = tiny(backbone)
    with pytest.raises(ValueError, match=message):
        Encoder.of(model, processor, **override)
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(tmp_path, **override)
    with pytest.raises(ValueError, match=message):
        encode_example(model, processor, PIXELS, QUESTION, **override)


@pytest.mark.parametrize(
    ("backbone", "record", "override"),
    [
        ("vilt", EncodingRecord(60), {"max_text_length": 32}),
        ("meter", EncodingRecord(keep_aspect_ratio=True), {"keep_aspect_ratio": False}),
    ],
)
def test_an_override_mends_a_record_that_the_checkpoint_cannot_do(backbone, record, override, tmp_path):
    model, processor = tiny(backbone)
    wrong = with_record(processor, record)
    with pytest.raises(ValueError, match="max_text_length=60|keep_aspect_ratio=True"):
        Encoder.of(model, wrong)
    mended = replace(record, **override)
    assert Encoder.of(model, wrong, **override).record == mended
    assert encode_example(model, wrong, PIXELS, QUESTION, **override)["input_ids"].shape == (1, mended.max_text_length)
    for part in (model, wrong):
        part.save_pretrained(tmp_path)
    assert Encoder.from_pretrained(tmp_path, **override).record == mended


def test_smaller_images_keep_the_record():
    _, processor = tiny("vilt")
    smaller = Encoder(processor, EncodingRecord(9)).at_size(24)
    assert smaller([PIXELS], [QUESTION])["pixel_values"].shape == (1, 3, 24, 24)
    assert smaller.record == EncodingRecord(9)
