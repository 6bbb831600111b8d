"""The baselines that prune: at random, and by a map from outside."""

import pytest
import torch
from tiny_models import FAMILIES

from pumer_hf.reducers import build_reducer, parse_method
from pumer_hf.reducers.random import scramble
from pumer_hf.tokens import Evidence, TokenPair, Tokens

RANDOM = {"method": "random", "layers": [1, 3], "prune_ratio": 0.5}
GROUNDED = {"method": "grounded", "layers": [1, 2], "prune_ratio": 0.5}


def kept_patches(trace):
    return trace.image_source[:, 1:] >= 0


def test_each_layer_prunes_by_its_own_ratio():
    reducer = build_reducer(parse_method({**GROUNDED, "prune_ratio": [0.25, 0.5]}), 2)
    assert [reducer.output_lengths(layer, 9, 20) for layer in (1, 2)] == [(9, 15), (9, 10)]


def test_scrambled_numbers_are_even_and_depend_on_all():
    values = scramble(torch.arange(20_000), 3, 0)
    assert 0 <= values.min() < 0.001 < 0.999 < values.max() < 1
    assert torch.histc(values, 10, 0, 1).div(2000).sub(1).abs().max() < 0.1
    pair = torch.corrcoef(torch.stack([values[:-1], values[1:]]))[0, 1]
    assert abs(pair) < 0.03
    for layer, seed in ((4, 0), (3, 1)):
        assert abs(torch.corrcoef(torch.stack([values, scramble(torch.arange(20_000), layer, seed)]))[0, 1]) < 0.03


def test_a_seed_means_the_same_on_every_machine_and_in_every_version():
    def number(place, layer, seed):  # in the exact integers of Python
        value = ((place + 1) * 0x9E3779B1 + (layer + 1) * 0x85EBCA77 + (seed + 1) * 0xC2B2AE3D) % 2**32
        value = (value ^ value >> 16) * 0x85EBCA6B % 2**32
        value = (value ^ value >> 16) * 0xC2B2AE35 % 2**32
        return (value ^ value >> 16) % 2**24 / 2**24

    for layer, seed in ((0, 0), (5, 1), (11, 2**31)):
        expected = [number(place, layer, seed) for place in range(600)]
        assert scramble(torch.arange(600), layer, seed).tolist() == expected


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_random_pruning_has_a_seed_in_eval_mode_and_draws_in_training(family):
    model, inputs = family.model(RANDOM), family.inputs()
    first = kept_patches(model(**inputs).reduction[0])
    assert torch.equal(first, kept_patches(model(**inputs).reduction[0]))
    model.set_reduction({**RANDOM, "seed": 1})
    assert not torch.equal(first, kept_patches(model(**inputs).reduction[0]))
    model.train()
    torch.manual_seed(0)
    drawn = [kept_patches(model(**inputs).reduction[0])[0] for _ in range(60)]
    part = torch.stack(drawn).float().mean(dim=0)
    assert 0.2 < part.min() < part.max() < 0.8  # every patch now and then


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_grounded_pruning_keeps_what_the_map_says(family):
    model, inputs = family.model(GROUNDED), family.inputs()
    inputs.pop("pixel_mask", None)
    patches = torch.zeros(3, 4, 4)
    wanted = [(0, 1), (2, 2), (3, 0)]
    for row, column in wanted:
        patches[:, row, column] = 1
    fine = patches.repeat_interleave(5, 1).repeat_interleave(5, 2)  # of any resolution
    for saliency in (patches, fine):
        for trace in model(**inputs, image_saliency=saliency).reduction:
            assert all(kept_patches(trace).view(3, 4, 4)[:, row, column].all() for row, column in wanted)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_grounded_pruning_needs_a_map(family):
    model = family.model(GROUNDED)
    with pytest.raises(ValueError, match="image_saliency, .*pumer_hf.grounding .*data.image_saliency"):
        model(**family.inputs())
    with pytest.raises(ValueError, match=r"image_saliency .*\(3, 1, 4, 4\)"):
        model(**family.inputs(), image_saliency=torch.zeros(3, 1, 4, 4))


def test_all_heads_pass_the_map_on():
    for family in FAMILIES.values():
        inputs = family.inputs()
        inputs.pop("pixel_mask", None)
        saliency = torch.rand(3, 4, 4)
        retrieval = family.retrieval_class(family.config(reduction=GROUNDED)).eval()
        assert len(retrieval(**inputs, image_saliency=saliency).reduction) == 2
        images = family.images_class(
            family.config(reduction=GROUNDED, num_images=2, modality_type_vocab_size=3)
        ).eval()
        inputs["pixel_values"] = torch.stack([inputs["pixel_values"], inputs["pixel_values"].flip(0)], dim=1)
        maps = torch.stack([saliency, saliency.flip(0)], dim=1)
        first, _, second, _ = images(**inputs, image_saliency=maps).reduction
        assert torch.equal(kept_patches(first), kept_patches(second).flip(0))


def test_the_map_follows_the_tokens():
    prior = torch.tensor([[0.5, 0.1, 0.9, 0.3, 0.7]])
    states, mask = torch.zeros(1, 5, 2), torch.ones(1, 5, dtype=torch.bool)
    pair = TokenPair(Tokens.initial(states, mask), Tokens.initial(states, mask, prior))
    reducer = build_reducer(parse_method({"method": "grounded", "layers": [3], "prune_ratio": 0.4}), 2)
    reduced, trace = reducer(3, pair, Evidence(None, states, states))
    assert trace.keep.tolist() == [[0, 2, 4]]
    assert (trace.layer, trace.num_text, trace.num_image, trace.losses) == (3, 5, 3, {})
    assert trace.text_source.tolist() == [[0, 1, 2, 3, 4]]
    assert trace.image_source.tolist() == [[0, -1, 1, -1, 2]]
    assert torch.equal(trace.saliency, prior)
    torch.testing.assert_close(reduced.image.prior, torch.tensor([[0.5, 0.9, 0.7]]))
