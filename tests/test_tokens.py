import dataclasses

import pytest
import torch
from torch.utils import _pytree

from pumer_hf import ops
from pumer_hf.tokens import Evidence, KeyMask, LayerTrace, Matching, TokenPair, Tokens


def example_tokens():
    states = torch.arange(1.0, 7.0).view(1, 6, 1)
    return Tokens.initial(states, torch.tensor([[True, True, True, True, True, False]]))


def test_initial_tokens_hold_themselves_and_padding_holds_nothing():
    tokens = example_tokens()
    assert tokens.source.tolist() == [[0, 1, 2, 3, 4, -1]]
    assert tokens.size.tolist() == [[1, 1, 1, 1, 1, 0]]


def test_source_and_size_follow_two_reductions():
    tokens = example_tokens()
    once = tokens.move(torch.tensor([[0, 1, 1, -1, 2, 3]]), 4)  # 1 and 2 merge, 3 is dropped
    assert once.states.flatten().tolist() == [1.0, 2.5, 5.0, 6.0]
    assert once.mask.tolist() == [[True, True, True, False]]
    assert once.source.tolist() == [[0, 1, 1, -1, 2, -1]]
    assert once.size.tolist() == [[1, 2, 1, 0]]
    twice = once.move(torch.tensor([[0, 1, 1, 1]]), 2)
    # a plain mean of this layer's tokens, whatever they hold, and without the padding (PuMer does not track sizes)
    assert twice.states.flatten().tolist() == [1.0, 3.75]
    assert twice.source.tolist() == [[0, 1, 1, -1, 1, -1]]
    assert twice.size.tolist() == [[1, 3]]


def test_states_keep_their_dtype():
    tokens = example_tokens()
    half = dataclasses.replace(tokens, states=tokens.states.bfloat16())
    assert half.move(torch.tensor([[0, 1, 1, 2, 2, 2]]), 3).states.dtype == torch.bfloat16


def test_a_pair_is_cut_where_the_text_ends():
    pair = TokenPair(example_tokens(), Tokens.initial(torch.zeros(1, 3, 1), torch.ones(1, 3, dtype=torch.bool)))
    assert pair.joined().shape == (1, 9, 1)
    assert pair.joined_mask().sum() == 8
    other = pair.with_states(torch.arange(9.0).view(1, 9, 1))
    assert other.text.states.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert other.image.states.flatten().tolist() == [6, 7, 8]
    assert other.text.source is pair.text.source


def test_without_a_mask_all_are_real_and_attention_needs_none():
    tokens = Tokens.initial(torch.zeros(2, 3, 1))
    assert tokens.mask.all()
    assert tokens.source.tolist() == [[0, 1, 2]] * 2
    assert tokens.key_mask() == TokenPair(tokens, tokens).key_mask() == KeyMask(None, None)
    assert tokens.attention_weight.tolist() == [[1.0, 1.0, 1.0]] * 2


def test_attention_is_told_of_padding_unless_a_weight_says_it():
    padded, whole = example_tokens(), Tokens.initial(torch.zeros(1, 2, 1))
    assert torch.equal(padded.key_mask().real, padded.mask[:, None, None])
    real, weight = TokenPair(padded, whole).key_mask()
    assert real.flatten().tolist() == [True] * 5 + [False] + [True] * 2
    assert weight is None
    weighed = dataclasses.replace(whole, weight=torch.tensor([[3.0, 0.5]]))
    assert weighed.key_mask().real is None
    assert weighed.key_mask().weight.flatten().tolist() == [3.0, 0.5]
    real, weight = TokenPair(padded, weighed).key_mask()
    assert real is None
    assert weight.flatten().tolist() == [1.0] * 5 + [0.0, 3.0, 0.5]


def test_weights_weigh_the_mean_and_add_up():
    weight = torch.tensor([[1.0, 3.0, 1.0, 0.0, 2.0, 0.0]])
    tokens = dataclasses.replace(example_tokens(), mask=weight > 0, weight=weight)
    moved = tokens.move(torch.tensor([[0, 1, 1, 2, -1, 2]]), 3)
    assert moved.states.flatten().tolist() == [1.0, 2.25, 5.0]
    assert moved.weight.tolist() == [[1.0, 4.0, 0.0]]
    assert moved.mask.tolist() == [[True, True, False]]


def test_a_pair_without_states_keeps_all_else():
    pair = TokenPair(example_tokens(), Tokens.initial(torch.zeros(1, 3, 1)))
    bare = pair.without_states()
    assert (bare.text.states.shape, bare.image.states.shape) == ((1, 6, 0), (1, 3, 0))
    assert bare.text.mask is pair.text.mask
    assert bare.image.source is pair.image.source
    again = bare.with_states(pair.joined())
    assert torch.equal(again.text.states, pair.text.states)


def test_tokens_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        example_tokens().mask = None


def test_a_trace_is_a_pytree_of_its_tensors():
    tokens = example_tokens()
    matching = Matching(*ops.bipartite_soft_matching(tokens.states, tokens.mask, 1))
    trace = LayerTrace(0, 5, 6, tokens.source, tokens.source, image_matching=matching)
    moved = _pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.clone(), trace)
    assert isinstance(moved, LayerTrace)
    assert torch.equal(moved.image_matching.src, matching.src)
    assert moved.num_image == 6


def test_an_exported_program_with_traces_can_be_written_to_a_file():
    tokens = example_tokens()
    trace = LayerTrace(0, 5, 6, tokens.source, tokens.source)
    for value in (trace, TokenPair(tokens, tokens), Evidence(None, tokens.states, tokens.states)):
        structure = _pytree.tree_structure(value)
        assert _pytree.treespec_loads(_pytree.treespec_dumps(structure)) == structure
