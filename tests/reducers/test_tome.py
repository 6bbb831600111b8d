"""ToMe: sizes, weighted means and proportional attention."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from pumer_hf import ops
from pumer_hf.models.encoders.attention import AttentionKernel, Heads
from pumer_hf.reducers import build_reducer, parse_method
from pumer_hf.reducers.tome import merge_similar
from pumer_hf.tokens import Evidence, KeyMask, TokenPair, Tokens


def pair_of(num_text=6, num_image=11, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def tokens(length, num_real):
        mask = torch.arange(length) < torch.tensor(num_real).unsqueeze(1)
        return Tokens.initial(torch.randn(2, length, width, generator=generator), mask)

    return TokenPair(tokens(num_text, [6, 3]), tokens(num_image, [11, 7]))


def merged(pair, layers):
    reducer = build_reducer(parse_method({"method": "tome", "layers": layers, "merge_ratio": 0.4}), 4)
    for layer in layers:
        evidence = Evidence(None, text_keys=pair.text.states, image_keys=pair.image.states)
        pair, trace = reducer(layer, pair, evidence)
    return pair, trace


def test_a_token_is_the_mean_of_all_that_it_holds_and_its_weight_says_how_many():
    before = pair_of()
    after, trace = merged(before, [0, 1, 2])
    for tokens, first in ((after.text, before.text), (after.image, before.image)):
        assert torch.equal(tokens.weight, tokens.size.float())
        assert torch.equal(tokens.mask, tokens.size > 0)
        assert (tokens.weight > 2).any()
        for example in range(2):
            for token in range(tokens.mask.shape[1]):
                held = tokens.source[example] == token
                assert held.sum() == tokens.weight[example, token]
                if held.any():
                    expected = first.states[example, held].mean(dim=0)
                    torch.testing.assert_close(tokens.states[example, token], expected)
    assert (trace.num_text, trace.num_image) == (after.text.mask.shape[1], after.image.mask.shape[1])


def test_each_layer_merges_by_its_own_ratio():
    schedule = {"method": "tome", "layers": [1, 3], "merge_ratio": [0.2, 0.4]}
    reducer = build_reducer(parse_method(schedule), 4)
    pair = pair_of(num_text=10, num_image=21)
    evidence = Evidence(None, text_keys=pair.text.states, image_keys=pair.image.states)
    for layer, expected in ((1, (8, 17)), (3, (6, 13))):
        assert reducer.output_lengths(layer, 10, 21) == expected
        after, trace = reducer(layer, pair, evidence)
        assert (after.text.mask.shape[1], after.image.mask.shape[1]) == expected
        assert (trace.layer, trace.num_text, trace.num_image) == (layer, *expected)
        assert trace.text_source is after.text.source
        assert trace.image_source is after.image.source
        moves = trace.text_matching.positions(10), trace.image_matching.positions(21)
        for before, tokens, positions in zip((pair.text, pair.image), (after.text, after.image), moves, strict=True):
            assert torch.equal(tokens.source, positions.masked_fill(~before.mask, -1))


def test_padding_leaves_first_and_what_weighs_something_is_none():
    states, keys = torch.zeros(1, 6, 1), torch.tensor([[[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1]]])
    tokens = Tokens.initial(states, torch.tensor([[True, True, True, False, False, False]]))
    weighed = replace(tokens, weight=torch.tensor([[2.0, 0.5, 1.0, 0.0, 0.0, 0.0]]))
    for one in (tokens, weighed):
        _, matching = merge_similar(one, keys, 1)
        assert (2 * matching.src).tolist() == [[4]]  # although 2 is like 1


def test_attention_to_a_merged_token_is_that_to_its_parts():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, length, 4, generator=generator) for length in (3, 5, 5))
    sizes = torch.tensor([1, 3, 2, 1, 4])
    padding = torch.tensor([False, False, False, True, False])
    weight = torch.where(padding, 0.0, sizes.float())[None, None, None]
    parts = torch.arange(5)[~padding].repeat_interleave(sizes[~padding])
    expected = F.scaled_dot_product_attention(query, key[:, :, parts], value[:, :, parts]).transpose(1, 2).flatten(2)
    for explicit in (False, True):
        context, _ = AttentionKernel().attend(Heads(query, key, value), KeyMask(None, weight), 0.0, explicit)
        torch.testing.assert_close(context, expected)


def test_weighted_softmax_is_finite_where_a_masked_score_is_huge():
    scores = torch.tensor([[[[1.0, 500.0, 2.0]]]], requires_grad=True)
    weight = torch.tensor([[[[1.0, 0.0, 1.0]]]], requires_grad=True)
    probabilities = ops.weighted_softmax(scores, weight)
    torch.testing.assert_close(probabilities[0, 0, 0, [0, 2]], torch.tensor([1.0, 2.0]).softmax(0))
    assert probabilities[..., 1] == 0
    (probabilities * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert scores.grad.isfinite().all()
    assert weight.grad.isfinite().all()
    assert weight.grad[0, 0, 0, 1] != 0


def test_gradients_of_weights_are_those_of_the_formula():
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(1, 2, 3, 4, generator=generator, dtype=torch.float64)
    weight = torch.rand(1, 1, 1, 4, generator=generator, dtype=torch.float64, requires_grad=True)

    def plain(weight):
        exponentials = scores.float().exp() * weight
        return exponentials / exponentials.sum(dim=-1, keepdim=True)

    torch.testing.assert_close(ops.weighted_softmax(scores, weight), plain(weight))
    found, expected = (
        torch.autograd.grad(function(weight)[..., 0].sum(), weight)[0]
        for function in (lambda weight: ops.weighted_softmax(scores, weight), plain)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("round_ratio", "apart"), [(0.1, True), (0.5, False)])
def test_only_a_large_round_merges_what_nothing_is_like(round_ratio, apart):
    """Five patches are like no other, and the rest are all alike. Ten can go without one of the five."""
    states = torch.zeros(1, 21, 12)
    states[0, 1:, 0] = 1
    places = torch.arange(2, 20, 4)  # on even places, where a round of a half merges every token
    states[0, places] = torch.eye(12)[2 : 2 + len(places)]
    pair = TokenPair(Tokens.initial(torch.zeros(1, 2, 12)), Tokens.initial(states))
    evidence = Evidence(None, pair.text.states, pair.image.states)
    part = {"method": "tome", "site": "inputs", "num_keep": 10, "round_ratio": round_ratio}
    after, trace = build_reducer(parse_method(part), 12)(0, pair, evidence)
    sizes = after.image.size[0].gather(0, trace.image_source[0, places])
    assert bool((sizes == 1).all()) == apart


@pytest.mark.parametrize("value", [0, 0.6, True])
def test_a_round_merges_at_most_a_half(value):
    with pytest.raises(ValueError, match="reduction.round_ratio"):
        parse_method({"method": "tome", "site": "inputs", "num_keep": 3, "round_ratio": value})


def test_only_the_site_inputs_has_rounds():
    with pytest.raises(ValueError, match="reduction.round_ratio=0.5"):
        parse_method({"method": "tome", "layers": [0], "merge_ratio": 0.1, "round_ratio": 0.5})
    assert "round_ratio" not in parse_method({"method": "tome", "layers": [0], "merge_ratio": 0.1}).to_dict()
