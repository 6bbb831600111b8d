"""The processor of a converted model is the one that the checkpoint was trained with."""

import numpy as np
import pytest
import tiny_checkpoints as tiny
import torch
from PIL import Image
from tiny_models import FAMILIES
from tiny_tasks import without_record
from torch.testing import assert_close
from transformers import (
    AutoProcessor,
    CLIPImageProcessorPil,
    ViltConfig,
    ViltImageProcessorPil,
    ViltModel,
    ViltProcessor,
)

from pumer_hf import Encoder, EncodingRecord, PuMerMeterProcessor, convert_checkpoint
from pumer_hf.encoding import saved_record
from pumer_hf.models.encoders.meter.processing import build_roberta_tokenizer
from pumer_hf.models.encoders.vilt.processing import build_bert_tokenizer

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


@pytest.fixture
def tokenizers(monkeypatch):
    """A tokenizer per family, for checkpoints whose vocabulary is large enough for it."""
    monkeypatch.setattr(tiny, "VOCAB", 400)
    return {"vilt": build_bert_tokenizer(["what is this"], 99), "meter": build_roberta_tokenizer(["what is this"], 99)}


def pixels(folder, size=None):
    """Pixel values of a photo, through the processor as it loads from `folder`."""
    processor = AutoProcessor.from_pretrained(folder)
    encoded = processor(images=[PHOTO], text=["what is this"], return_tensors="pt")
    if size is not None:
        assert tuple(encoded["pixel_values"].shape) == (1, 3, *size)
    return encoded["pixel_values"]


def squeezed(size, filter_, mean, std):
    """The photo as a square, by PIL alone."""
    image = np.asarray(PHOTO.resize((size, size), filter_), dtype=np.float64) / 255
    return ((image - mean) / std).transpose(2, 0, 1)


CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
HALF = (0.5, 0.5)


@pytest.mark.parametrize(
    ("family", "head", "size", "filter_", "normalisation"),
    [
        ("vilt", "vqa_classifier", 32, Image.Resampling.BILINEAR, HALF),
        ("vilt", "ve_classifier", 32, Image.Resampling.BILINEAR, HALF),
        ("meter", "vqa_classifier", 16, Image.Resampling.BICUBIC, CLIP),
        ("meter", "rank_output", 16, Image.Resampling.BICUBIC, CLIP),
        ("meter", "ve_classifier", 16, Image.Resampling.BILINEAR, HALF),
        ("meter", "nlvr2_classifier", 16, Image.Resampling.BILINEAR, HALF),
    ],
)
def test_the_release_squeezes_images_into_squares(family, head, size, filter_, normalisation, tokenizers, tmp_path):
    tiny.save_released(tmp_path / "in", family, [head])
    folder = convert_checkpoint(tmp_path / "in", tmp_path / "out", processor=tokenizers[family])
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor) is (ViltProcessor if family == "vilt" else PuMerMeterProcessor)
    expected = squeezed(size, filter_, *normalisation)
    assert_close(pixels(folder)[0].double().numpy(), expected, atol=1e-5, rtol=0)
    larger = convert_checkpoint(tmp_path / "in", tmp_path / "out2", processor=tokenizers[family], image_size=64)
    pixels(larger, (64, 64))


def test_original_vilt_keeps_the_aspect_ratio(tokenizers, tmp_path):
    source = tiny.save_lightning(tmp_path / "a.ckpt", tiny.original_vilt("vqa_classifier"))
    folder = convert_checkpoint(source, tmp_path / "out", processor=tokenizers["vilt"])
    pixels(folder, (32, 48))
    processor = AutoProcessor.from_pretrained(folder)
    assert "pixel_mask" in processor(images=[PHOTO], text=["what"], return_tensors="pt")
    encoder = Encoder.from_pretrained(folder)  # and so pipeline, page and pictures
    assert encoder.record == EncodingRecord(12, keep_aspect_ratio=True)
    assert torch.equal(encoder([PHOTO], ["what is this"])["pixel_values"], pixels(folder))
    pixels(convert_checkpoint(source, tmp_path / "out2", processor=tokenizers["vilt"], image_size=40), (40, 56))


@pytest.mark.parametrize(("origin", "keeps_shape"), [("original", True), ("released", False)])
def test_a_converted_vilt_that_was_saved_without_a_record_keeps_its_shape(origin, keeps_shape, tokenizers, tmp_path):
    source = tmp_path / "in.ckpt"
    if origin == "original":
        tiny.save_lightning(source, tiny.original_vilt("vqa_classifier"))
    else:
        tiny.save_released(source, "vilt", ["vqa_classifier"])
    folder = without_record(convert_checkpoint(source, tmp_path / "out", processor=tokenizers["vilt"]))
    encoder = Encoder.from_pretrained(folder)
    assert encoder.record == EncodingRecord(12, keep_aspect_ratio=keeps_shape)
    assert encoder([PHOTO], ["what is this"])["pixel_values"].shape == (1, 3, 32, 48 if keeps_shape else 32)


@pytest.mark.parametrize(("family", "origin"), [("vilt", "original"), ("meter", "original"), ("vilt", "released")])
@pytest.mark.parametrize(("head", "released_length"), [("vqa_classifier", 32), ("nlvr2_classifier", 40)])
def test_texts_are_as_long_as_in_the_training_of_the_checkpoint(
    family, origin, head, released_length, tokenizers, tmp_path, monkeypatch
):
    monkeypatch.setattr(tiny, "POSITIONS", 60)  # the release says how many it has, not how many it trained with
    monkeypatch.setattr(tiny, "ROBERTA_POSITIONS", 62)
    if origin == "original":
        weights = getattr(tiny, f"original_{family}")(head)
        source = tiny.save_lightning(tmp_path / "in", weights, {**tiny.HYPER_PARAMETERS, "max_text_len": 50})
    else:
        source = tmp_path / "in"
        tiny.save_released(source, family, [head])
    record = saved_record(convert_checkpoint(source, tmp_path / "out", processor=tokenizers[family]))
    assert record.max_text_length == (50 if origin == "original" else released_length)
    assert record.keep_aspect_ratio == (family == "vilt" and origin == "original")
    assert record.resample == ("bicubic" if origin == "original" else "bilinear")


def test_a_processor_that_says_how_inputs_are_made_is_believed(tokenizers, tmp_path):
    source = tiny.save_lightning(tmp_path / "a.ckpt", tiny.original_vilt("vqa_classifier"))
    given = ViltProcessor(ViltImageProcessorPil(size={"shortest_edge": 64}), tokenizers["vilt"])
    given = Encoder(given, EncodingRecord(7)).processor
    assert saved_record(convert_checkpoint(source, tmp_path / "out", processor=given)) == EncodingRecord(7)


def test_original_meter_cuts_a_square_out_of_the_middle(tokenizers, tmp_path):
    source = tiny.save_lightning(tmp_path / "a.ckpt", tiny.original_meter("snli_classifier"))
    folder = convert_checkpoint(source, tmp_path / "out", processor=tokenizers["meter"])
    reference = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    assert_close(pixels(folder, (16, 16)), reference([PHOTO], return_tensors="pt")["pixel_values"])
    pixels(convert_checkpoint(source, tmp_path / "out2", processor=tokenizers["meter"], image_size=24), (24, 24))


def test_stock_vilt_keeps_its_processor(tokenizers, tmp_path):
    ours = FAMILIES["vilt"].config(vocab_size=400)
    names = ("reduction", "semantics", "text_layer_norm_eps", "model_type", "architectures")
    stock = ViltConfig(**{name: value for name, value in ours.to_dict().items() if name not in names})
    ViltModel(stock).save_pretrained(tmp_path / "in")
    ViltImageProcessorPil(size={"shortest_edge": 24}, size_divisor=4).save_pretrained(tmp_path / "in")
    tokenizers["vilt"].save_pretrained(tmp_path / "in")
    pixels(convert_checkpoint(tmp_path / "in", tmp_path / "out"), (24, 36))
    assert saved_record(tmp_path / "out") == EncodingRecord(12, keep_aspect_ratio=True)
    pixels(convert_checkpoint(tmp_path / "in", tmp_path / "out2", image_size=16), (16, 24))


@pytest.mark.parametrize(("family", "longest"), [("vilt", 12), ("meter", 12)])
def test_the_tokenizer_beside_the_checkpoint(family, longest, tokenizers, tmp_path):
    tiny.save_released(tmp_path / "in", family, ["vqa_classifier"])
    tokenizers[family].save_pretrained(tmp_path / "in")
    processor = AutoProcessor.from_pretrained(convert_checkpoint(tmp_path / "in", tmp_path / "out"))
    assert processor.tokenizer.get_vocab() == tokenizers[family].get_vocab()
    assert processor.tokenizer.model_max_length == longest
    assert len(processor.tokenizer("what " * 50, truncation=True)["input_ids"]) == longest


def test_processors_of_the_user(tokenizers, tmp_path):
    source = tiny.save_lightning(tmp_path / "a.ckpt", tiny.original_vilt("vqa_classifier"))
    tokenizers["vilt"].save_pretrained(tmp_path / "tokenizer")
    folder = convert_checkpoint(source, tmp_path / "out", processor=tmp_path / "tokenizer")
    pixels(folder, (32, 48))
    whole = ViltProcessor(ViltImageProcessorPil(size={"shortest_edge": 64}), tokenizers["vilt"])
    pixels(convert_checkpoint(source, tmp_path / "out2", processor=whole), (64, 96))
    assert whole.tokenizer.model_max_length == 99
    whole.save_pretrained(tmp_path / "processor")
    pixels(convert_checkpoint(source, tmp_path / "out3", processor=str(tmp_path / "processor")), (64, 96))
    pixels(convert_checkpoint(source, tmp_path / "out4", processor=str(folder)), (32, 48))
    for wrong, message in ((3, "processor=3: give a processor"), ("no/such", "processor='no/such' does not load")):
        with pytest.raises(ValueError, match=message):
            convert_checkpoint(source, tmp_path / "out5", processor=wrong)
    assert not (tmp_path / "out5").exists()


def test_a_tokenizer_with_more_words_than_the_model(tokenizers, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "VOCAB", 40)
    source = tiny.save_lightning(tmp_path / "a.ckpt", tiny.original_vilt("vqa_classifier"))
    with pytest.raises(ValueError, match=r"tokenizer .*\d+ tokens, .*checkpoint .*40"):
        convert_checkpoint(source, tmp_path / "out", processor=tokenizers["vilt"])


@pytest.mark.parametrize(("vocab_size", "reason"), [(40, "is not that of roberta-base"), (50_265, "does not load")])
def test_no_tokenizer_to_be_had(vocab_size, reason, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tiny, "VOCAB", vocab_size)
    source = tiny.save_lightning(tmp_path / "a.ckpt", tiny.original_meter("vqa_classifier"))
    folder = convert_checkpoint(source, tmp_path / "out")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "model.safetensors", "modeling_pumer.py"]
    assert "saved without a processor" in caplog.text
    assert reason in caplog.text
    assert "--processor" in caplog.text
    caplog.clear()
    convert_checkpoint(source, tmp_path / "out2", processor=False)
    assert caplog.text == ""


def test_the_folder_names_no_place_on_this_machine(tokenizers, tmp_path):
    tiny.save_released(tmp_path / "in", "vilt", ["vqa_classifier"])
    tokenizers["vilt"].save_pretrained(tmp_path / "in")
    folder = convert_checkpoint(tmp_path / "in", tmp_path / "out")
    texts = [path.read_text() for path in folder.glob("*.json")]
    assert len(texts) == 4
    assert not any(str(tmp_path) in text for text in texts)
