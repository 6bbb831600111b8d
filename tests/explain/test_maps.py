"""Maps of patches and words, against the decisions in the trace and against examples worked out by hand."""

import pytest
import torch
from tiny_models import FAMILIES, REAL_TEXT

from pumer_hf.explain import merged_words, patch_index, real_patches, token_map
from pumer_hf.tokens import LayerTrace

GRID = (4, 4)


def schedule(**ratios):
    zero = {"prune_ratio": 0.0, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0}
    return {"method": "pumer", "layers": [1], **zero, **ratios}


def trace_of(family, **ratios):
    model, inputs = FAMILIES[family].model(schedule(**ratios)), FAMILIES[family].inputs()
    with torch.no_grad():
        return model, inputs, model(**inputs).reduction[0]


def by_hand():
    """[CLS] and 2 x 3 patches: 1 and 5 merged, 3 pruned; text: words 1 and 3 merged, 4 is padding."""
    return LayerTrace(
        layer=2,
        num_text=3,
        num_image=5,
        text_source=torch.tensor([[0, 1, 2, 1, -1]]),
        image_source=torch.tensor([[0, 2, 1, 3, -1, 4, 1]]),
    )


def test_a_map_by_hand():
    assert token_map(by_hand(), (2, 3)).tolist() == [[2, 1, 3], [-1, 4, 1]]
    assert token_map(by_hand(), (1, 6)).tolist() == [[2, 1, 3, -1, 4, 1]]


def test_patches_that_the_model_never_saw_are_in_no_token():
    tokens = token_map(by_hand(), (2, 4), patches=[0, 1, 2, 4, 6, 7])
    assert tokens.tolist() == [[2, 1, 3, -1], [-1, -1, 4, 1]]


def test_words_by_hand():
    assert merged_words(by_hand(), ["[CLS]", "how", "many", "?", "[PAD]"]) == [["[CLS]"], ["how", "?"], ["many"]]


def test_a_wrong_grid_or_text_is_an_error():
    with pytest.raises(ValueError, match=r"grid=\(3, 3\): .*layer 2 .*6 patches, not 9"):
        token_map(by_hand(), (3, 3))
    with pytest.raises(ValueError, match="5 text tokens"):
        merged_words(by_hand(), ["[CLS]"])


@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_patches_are_those_that_were_not_kept(family):
    _, _, trace = trace_of(family, prune_ratio=0.4)
    tokens = token_map(trace, GRID).flatten().tolist()
    kept = set(trace.keep[0].tolist())
    assert len(kept) == 10
    assert [token >= 0 for token in tokens] == [1 + patch in kept for patch in range(16)]
    assert len(set(tokens) - {-1}) == 9


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_patches_are_those_that_were_matched(family):
    _, _, trace = trace_of(family, image_merge_ratio=0.3)
    tokens = token_map(trace, GRID).flatten()
    keep, matching = trace.keep[0], trace.image_matching
    pairs = zip(keep[2 * matching.src[0]].tolist(), keep[2 * matching.dst[0] + 1].tolist(), strict=True)
    groups = [{1 + patch} for patch in range(16)] + [{0}]
    for a, b in pairs:
        first, second = (next(group for group in groups if token in group) for token in (a, b))
        groups.remove(first)
        second |= first
    assert len(groups) == 12
    expected = {frozenset(group) - {0} for group in groups} - {frozenset()}
    found = {frozenset((1 + (tokens == token).nonzero().flatten()).tolist()) for token in tokens.unique()}
    assert found == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_words_are_those_that_were_matched(family):
    _, inputs, trace = trace_of(family, text_merge_ratio=0.3)
    words = [str(place) for place in range(inputs["input_ids"].shape[1])]
    groups = merged_words(trace, words)
    matching = trace.text_matching
    for src, dst in zip((2 * matching.src[0]).tolist(), (2 * matching.dst[0] + 1).tolist(), strict=True):
        assert any({str(src), str(dst)} <= set(group) for group in groups)
    assert sorted(word for group in groups for word in group) == words
    assert groups[0] == ["0"]
    shortest = merged_words(trace, words, example=2)
    assert sorted(word for group in shortest for word in group) == words[: REAL_TEXT[2]]


def test_padding_is_in_no_token():
    model, inputs, trace = trace_of("vilt", prune_ratio=0.2)
    real = real_patches(model.config, inputs["pixel_values"][1], inputs["pixel_mask"][1])
    assert real.tolist() == [[True] * 4] * 3 + [[False] * 4]
    tokens = token_map(trace, GRID, example=1)
    assert (tokens[~real] == -1).all()
    assert (tokens[real] >= 0).all()  # padding is pruned first


def test_a_sample_of_the_patches_is_placed_where_it_is_from():
    model = FAMILIES["vilt"].model(schedule(prune_ratio=0.2), max_image_length=5)
    inputs = FAMILIES["vilt"].inputs()
    with torch.no_grad():
        trace = model(**inputs).reduction[0]
    real = real_patches(model.config, inputs["pixel_values"][1], inputs["pixel_mask"][1])
    index = patch_index(model.config, real)
    assert index.tolist() == [0, 2, 4, 7, 9]  # an even sample of 12
    tokens = token_map(trace, GRID, example=1, patches=index).flatten()
    assert (tokens >= 0).nonzero().flatten().tolist() == sorted(
        index[position - 1].item() for position in trace.keep[1].tolist() if position
    )
