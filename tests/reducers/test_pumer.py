"""Token counts of the algorithm (DESIGN, Section 3), and one reduction step by hand."""

import pytest
import torch

from pumer_hf import preset
from pumer_hf.reducers import build_reducer, parse_method
from pumer_hf.reducers.pumer import PuMerReducer, PuMerReductionConfig
from pumer_hf.tokens import Evidence, TokenPair, Tokens


def lengths_after_each_layer(reduction, num_text, num_image):
    reducer = build_reducer(parse_method(reduction), 8)
    lengths = []
    for layer in reduction["layers"]:
        num_text, num_image = reducer.output_lengths(layer, num_text, num_image)
        lengths.append((num_text, num_image))
    return lengths


@pytest.mark.parametrize(
    ("backbone", "task", "num_image", "expected"),
    [
        ("vilt", "vqav2", 145, [(26, 87), (21, 52), (17, 31)]),
        ("vilt", "nlvr2", 145, [(26, 87), (21, 52), (17, 31)]),
        ("vilt", "snli_ve", 145, [(26, 87), (21, 52), (17, 31), (14, 19)]),
        ("meter", "vqav2", 577, [(26, 347), (21, 209), (17, 125), (14, 75)]),
        ("meter", "snli_ve", 577, [(26, 203), (21, 72), (17, 26), (14, 10)]),
        ("meter", "nlvr2", 325, [(26, 114), (21, 41), (17, 15)]),
    ],
)
def test_token_counts_of_the_presets(backbone, task, num_image, expected):
    assert lengths_after_each_layer(preset(backbone, task), 32, num_image) == expected


@pytest.mark.parametrize(
    ("num_image", "prune_ratio", "merge_ratio", "expected"),
    [
        (29, 0.5, 0.0, (15, 0)),  # round(14.5) is 14: half to even
        (87, 0.5, 0.0, (43, 0)),  # round(43.5) is 44
        (577, 0.3, 0.5, (404, 201)),  # 288 merges are asked for, (404 - 1) // 2 is all there can be
        (145, 0.1, 0.3, (131, 44)),  # 44 = round(0.3 * 145), of the length before pruning
        (2, 0.99, 0.99, (1, 0)),  # the [CLS] always stays
        (1, 0.99, 0.99, (1, 0)),
    ],
)
def test_counts(num_image, prune_ratio, merge_ratio, expected):
    reducer = PuMerReducer(PuMerReductionConfig((0,), prune_ratio, merge_ratio, 0.0), 8)
    assert reducer.counts(0, 8, num_image) == (*expected, 0)


def test_each_layer_has_its_own_ratios():
    reducer = PuMerReducer(PuMerReductionConfig((1, 3), (0.1, 0.5), (0.2, 0.3), (0.2, 0.4)), 8)
    assert reducer.output_lengths(1, 10, 20) == (8, 18 - 4)
    assert reducer.output_lengths(3, 10, 20) == (6, 10 - 4)  # 6 merges are asked for, (10 - 1) // 2 can be


def test_a_reducer_goes_on_with_any_schedule_of_its_method():
    reducer = PuMerReducer(PuMerReductionConfig((1, 3), 0.1, 0.2, 0.2), 8)
    assert reducer.accepts(PuMerReductionConfig((0,), 0.3, 0.0, 0.1))
    assert not reducer.accepts(parse_method({"method": "tome", "layers": [1, 3], "merge_ratio": 0.1}))


def test_one_step_by_hand():
    # Image tokens: [CLS] and patches 0 to 5. Saliency says 5 > 1 > 3 > 0 > 4 > 2; patch 2 and 4 go.
    saliency = torch.tensor([0.0, 0.4, 0.8, 0.1, 0.6, 0.2, 0.9])
    attention = saliency.expand(1, 1, 4, -1)
    # kept: [CLS], 5, 1, 3, 0. Even: [CLS], 1, 0; odd: 5, 3. Keys make 0 and 5 the most alike.
    keys = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [1, 1], [-1, 0.2], [1, 1], [1, 0]]).unsqueeze(0)
    image = Tokens.initial(10 * torch.arange(7.0).view(1, 7, 1), torch.ones(1, 7, dtype=torch.bool))
    # Text: [CLS], two words, one padding token. The padding leaves first.
    text = Tokens.initial(torch.tensor([[[1.0], [2], [4], [9]]]), torch.tensor([[True, True, True, False]]))
    text_keys = torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 1]]).unsqueeze(0)
    reducer = PuMerReducer(PuMerReductionConfig((2,), 0.3, 0.15, 0.25), 8)

    pair, trace = reducer(2, TokenPair(text, image), Evidence(attention, text_keys, keys))

    assert trace.keep.tolist() == [[0, 6, 2, 4, 1]]
    assert (trace.num_image, trace.num_text) == (4, 3)
    # [CLS], patch 1, then the odd half: patch 5 merged with patch 0, patch 3
    assert pair.image.states.flatten().tolist() == [0.0, 20.0, (60 + 10) / 2, 40.0]
    assert trace.image_source.tolist() == [[0, 2, 1, -1, 3, -1, 2]]
    torch.testing.assert_close(trace.saliency[0], saliency)
    # word 2 (even, the only one without protection) merges into word 1; the odd padding token remains
    assert pair.text.states.flatten().tolist() == [1.0, 3.0, 9.0]
    assert pair.text.mask.tolist() == [[True, True, False]]
    assert trace.text_source.tolist() == [[0, 1, 1, -1]]
    assert trace.layer == 2
    # as indices of the halves of the kept tokens: 0 is the second of the even ones, and 5 the first of the odd ones
    image, words = trace.image_matching, trace.text_matching
    assert (image.src.tolist(), image.dst.tolist(), image.unm.tolist()) == ([[2]], [[0]], [[0, 1]])
    assert (words.src.tolist(), words.dst.tolist(), words.unm.tolist()) == ([[1]], [[0]], [[0]])


@pytest.mark.parametrize(("dtype", "kept"), [(torch.float32, [0, 3, 2]), (torch.bfloat16, [0, 1, 2])])
def test_saliencies_tie_that_differ_by_less_than_the_precision_of_what_they_come_from(dtype, kept):
    saliency = torch.tensor([0.25, 0.25, 0.25 * (1 + 1e-4), 0.25 * (1 + 2e-4)])
    tokens = Tokens.initial(torch.randn(1, 4, 2), torch.ones(1, 4, dtype=torch.bool))
    evidence = Evidence(saliency.expand(1, 1, 4, -1), tokens.states, tokens.states, dtype)
    _, trace = PuMerReducer(PuMerReductionConfig((0,), 0.25, 0.0, 0.0), 2)(0, TokenPair(tokens, tokens), evidence)
    assert trace.keep.tolist() == [kept]
    assert trace.saliency.dtype == torch.float32


@pytest.mark.parametrize(("heads", "expected"), [("mean_head", [0.3, 0.6, 0.3]), ("first_head", [0.2, 0.1, 0.9])])
def test_saliency_is_of_all_heads_or_of_the_first(heads, expected):
    of_heads = torch.tensor([[0.2, 0.1, 0.9], [0.3, 0.8, 0.0], [0.4, 0.9, 0.0]])
    attention = of_heads.view(1, 3, 1, 3).expand(-1, -1, 2, -1)
    tokens = [Tokens.initial(torch.zeros(1, length, 2), torch.ones(1, length, dtype=torch.bool)) for length in (2, 3)]
    config = PuMerReductionConfig((0,), 0.3, 0.0, 0.0, saliency=heads)
    evidence = Evidence(attention, *(one.states for one in tokens))
    _, trace = PuMerReducer(config, 2)(0, TokenPair(*tokens), evidence)
    torch.testing.assert_close(trace.saliency, torch.tensor([expected]))
    assert trace.keep.tolist() == [[0, 1 if heads == "mean_head" else 2]]


def test_image_padding_leaves_first_wherever_it_was():
    # [CLS] and patches 0 to 5. In the first image patch 1 is padding, and pruned; in the second patches 1 to 3 are,
    # of which two stay. Kept are then [CLS], 0, 2, 3, 4, 5, and [CLS], 0, 4, 5 and the padding 1, 2.
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, 2] = mask[1, 2:5] = False
    saliency = torch.tensor([0.0, 0.9, 1.0, 0.8, 0.7, 0.6, 0.5]).expand(2, 1, 1, -1)
    # In the first image patch 4 is most like patch 5; in the second patch 4 is like patch 0, but padding leaves first.
    keys = torch.eye(7)[torch.tensor([[0, 1, 2, 3, 4, 5, 5], [0, 1, 2, 2, 2, 1, 3]])]
    image = Tokens.initial(torch.arange(7.0).view(1, 7, 1).expand(2, -1, -1), mask)
    text = Tokens.initial(torch.zeros(2, 1, 1), torch.ones(2, 1, dtype=torch.bool))
    reducer = PuMerReducer(PuMerReductionConfig((0,), 0.15, 0.15, 0.0), 1)

    pair, trace = reducer(0, TokenPair(text, image), Evidence(saliency, torch.zeros(2, 1, 7), keys))

    assert trace.keep.tolist() == [[0, 1, 3, 4, 5, 6], [0, 1, 5, 6, 2, 3]]
    assert trace.image_source.tolist() == [[0, 2, -1, 1, 3, 4, 4], [0, 2, -1, -1, -1, 1, 3]]
    assert pair.image.states[0].flatten().tolist() == [0.0, 3.0, 1.0, 4.0, 5.5]
    assert pair.image.mask.tolist() == [[True] * 5, [True, True, True, True, False]]
