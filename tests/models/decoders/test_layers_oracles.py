"""Each family that reduces inside its decoder computes what the stock model does without the tokens that are gone."""

from functools import cache

import pytest
import torch
from models.decoders.layers_oracle import FAMILIES, NAMES, LayersOracle, pumer
from models.decoders.oracle import kept_columns, ours, stock
from models.decoders.tiny import IMAGE, ONE, TWO, tiny_inputs, tiny_model

from pumer_hf.models.families import DECODERS

PROMPTS = [[5, 6, ONE, 7, 10], [8, ONE, 9, 9, TWO, 3, 4]]


def schedule_of(kind, first):
    """A schedule that cuts after the layer `first`."""
    return {
        "prune": pumer(first),
        "merge": pumer(first, prune=0.3, merge=0.3),
        "merge_alone": pumer(first, prune=0.0, merge=0.4, saliency="first_head"),
        "tome": {"method": "tome", "layers": [first], "merge_ratio": 0.4},
        "random": {"method": "random", "layers": [first], "prune_ratio": 0.5, "seed": 3},
        "random_merged": {"method": "random", "layers": [first], "prune_ratio": 0.5, "merge_rest": True},
        "grounded": {"method": "grounded", "layers": [first], "prune_ratio": 0.6},
        "fastv": {"method": "fastv", "layers": [first], "prune_ratio": 0.5},
        "pyramid": {"method": "pyramid", "layers": [first], "prune_ratio": 0.4},
    }[kind]


KINDS = ("prune", "merge", "merge_alone", "tome", "random", "random_merged", "grounded", "fastv", "pyramid")
NOTHING = {
    "prune": {"prune_ratio": 0.0},
    "merge": {"prune_ratio": 0.0, "image_merge_ratio": 0.0},
    "merge_alone": {"image_merge_ratio": 0.0},
    "tome": {"merge_ratio": 0.0},
    "random": {"prune_ratio": 0.0},
    "random_merged": {"prune_ratio": 0.0},
    "grounded": {"prune_ratio": 0.0},
    "fastv": {"prune_ratio": 0.0},
    "pyramid": {"prune_ratio": 0.0},
}
CASCADES = {
    "pyramid": [{"method": "pyramid", "layers": [1, 2, 3], "prune_ratio": [0.3, 0.5, 0.5]}],
    "tome_fastv": [{"method": "tome", "layers": [1], "merge_ratio": 0.3}, {"method": "fastv", "layers": [3]}],
    "pumer": [pumer(1, 2, 3, prune=[0.3, 0.3, 0.4], merge=[0.2, 0.0, 0.3])],
    "tome": [{"method": "tome", "layers": [1, 3], "merge_ratio": 0.3}],
    "tome_pumer": [{"method": "tome", "layers": [1], "merge_ratio": 0.3}, pumer(2, prune=0.4, merge=0.2)],
    "pumer_random": [pumer(1, prune=0.2, merge=0.2), {"method": "random", "layers": [3], "prune_ratio": 0.5}],
    "random_pumer": [{"method": "random", "layers": [1], "prune_ratio": 0.3}, pumer(2, prune=0.5)],
}
SIZED = ("tome", "tome_pumer", "tome_fastv")
"""The schedules whose merged tokens count as often as they hold tokens."""


def first_layer(name):
    return DECODERS[name].first_layer(stock(name).config)


def prompts_for(name, pad_left=True):
    return tiny_inputs(stock(name), name, PROMPTS, pad_left=pad_left)


def saliency_for(inputs, kind):
    """The map of image tokens that a method asks for, as an input of the model."""
    number = int((inputs["input_ids"] == IMAGE).sum())
    generator = torch.Generator().manual_seed(5)
    return {"image_saliency": torch.rand(number, generator=generator)} if kind == "grounded" else {}


def check(outputs, oracle, tolerance=1e-5):
    assert outputs.logits.shape == oracle.outputs.logits.shape
    for found, expected in zip(oracle.rows(outputs.logits), oracle.logits, strict=True):
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=1e-5)


@cache
def deep(name, is_ours):
    """A model with five layers."""
    return tiny_model(name, ours=is_ours, num_hidden_layers=5)


@pytest.mark.parametrize("pad_left", (True, False), ids=("left", "right"))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits(name, kind, pad_left):
    first = first_layer(name)
    inputs = prompts_for(name, pad_left)
    model = ours(name)
    model.set_reduction(schedule_of(kind, first))
    given = {**inputs, **saliency_for(inputs, kind)}
    outputs = model(**given)
    assert {trace.layer for trace in outputs.reduction} == {first}
    assert all(0 < len(trace.kept) < len(trace.columns) for trace in outputs.reduction)
    oracle = LayersOracle(name, stock(name), inputs, outputs.reduction, sized=kind in SIZED)
    check(outputs, oracle)
    whole = stock(name)(**inputs).logits  # what was cut has counted
    assert max((one - two).abs().max() for one, two in zip(oracle.rows(whole), oracle.logits, strict=True)) > 1e-2
    model.set_reduction({**schedule_of(kind, first), **NOTHING[kind]})
    outputs = model(**given)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(outputs.logits[real], whole[real], atol=1e-6, rtol=1e-6)
    assert torch.equal(kept_columns(inputs, outputs.reduction), real)


@pytest.mark.parametrize("kind", CASCADES)
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_cascade(name, kind):
    inputs = prompts_for(name)
    model = deep(name, True)
    model.set_reduction(CASCADES[kind])
    outputs = model(**inputs)
    layers = [layer for part in CASCADES[kind] for layer in part["layers"]]
    assert sorted({trace.layer for trace in outputs.reduction}) == layers
    check(outputs, LayersOracle(name, deep(name, False), inputs, outputs.reduction, sized=kind in SIZED))


INPUTS = {
    "pumer": {"method": "pumer", "site": "inputs", "keep_ratio": 0.5, "merge_rest": False},
    "merged": {"method": "pumer", "site": "inputs", "keep_ratio": 0.5},
    "contiguous": {
        "method": "diverse",
        "site": "inputs",
        "keep_ratio": 0.6,
        "positions": "contiguous",
        "per_prompt": True,
    },
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_before_the_decoder_and_inside_it(name, kind):
    """The traces of both are in places of the whole prompt."""
    inputs = prompts_for(name)
    model = deep(name, True)
    model.set_reduction([INPUTS[kind], pumer(1, 3, prune=0.4, merge=0.2)])
    outputs = model(**inputs)
    before = [trace for trace in outputs.reduction if trace.layer is None]
    for layer in (1, 3):
        inside = [trace for trace in outputs.reduction if trace.layer == layer]
        assert [trace.row for trace in inside] == [0, 1, 1]
        for trace, earlier in zip(inside, before, strict=True):
            assert torch.equal(trace.columns, earlier.kept)
            assert set(trace.kept.tolist()) < set(earlier.kept.tolist())
            held = trace.holder >= 0
            assert set(trace.holder[held].tolist()) <= set(torch.cat([other.kept for other in inside]).tolist())
    oracle = LayersOracle(
        name,
        deep(name, False),
        inputs,
        outputs.reduction,
        contiguous=kind == "contiguous",
        merge=kind == "merged",
    )
    short = torch.cat([row[mask.bool()] for row, mask in zip(outputs.logits, short_masks(oracle), strict=True)])
    torch.testing.assert_close(short, torch.cat(oracle.logits), atol=1e-5, rtol=1e-5)


def short_masks(oracle):
    """Which tokens of prompts that were cut before the decoder, padded on the left, are left after it."""
    longest = int(oracle.inner.keep.sum(dim=1).max())
    for before, after in zip(oracle.inner.keep, oracle.keep, strict=True):
        left = after[before]
        yield torch.nn.functional.pad(left, (longest - len(left), 0))
