"""What the methods do in the layers of a decoder, which has no [CLS]: image token 0 is empty, and the text stays."""

from dataclasses import replace

import pytest
import torch
from tiny_models import SCHEDULES
from torch.nn import functional as F

from pumer_hf.reducers import build_reducer, parse_method
from pumer_hf.reducers.dynamicvit import Predictor
from pumer_hf.reducers.several import joined
from pumer_hf.reducers.tip import Contrast, weighted_mean
from pumer_hf.tokens import Evidence, TokenPair, Tokens

WIDTH = 8
FOR_ENCODERS = {"text_merge_ratio": 0.0, "continuity_weight": 0.0, "contrastive_weight": 0.0}
"""Fields that a decoder takes no other value of."""


def part_of(method, size):
    part = parse_method({"method": method, **SCHEDULES[method][size]})
    return replace(part, **{name: value for name, value in FOR_ENCODERS.items() if name in part.to_dict()})


PARTS = {
    f"{method}-{size}": part_of(method, size)
    for method, sizes in SCHEDULES.items()
    for size, values in sizes.items()
    if "layers" in values
}
each_part = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)


def reducer_of(part, training=False):
    torch.manual_seed(0)
    return build_reducer(part, WIDTH, in_decoder=True).train(training)


def prompts(num_patches, empty=0.0):
    """Two prompts of five words, the last two of the second one padding, and what is known about their images.

    The empty token has `empty` as each of its values.
    """
    generator = torch.Generator().manual_seed(num_patches)
    words_mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    words = Tokens.initial(torch.randn(2, 5, WIDTH, generator=generator), words_mask)

    def in_front(values):
        return torch.cat([torch.full_like(values[:, :1], empty), values], dim=1)

    states, keys = torch.randn(2, 2, num_patches, WIDTH, generator=generator).unbind()
    mask = torch.arange(1 + num_patches).expand(2, -1) > 0
    prior = in_front(torch.rand(2, num_patches, 1, generator=generator)).squeeze(-1)
    attention = torch.rand(2, 2, 5, num_patches, generator=generator)
    evidence = Evidence(F.pad(attention, (1, 0), value=empty), words.states, in_front(keys))
    return TokenPair(words, Tokens.initial(in_front(states), mask, prior)), evidence


@each_part
@pytest.mark.parametrize("num_patches", [1, 2, 3, 6, 16])
def test_an_image_never_loses_all_its_tokens(part, num_patches):
    pair, evidence = prompts(num_patches)
    reducer = reducer_of(part)
    for layer in part.layers:
        announced = reducer.output_lengths(layer, 5, 1 + num_patches)
        reduced, trace = reducer(layer, pair, evidence)
        assert announced == (trace.num_text, trace.num_image) == (5, reduced.image.mask.shape[1])
        assert 2 <= trace.num_image <= 1 + num_patches
        assert reduced.image.mask[:, 1:].all()
        assert reduced.image.states.isfinite().all()


@each_part
def test_the_text_stays_as_it_is(part):
    pair, evidence = prompts(6)
    for layer in part.layers:
        reduced, trace = reducer_of(part)(layer, pair, evidence)
        assert torch.equal(reduced.text.states, pair.text.states)
        assert torch.equal(trace.text_source, pair.text.source)


@each_part
@pytest.mark.parametrize("training", [False, True])
def test_what_stands_in_the_empty_token_has_no_influence(part, training):
    results = []
    for empty in (0.0, 3.0):
        pair, evidence = prompts(9, empty)
        reducer = reducer_of(part, training)
        torch.manual_seed(1)
        reduced, trace = reducer(part.layers[0], pair, evidence)
        results.append((reduced.image.states[:, 1:], trace.image_source, trace.losses))
    torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=1e-5)


@each_part
def test_the_empty_token_stays_alone_and_empty(part):
    pair, evidence = prompts(9)
    reduced, trace = reducer_of(part)(part.layers[0], pair, evidence)
    assert not reduced.image.mask[:, 0].any()
    assert (reduced.image.states[:, 0] == 0).all()
    assert (trace.image_source[:, 0] == -1).all()
    assert not (trace.image_source == 0).any()


@pytest.mark.parametrize(
    ("schedule", "left"),
    [
        ({"method": "fastv"}, [1, 1, 1, 2, 3, 5]),
        ({"method": "pumer", "prune_ratio": 0.5, "image_merge_ratio": 0.0}, [1, 1, 1, 2, 3, 5]),
        ({"method": "pumer", "prune_ratio": 0.0, "image_merge_ratio": 0.25}, [1, 2, 2, 3, 4, 8]),
        ({"method": "tome", "merge_ratio": 0.25}, [1, 2, 2, 3, 4, 8]),
        ({"method": "random", "prune_ratio": 0.25}, [1, 2, 2, 3, 4, 8]),
    ],
)
def test_a_ratio_is_that_of_the_real_image_tokens(schedule, left):
    reducer = reducer_of(parse_method({**schedule, "layers": [2]}))
    found = [reducer.output_lengths(2, 7, 1 + num_patches) for num_patches in (1, 2, 3, 4, 6, 10)]
    assert found == [(7, 1 + number) for number in left]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            {"method": "pumer", "prune_ratio": 0.1, "image_merge_ratio": 0.1, "text_merge_ratio": [0.0, 0.1]},
            r"reduction.text_merge_ratio=\(0.0, 0.1\): .*decoder.* leave it out",
        ),
        ({"method": "tip", "prune_ratio": 0.1}, "reduction.continuity_weight=1.0: .*decoder.* set it to 0"),
        (
            {"method": "tip", "prune_ratio": 0.1, "continuity_weight": 0.0},
            "reduction.contrastive_weight=1.0: .*decoder.* set it to 0",
        ),
    ],
)
def test_what_only_an_encoder_can_do_is_refused(schedule, message):
    part = parse_method({**schedule, "layers": [1, 2]})
    with pytest.raises(ValueError, match=message):
        part.check_decoder()
    with pytest.raises(ValueError, match=message):
        build_reducer(part, WIDTH, in_decoder=True)
    build_reducer(part, WIDTH)


@each_part
def test_all_other_schedules_are_for_decoders_too(part):
    part.check_decoder()


def test_a_mean_of_nothing_is_zero_and_has_gradients():
    states = torch.randn(1, 3, WIDTH, generator=torch.Generator().manual_seed(0))
    weight = torch.zeros(1, 3, requires_grad=True)
    assert (weighted_mean(states, weight) == 0).all()
    logits = Predictor(WIDTH, 0.5)(states, weight)
    assert logits.isfinite().all()
    (weighted_mean(states, weight).sum() + logits.sum()).backward()
    assert weight.grad.isfinite().all()
    assert weight.grad.abs().max() < 100


def test_an_image_without_tokens_has_no_part_in_the_contrast():
    torch.manual_seed(0)
    contrast = Contrast(WIDTH)
    for layer in (contrast.text, contrast.image):
        torch.nn.init.zeros_(layer.bias)  # as a model begins
    states = torch.randn(3, 5, WIDTH)
    weight = torch.ones(3, 5)
    weight[1] = 0.0
    weight.requires_grad_()
    loss = contrast(torch.randn(3, WIDTH), weighted_mean(states, weight))
    loss.backward()
    assert loss.isfinite()
    assert weight.grad.abs().max() < 100
    assert (weight.grad[1] == 0).all()
    assert weight.grad[0].abs().sum() > 0
    assert contrast.image.bias.grad.abs().max() < 100


def test_two_parts_that_read_attention_ask_for_it():
    fastv = build_reducer(parse_method({"method": "fastv", "layers": [1]}), WIDTH)
    tome = build_reducer(parse_method({"method": "tome", "layers": [2], "merge_ratio": 0.1}), WIDTH)
    random = build_reducer(parse_method({"method": "random", "layers": [3], "prune_ratio": 0.1}), WIDTH)
    assert joined([fastv, tome]).uses_attention
    assert not joined([tome, random]).uses_attention
