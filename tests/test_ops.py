"""`ops` against slow loops that follow the text of DESIGN's algorithm, one example and one token at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pumer_hf import ops


@st.composite
def batches(draw, min_length=1):
    """Batch size, length, width, seed."""
    return (
        draw(st.integers(1, 4)),
        draw(st.integers(min_length, 14)),
        draw(st.integers(1, 5)),
        draw(st.integers(0, 2**31)),
    )


def random_mask(batch, length, generator):
    """The first token is real, the rest at random: padding may be anywhere."""
    mask = torch.rand(batch, length, generator=generator) < 0.7
    mask[:, 0] = True
    return mask


def slow_saliency(attention, mask):
    num_heads, num_text, num_image = attention.shape
    real = [t for t in range(num_text) if mask[t]]
    return [
        sum(attention[h, t, v].item() for h in range(num_heads) for t in real) / (num_heads * len(real))
        for v in range(num_image)
    ]


def slow_keep(saliency, mask, num_keep, num_prefix):
    rest = range(num_prefix, len(saliency))
    ranked = sorted(rest, key=lambda v: (not mask[v], -saliency[v] if mask[v] else 0.0, v))
    return [*range(num_prefix), *ranked[: num_keep - num_prefix]]


def slow_matching(metric, mask, num_merge):
    """(even token, odd token) of each merge, by position in the whole sequence, best first."""

    def cosine(a, b):
        norms = metric[a].norm() * metric[b].norm()
        return (metric[a] @ metric[b] / norms).item() if norms > 0 else 0.0

    length = len(metric)
    pairs = []
    for even in range(2, length, 2):
        odd_real = [odd for odd in range(1, length, 2) if mask[odd]]
        partner = max(odd_real, key=lambda odd: (cosine(even, odd), -odd), default=1)  # among padding, any is as good
        if not mask[even]:
            score = math.inf
        elif not mask[partner]:
            score = -math.inf
        else:
            score = cosine(even, partner)
        pairs.append((score, even, partner))
    pairs.sort(key=lambda pair: (-pair[0], pair[1]))
    return [(even, partner) for _, even, partner in pairs[:num_merge]]


def slow_positions(merges, length):
    """Where each token goes: unmerged even ones in order, then all odd ones, merged ones to their partner."""
    if not merges:
        return list(range(length))
    merged = dict(merges)
    order = [even for even in range(0, length, 2) if even not in merged] + list(range(1, length, 2))
    place = {token: index for index, token in enumerate(order)}
    return [place[merged.get(token, token)] for token in range(length)]


@settings(deadline=None)
@given(batches(), st.integers(1, 3), st.integers(1, 6))
def test_saliency_equals_the_loop(shape, num_heads, num_image):
    batch, num_text, _, seed = shape
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(batch, num_heads, num_text, num_image, generator=generator, dtype=torch.float64)
    mask = random_mask(batch, num_text, generator)
    expected = [slow_saliency(attention[b], mask[b]) for b in range(batch)]
    torch.testing.assert_close(ops.saliency_from_text(attention, mask), torch.tensor(expected, dtype=torch.float64))


@settings(deadline=None)
@given(batches(), st.data())
def test_keep_equals_the_loop(shape, data):
    batch, length, _, seed = shape
    generator = torch.Generator().manual_seed(seed)
    saliency = torch.randint(0, 4, (batch, length), generator=generator).float()  # ties are likely
    mask = random_mask(batch, length, generator)
    num_prefix = data.draw(st.integers(0, length))
    num_keep = data.draw(st.integers(num_prefix, length))
    expected = [slow_keep(saliency[b], mask[b], num_keep, num_prefix) for b in range(batch)]
    assert ops.keep_salient(saliency, mask, num_keep, num_prefix).tolist() == expected


@settings(deadline=None)
@given(batches(), st.data())
def test_matching_equals_the_loop(shape, data):
    batch, length, width, seed = shape
    generator = torch.Generator().manual_seed(seed)
    metric = torch.randn(batch, length, width + 1, generator=generator)
    mask = random_mask(batch, length, generator)
    num_merge = data.draw(st.integers(0, ops.max_merges(length)))
    src, dst, unm = ops.bipartite_soft_matching(metric, mask, num_merge)
    positions = ops.merge_positions(src, dst, unm, length)
    for b in range(batch):
        merges = list(zip((2 * src[b]).tolist(), (2 * dst[b] + 1).tolist(), strict=True))
        expected = slow_matching(metric[b].double(), mask[b], num_merge)
        assert [even for even, _ in merges] == [even for even, _ in expected]
        # a padding token may go anywhere: it has no weight
        assert [merge for merge in merges if mask[b, merge[0]]] == [pair for pair in expected if mask[b, pair[0]]]
        assert positions[b].tolist() == slow_positions(merges, length)
        assert sorted(unm[b].tolist() + src[b].tolist()) == list(range((length + 1) // 2))


@settings(deadline=None)
@given(batches(), st.data())
def test_groups_are_plain_means_of_their_real_tokens(shape, data):
    batch, length, width, seed = shape
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(batch, length, width, generator=generator)
    mask = random_mask(batch, length, generator)
    num_groups = data.draw(st.integers(1, length))
    # every group gets a token, the other tokens go anywhere or nowhere
    positions = torch.randint(-1, num_groups, (batch, length), generator=generator)
    positions[:, :num_groups] = torch.arange(num_groups)
    positions = positions.gather(1, torch.rand(batch, length, generator=generator).argsort(dim=1))
    weights = ops.group_weights(positions, mask.float(), num_groups)
    merged = ops.merge_groups(states, weights, positions, num_groups)
    sizes = ops.group_sizes(positions.masked_fill(~mask, -1), num_groups)
    for b in range(batch):
        for group in range(num_groups):
            members = [i for i in range(length) if positions[b, i] == group]
            real = [i for i in members if mask[b, i]]
            torch.testing.assert_close(merged[b, group], states[b, real or members].mean(dim=0))
            assert sizes[b, group] == len(real)


def test_weights_of_a_group_sum_to_1_and_outside_of_all_are_0():
    positions = torch.tensor([[0, 1, 1, -1, 2, 2, -1], [2, 0, -1, 1, 0, 1, 0]])
    mask = torch.tensor([[2.0, 1.0, 3.0, 5.0, 0.0, 0.0, 0.0], [4.0, 0.0, 1.0, 0.5, 2.0, 1.5, 2.0]])
    weights = ops.group_weights(positions, mask, 3)
    assert weights.tolist() == [[1.0, 0.25, 0.75, 0.0, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.25, 0.5, 0.75, 0.5]]
    plain = ops.group_weights(positions, (mask > 0).float(), 3)
    assert plain.tolist() == [[1.0, 0.5, 0.5, 0.0, 0.5, 0.5, 0.0], [1.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5]]
    assert weights.dtype == plain.dtype == torch.float32


def test_merging_and_its_gradients_are_those_of_a_dense_product():
    generator = torch.Generator().manual_seed(0)
    positions = torch.tensor([[2, -1, 0, 2, 1, 0, 2], [-1, 1, 1, 0, -1, 2, -1]])
    states = torch.randn(2, 7, 3, generator=generator).double().requires_grad_()
    mask = torch.rand(2, 7, generator=generator).requires_grad_()
    weights = ops.group_weights(positions, mask, 3)
    merged = ops.merge_groups(states, weights, positions, 3)
    dense = (positions.unsqueeze(1) == torch.arange(3).unsqueeze(1)) * weights.unsqueeze(1)
    expected = dense.double() @ states
    torch.testing.assert_close(merged, expected)
    factor = torch.randn(merged.shape, generator=generator).double()
    found, wanted = (
        torch.autograd.grad((sums * factor).sum(), (states, mask), retain_graph=True) for sums in (merged, expected)
    )
    torch.testing.assert_close(found, wanted)
    assert all(gradient.abs().sum() > 0 for gradient in found)


@settings(deadline=None)
@given(batches(), st.data())
def test_positions_compose(shape, data):
    batch, length, _, seed = shape
    generator = torch.Generator().manual_seed(seed)
    saliency = torch.rand(batch, length, generator=generator)
    num_keep = data.draw(st.integers(1, length))
    keep = ops.keep_salient(saliency, torch.ones(batch, length, dtype=torch.bool), num_keep)
    first = ops.keep_positions(keep, length)
    then = torch.randint(-1, 5, (batch, num_keep), generator=generator)
    both = ops.follow(first, then)
    for b in range(batch):
        survivors = keep[b].tolist()
        assert first[b].tolist() == [survivors.index(v) if v in survivors else -1 for v in range(length)]
        assert both[b].tolist() == [then[b, survivors.index(v)] if v in survivors else -1 for v in range(length)]


@pytest.mark.parametrize(("length", "expected"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (577, 288), (404, 201)])
def test_token_0_leaves_the_even_half_one_merge_short(length, expected):
    assert ops.max_merges(length) == expected
    even_without_0 = len(range(2, length, 2))
    assert even_without_0 == expected


def test_matching_is_the_same_in_half_precision_inputs_of_equal_value():
    metric = torch.randn(2, 9, 4).bfloat16()
    mask = torch.ones(2, 9, dtype=torch.bool)
    for half, full in zip(
        ops.bipartite_soft_matching(metric, mask, 3),
        ops.bipartite_soft_matching(metric.float(), mask, 3),
        strict=True,
    ):
        assert torch.equal(half, full)


LONG = 201
"""Tokens enough for a sort that is not stable to change the order of equal ones."""


def long_mask():
    return random_mask(2, LONG, torch.Generator().manual_seed(0))


def test_equal_saliencies_keep_their_order():
    saliency = torch.randint(0, 3, (2, LONG), generator=torch.Generator().manual_seed(1)).float()
    found = ops.keep_salient(saliency, long_mask(), 150)
    assert found.tolist() == [slow_keep(*example, 150, 1) for example in zip(saliency, long_mask(), strict=True)]


def test_equal_similarities_merge_in_order_after_the_padding():
    kinds = torch.randint(0, 3, (2, LONG), generator=torch.Generator().manual_seed(1))
    metric = torch.nn.functional.one_hot(kinds).float()  # each token has partners like itself
    src, _, unm = ops.bipartite_soft_matching(metric, long_mask(), 60)
    for mask, merged, rest in zip(long_mask(), src.tolist(), unm.tolist(), strict=True):
        even = range(1, LONG // 2 + 1)
        ordered = [i for i in even if not mask[2 * i]] + [i for i in even if mask[2 * i]]
        assert merged == ordered[:60]
        assert rest == [0, *sorted(ordered[60:])]


def test_the_other_tokens_of_the_groups_keep_their_order():
    positions = torch.randint(-1, 3, (2, LONG), generator=torch.Generator().manual_seed(1))
    first, rest = ops.split_groups(positions, 3)
    for of_token, firsts, others in zip(positions.tolist(), first.tolist(), rest.tolist(), strict=True):
        assert firsts == [of_token.index(group) for group in range(3)]
        assert others == [token for token in range(LONG) if token not in firsts]
