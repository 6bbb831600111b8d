"""Where a reduction pays, and what it cannot touch. All times are made up, but those of the last tests."""

import json

import pytest
import torch
from models.decoders.tiny import CONFIGS
from tiny_tasks import tiny

from pumer_hf.bench import decoder_measure, measure
from pumer_hf.bench.break_even import BreakEven, Crossing, cross, doubled
from pumer_hf.bench.contenders import BenchOptions, at_image_size, contender
from pumer_hf.bench.decoder_measure import DecoderOptions, Subject
from pumer_hf.bench.profiles import layer_shapes, untouched_share
from pumer_hf.models.decoder_loading import random_decoder
from pumer_hf.models.decoders.random_inputs import prompts
from pumer_hf.models.families import DECODERS
from pumer_hf.results import Cost, Latencies, Latency, Speed, Throughput


def never(size):
    raise AssertionError(f"size {size} was measured")


def test_sizes_are_doubled_up_to_the_one_that_is_asked_for():
    assert doubled(1, 1) == [1]
    assert doubled(1, 8) == [1, 2, 4, 8]
    assert doubled(3, 20) == [3, 6, 12, 20]


def test_the_smallest_size_that_pays_is_the_last_one_that_is_tried():
    table = {2: 0.9, 4: 1.2}
    found = cross([1, 2, 4, 8, 16], {1: 0.8, 16: 1.7}, table.__getitem__)
    assert (found.first, found.ratios) == (4, {1: 0.8, 2: 0.9, 4: 1.2})
    assert cross([1, 2, 4], {1: 1.3, 4: 1.5}, never).first == 1
    assert cross([1, 2, 4], {4: 1.5}, lambda size: 1.01).first == 4  # a hundredth is noise


def test_without_a_gain_at_the_largest_size_no_other_one_is_tried():
    found = cross([1, 2, 4], {1: 0.7, 4: 0.9}, never)
    assert (found.first, found.ratios) == (None, {1: 0.7, 4: 0.9})


def test_sizes_that_do_not_exist_or_may_not_be_measured_are_left_out():
    assert cross([1, 2, 4], {4: 1.5}, lambda size: None).ratios == {4: 1.5}
    assert cross([1, 2, 4], {1: 0.9, 4: 1.5}).ratios == {1: 0.9, 4: 1.5}


def test_lines_say_where_it_pays():
    late = BreakEven(0.38, Crossing({1: 0.93, 2: 1.1}), Crossing({4: 0.9, 16: 1.08}))
    limit, batch, tokens = late.lines("image patches")
    assert "cannot touch 38 %" in limit
    assert "no schedule that cuts there is faster than 2.6x" in limit
    assert batch == "It pays from batch 2 on (1: 0.93x, 2: 1.10x)."
    assert tokens == "At batch 2 it pays from 16 image patches on (4: 0.90x, 16: 1.08x)."
    early = BreakEven(0.1, Crossing({1: 1.5}), Crossing({4: 1.4})).lines("image patches")[1:]
    assert early[0] == "It pays from batch 1 on."
    assert early[1].startswith("At batch 1 it pays from 4 image patches on, the fewest that were tried")
    assert "does not pay up to batch 8" in BreakEven(0.1, Crossing({1: 0.5, 8: 0.9})).lines("image patches")[1]
    assert BreakEven.from_dict(json.loads(json.dumps(late.to_dict()))) == late
    assert BreakEven.from_dict(None) is None


def encoders(backbone):
    options = BenchOptions(batch_size=4)
    forms = {"unreduced": tiny(backbone, reduction=None)[0], "reduced": tiny(backbone)[0]}
    return {name: contender(model, 8, options) for name, model in forms.items()}, options


def cost(at_one, at_four):
    names = ("unreduced", "reduced")
    speeds = {name: Speed(1.0, 1.0, 1.0, at_four) for name in names}
    return Cost(Throughput(4, 5, "forward", speeds), Latencies(5, {n: Latency(1.0, 1.0, 1.0, at_one) for n in names}))


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_an_encoder_is_measured_at_smaller_batches_and_images(backbone, monkeypatch):
    contenders, options = encoders(backbone)
    seen = []

    def ratio(baseline, call, on_cuda):
        baseline(), call()
        batch, _, side, _ = call.keywords["pixel_values"].shape
        seen.append((batch, side))
        return 0.9 if side < 24 else 1.2

    monkeypatch.setattr(measure, "rough_ratio", ratio)
    weights = {name: value.clone() for name, value in contenders["reduced"].eager.state_dict().items()}
    found = measure.measure_break_even(contenders, options, cost(0.8, 1.5))
    side = contenders["reduced"].inputs_of.config.image_size
    assert found.batch_size.ratios == {1: 0.8, 2: 1.2}
    assert seen[0] == (2, side)
    assert seen[1:] and all(batch == 2 for batch, _ in seen)
    assert found.image_tokens.first is not None
    assert 0 < found.untouched < 1
    torch.testing.assert_close(dict(contenders["reduced"].eager.state_dict()), weights, rtol=0, atol=0)
    assert measure.measure_break_even(contenders, options, cost(0.8, 0.9)).image_tokens.ratios == {}


def test_another_image_size_shares_the_weights():
    contenders, _ = encoders("vilt")
    one = contenders["reduced"]
    other = at_image_size(one, 2 * one.inputs_of.config.patch_size)
    assert other.eager.get_input_embeddings().weight is one.eager.get_input_embeddings().weight
    assert other.inputs(1)["pixel_values"].shape[-1] == 2 * one.inputs_of.config.patch_size
    assert one.inputs(1)["pixel_values"].shape[-1] > 2 * one.inputs_of.config.patch_size


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_a_layer_with_fewer_image_tokens_alone_is_touched(backbone):
    """METER's layers take the text first, and a method before the first layer leaves the text as it is."""
    schedule = {"method": "grid", "site": "inputs", "keep_ratio": 0.5}
    models = [tiny(backbone, reduction=reduction)[0].eval() for reduction in (None, schedule)]
    inputs = contender(models[0], 8, BenchOptions(batch_size=4)).inputs(1)
    unreduced, reduced = (layer_shapes(model, lambda model=model: model(**inputs)) for model in models)
    changed = {name for name, shapes in unreduced.items() if shapes != reduced[name]}
    assert changed == {name for name in unreduced if "text_model" not in name and "vision_model" not in name}
    assert len(changed) > 1


def test_what_is_outside_the_layers_that_get_fewer_tokens_is_out_of_touch(monkeypatch):
    contenders, _ = encoders("vilt")
    models = tuple(one.eager for one in contenders.values())
    calls = tuple(lambda one=one: one.eager(**one.inputs(1)) for one in contenders.values())
    marked = []

    def count(call, device, region):
        layers = models[0].vilt.encoder.layer
        marked.append([index for index, layer in enumerate(layers) if layer._forward_pre_hooks])
        return 3.0, 4.0

    monkeypatch.setattr("pumer_hf.bench.profiles.region_seconds", count)
    assert untouched_share(models, calls, torch.device("cpu")) == 0.25
    first = min(models[1].reduction.parts[0].layers)
    assert marked[0] == list(range(first, len(models[0].vilt.encoder.layer)))
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in models[0].vilt.encoder.layer)


@pytest.mark.parametrize(("name", "asked", "sizes"), [("llava", 72, [36]), ("qwen2_5_vl", 24, [1, 2, 4, 8, 16])])
def test_a_decoder_is_measured_with_fewer_image_tokens(name, asked, sizes, monkeypatch):
    row = DECODERS[name]
    schedule = {"method": "pumer", "site": "inputs", "keep_ratio": 0.25}
    model = random_decoder(row, row.config_class(**CONFIGS[name]), reduction=schedule)
    options = DecoderOptions(batch_size=2, text_length=5)
    seen = []

    def ratio(baseline, call, on_cuda):
        subject = call.func.__self__
        tokens = int((subject.inputs["input_ids"][0] == model.family.image_token_id(model.config)).sum())
        seen.append((subject.batch_size, tokens))
        return 1.2 if tokens == asked else 0.9

    monkeypatch.setattr(decoder_measure, "rough_ratio", ratio)
    subject = Subject(model, prompts(model, 2, 5, asked))
    found = decoder_measure.measure_break_even(subject, options, 0.5, 1.3)
    assert seen == [(1, asked), *((1, size) for size in sizes)]
    assert found.image_tokens.first == asked
    assert 0 < decoder_measure.untouched_by_cuts(subject) < 1
