"""The record that says how inputs are made: where it lies, what it holds, and what a folder without one implies."""

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_tasks import save_tiny, tiny, without_record
from transformers import AutoProcessor, ViltConfig, ViltForQuestionAnswering
from transformers.utils import logging as transformers_logging

from pumer_hf import Encoder, EncodingRecord, encode_example
from pumer_hf.encoding import checkpoint_record, record_in, saved_record, with_record
from pumer_hf.models.loading import load_checkpoint

LONG = "is there a red digit? what digit is seven? there is a red digit is what a digit? red a is digit?"
"""A text of 28 tokens."""
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)


def test_padding_changes_what_is_merged():
    """Why the length has to be that of the training: padding is merged first."""
    model, processor = tiny("vilt")
    with torch.inference_mode():
        logits = [model(**encode_example(model, processor, PIXELS, LONG, length)).logits for length in (32, 40)]
    assert (logits[0] - logits[1]).abs().max() > 0.1


def test_a_record_stays_with_its_processor(tmp_path):
    _, processor = tiny("vilt")
    record = EncodingRecord(17, "longest", True, "nearest")
    changed = with_record(processor, record)
    assert (record_in(changed), record_in(processor)) == (record, EncodingRecord(40))
    changed.save_pretrained(tmp_path)
    assert record_in(AutoProcessor.from_pretrained(tmp_path)) == saved_record(tmp_path) == record
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["image_processor"]["encoding"] == record.to_dict()


def save_with_entry(folder, entry):
    """A tiny ViLT whose processor has `entry` as its record."""
    save_tiny(folder, "vilt")
    path = folder / "processor_config.json"
    config = json.loads(path.read_text())
    config["image_processor"]["encoding"] = entry
    path.write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_text_length": 0}, "max_text_length=0"),
        ({"max_text_length": "9"}, "max_text_length='9'"),
        ({"padding": "left"}, "padding='left'.*longest"),
        ({"keep_aspect_ratio": 1}, "keep_aspect_ratio=1"),
        ({"resample": "cubic"}, "resample='cubic'.*bicubic"),
        ({"max_text_length": True}, "max_text_length=True"),
        ({"resample": 3}, "resample=3: .*bicubic"),
        ({"resample": None}, "resample=None: .*bicubic"),
        ({"padding": ["longest"]}, r"padding=\['longest'\]"),
        ({"colour": "red"}, "encoding.colour.*newer version"),
    ],
)
def test_a_wrong_record_is_named(fields, message, tmp_path):
    folder = save_with_entry(tmp_path, EncodingRecord().to_dict() | fields)
    with pytest.raises(ValueError, match=f"{tmp_path}.*{message}"):
        saved_record(folder)


@pytest.mark.parametrize("entry", [[], "x", 5, False])
def test_what_is_no_record_is_named(entry, tmp_path):
    folder = save_with_entry(tmp_path, entry)
    with pytest.raises(ValueError, match=f"{tmp_path}: encoding={re.escape(repr(entry))}"):
        saved_record(folder)
    with pytest.raises(ValueError, match=f"{tmp_path}: encoding={re.escape(repr(entry))}"):
        load_checkpoint(folder)


def test_null_is_no_record(tmp_path, notices):
    folder = save_with_entry(tmp_path, None)
    assert saved_record(folder) is None
    assert record_in(load_checkpoint(folder)[1]) == EncodingRecord(40)
    assert "does not say" in notices.text


@pytest.fixture
def notices(caplog):
    """What transformers' loggers say once, which they do again in each test."""
    transformers_logging.get_logger("pumer_hf.encoding").warning_once.cache_clear()
    caplog.set_level(logging.WARNING)
    return caplog


def save_stock(folder, processor):
    """A tiny ViLT, saved by transformers."""
    config = ViltConfig(
        vocab_size=len(processor.tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, image_size=48, patch_size=8, num_labels=7,
    )  # fmt: skip
    ViltForQuestionAnswering(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(without_record(folder))


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_a_folder_of_an_older_version_makes_squares_and_says_so_once(backbone, tmp_path, notices):
    folder = without_record(save_tiny(tmp_path / "model", backbone))
    for _ in range(2):
        model, processor = load_checkpoint(folder)
    assert record_in(processor) == EncodingRecord(40)
    assert encode_example(model, processor, PIXELS, LONG)["pixel_values"].shape == (1, 3, 48, 48)
    (notice,) = (record.getMessage() for record in notices.records if folder in record.getMessage())
    assert all(word in notice for word in ("40 tokens", "squares", "save_pretrained"))


def test_stock_vilt_keeps_the_aspect_ratio(tmp_path, notices):
    folder = save_stock(tmp_path, tiny("vilt")[1])
    model, processor = load_checkpoint(folder)
    assert record_in(processor) == EncodingRecord(40, keep_aspect_ratio=True)
    assert encode_example(model, processor, PIXELS, LONG)["pixel_values"].shape == (1, 3, 40, 72)
    assert "keep their aspect ratio" in notices.text
    bare = AutoProcessor.from_pretrained(folder)  # as of somebody who does not load by `load_checkpoint`
    assert encode_example(model, bare, PIXELS, LONG)["pixel_values"].shape == (1, 3, 40, 72)
    assert encode_example(model, bare, PIXELS, LONG, keep_aspect_ratio=False)["pixel_values"].shape == (1, 3, 48, 48)


def test_the_record_of_a_run_stands_for_one_in_the_processor(tmp_path, notices):
    folder = without_record(save_tiny(tmp_path / "student", "vilt"))
    data = {"max_text_length": 12, "keep_aspect_ratio": True, "rand_augment": True}
    (tmp_path / "stages.json").write_text(json.dumps({"student": {"data": data}}))
    assert Encoder.from_pretrained(folder).record == EncodingRecord(12, keep_aspect_ratio=True)
    assert "does not say" not in notices.text
    Encoder.from_pretrained(folder, max_text_length=9).save_pretrained(folder)
    assert saved_record(folder) == EncodingRecord(9, keep_aspect_ratio=True)


def test_the_record_of_a_run_is_found_from_inside_and_for_checkpoints(tmp_path, monkeypatch):
    student = Path(without_record(save_tiny(tmp_path / "student", "vilt")))
    shutil.copytree(student, student / "checkpoint-3")
    data = {"max_text_length": 12, "keep_aspect_ratio": True}
    (tmp_path / "stages.json").write_text(json.dumps({"student": {"data": data}}))
    expected = EncodingRecord(12, keep_aspect_ratio=True)
    assert saved_record(student / "checkpoint-3") == saved_record(f"{student}/../student") == expected
    monkeypatch.chdir(student)
    assert saved_record(".") == saved_record("checkpoint-3") == expected
    monkeypatch.chdir("checkpoint-3")
    assert saved_record(".") == expected


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (5, "student=5: must be a JSON object"),
        ({"data": ["x"]}, r"student.data=\['x'\]: must be a JSON object"),
        ({"data": {"max_text_length": "9"}}, "student.data.max_text_length='9'"),
    ],
)
def test_a_wrong_entry_of_a_run_is_named(entry, message, tmp_path):
    folder = without_record(save_tiny(tmp_path / "student", "vilt"))
    (tmp_path / "stages.json").write_text(json.dumps({"student": entry}))
    with pytest.raises(ValueError, match=f"stages.json: {message}"):
        saved_record(folder)


def test_a_model_that_was_never_saved_needs_no_notice(notices):
    assert checkpoint_record("", 512) == EncodingRecord(40)
    assert checkpoint_record("", 9) == EncodingRecord(9)
    assert notices.text == ""


def test_a_model_whose_folder_is_gone_can_still_be_asked(tmp_path, notices):
    folder = without_record(save_tiny(tmp_path / "model", "vilt"))
    model, _ = load_checkpoint(folder)
    bare = AutoProcessor.from_pretrained(folder)
    shutil.rmtree(folder)
    assert encode_example(model, bare, PIXELS, LONG)["pixel_values"].shape == (1, 3, 48, 48)
    assert "become squares" in notices.text


def test_the_files_of_a_model_are_read_once(tmp_path, monkeypatch):
    folder = without_record(save_tiny(tmp_path / "model", "vilt"))
    model, _ = load_checkpoint(folder)
    bare = AutoProcessor.from_pretrained(folder)
    read = []
    monkeypatch.setattr("pumer_hf.encoding.saved_record", read.append)
    for length in (None, None, 9):
        assert encode_example(model, bare, PIXELS, LONG, length)["input_ids"].shape == (1, length or 40)
    assert read == [folder]


def test_the_hub_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr("pumer_hf.encoding.saved_record", asked.append)
    assert checkpoint_record("user/nowhere-to-be-found", 40) == EncodingRecord(40)
    assert checkpoint_record("user/nowhere-to-be-found", 9) == EncodingRecord(9)
    assert asked == ["user/nowhere-to-be-found"]
