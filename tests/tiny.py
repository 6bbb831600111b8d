"""Tiny models, images and schedules that tests of several folders share, and how runs are started and compared."""

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

WIDTH = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
PUMER = {
    "method": "pumer",
    "layers": [0, 1],
    "prune_ratio": 0.2,
    "image_merge_ratio": 0.3,
    "text_merge_ratio": 0.2,
}

CHECKPOINT_FILES = {
    "config.json",
    "model.safetensors",
    "modeling_pumer.py",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
"""The files of a model that is saved with its processor and its code."""


def vilt_fields(**changes):
    """The fields of a config of ViLT: three layers; images of 48 pixels, in patches of 8."""
    return {**WIDTH, "num_hidden_layers": 3, "image_size": 48, "patch_size": 8, **changes}


def meter_fields(text=None, vision=None, **changes):
    """The fields of a config of METER: three blocks over towers of one layer. `text` and `vision` change the
    fields of the towers.
    """
    tower = {**WIDTH, "num_hidden_layers": 1}
    return {
        **WIDTH,
        "num_hidden_layers": 3,
        "text_config": {**tower, "type_vocab_size": 1, **(text or {})},
        "vision_config": {**tower, "image_size": 48, "patch_size": 8, **(vision or {})},
        **changes,
    }


def noise(width=48, height=48):
    """An image of random pixels."""
    return Image.effect_noise((width, height), 90).convert("RGB")


def encoded(image, form="PNG", **options):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def png(colour=(255, 0, 0), size=(32, 32), mode="RGB"):
    """The bytes of a picture of one colour."""
    return encoded(Image.new(mode, size, colour))


def undecoded(colour=(255, 0, 0), size=(32, 32)):
    """A picture as `datasets` gives it undecoded."""
    return {"bytes": png(colour, size), "path": None}


def words_of(flags):
    """Flags by name as the words of a command; a value is a string, or a list of them."""
    return [
        word
        for name, value in flags.items()
        for word in (f"--{name}", *([value] if isinstance(value, str) else value))
    ]


def log_of(folder):
    """The entries of the log that the trainer of a stage left in its folder."""
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def weights_in(folder):
    return load_file(folder / "model.safetensors")


def assert_same_weights(ours, theirs):
    """Weights are given by name, or as the folder in which they are saved."""
    ours, theirs = (weights_in(weights) if isinstance(weights, Path) else weights for weights in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), f"{name} differs by {(value - theirs[name]).abs().max()}"


def assert_same_answers(found, expected):
    """Two models with the same weights give the same answers.

    The kernels of some processors round by where the weights lie in memory, so the last digit may differ.
    """
    assert [one["answer"] for one in found] == [one["answer"] for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-6)
