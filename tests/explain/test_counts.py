"""What each layer did, in numbers and in words."""

import pytest
import torch
from tiny import noise
from tiny_tasks import REDUCTION, tiny

from pumer_hf.explain.counts import LayerCounts, layer_counts, patches_sentence
from pumer_hf.explain.prediction import encode, run
from pumer_hf.reducers import parse_method

SCENE = noise()
TOME = {"method": "tome", "layers": [0, 2], "merge_ratio": 0.3}
SCHEDULES = {
    "pumer": REDUCTION,
    "release": REDUCTION,
    "tome": TOME,
    "random": {"method": "random", "layers": [0, 2], "prune_ratio": 0.4},
    "tower": [REDUCTION, {"method": "tome", "site": "tower", "merge_ratio": 0.3}],
    "inputs": [{"method": "tome", "site": "inputs", "merge_ratio": 0.6}, REDUCTION],
    "tome_tower": [TOME, {"method": "tome", "site": "tower", "merge_ratio": 0.3}],
}


PAIRS = [
    (backbone, name)
    for backbone in ("vilt", "meter")
    for name in SCHEDULES
    if backbone == "meter" or "tower" not in name
]


@pytest.mark.parametrize(("backbone", "schedule"), PAIRS)
def test_the_counts_are_those_of_the_reducer(backbone, schedule):
    fields, semantics = SCHEDULES[schedule], "release" if schedule == "release" else "paper"
    model, processor = tiny(backbone, reduction=None, semantics=semantics)
    model.set_reduction(fields)
    traces = run(model, encode(model, processor, SCENE, "what digit is red?")).reduction
    counts = layer_counts(traces)
    assert [(one.site, one.layer) for one in counts] == [(one.site, one.layer) for one in traces]
    before = [one for one in counts if one.site != "layers"]
    assert {one.site for one in before} == {"tower"} if "tower" in schedule else {"inputs"} if before else True
    assert all(one.removed == one.image_merged > 0 for one in before)
    counts, traces = counts[len(before) :], traces[len(before) :]
    assert [one.layer for one in counts] == [0, 2]
    for one, trace in zip(counts, traces, strict=True):
        lengths = model.base_model.reducer.output_lengths(one.layer, one.num_text, one.num_image)
        assert lengths == (trace.num_text, trace.num_image)
        assert one.num_text - one.text_merged == trace.num_text
        assert one.num_image - one.pruned - one.image_merged == trace.num_image
        matching = trace.image_matching
        assert one.image_merged == (0 if matching is None else matching.src.shape[1])
        assert one.removed == one.pruned + one.image_merged + one.text_merged
        if schedule == "pumer":
            assert one.pruned == round(parse_method(fields).ratio("prune_ratio", one.layer) * one.num_image)
        assert (one.pruned == 0) == schedule.startswith("tome")
    assert counts[0].num_text == 40
    assert (counts[0].num_image < 37) == bool(before)


CHOICE = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25, "rank": 8}


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
@pytest.mark.parametrize("merge_rest", [False, True])
def test_patches_that_leave_before_the_first_layer_are_pruned_or_merged(backbone, merge_rest):
    model, processor = tiny(backbone, reduction={**CHOICE, "merge_rest": merge_rest})
    (one,) = layer_counts(run(model, encode(model, processor, SCENE, "what digit is red?")).reduction)
    removed = 36 - 9
    assert (one.place, one.num_text, one.num_image, one.text_merged) == ("before the first layer", 40, 37, 0)
    assert (one.pruned, one.image_merged) == ((0, removed) if merge_rest else (removed, 0))


def test_the_counts_in_words():
    words = LayerCounts(layer=2, num_text=40, num_image=20, pruned=5, image_merged=6, text_merged=10).sentences()
    assert words == (
        "Of 20 image tokens, 5 (0.25) are pruned and 6 (0.30) merged into others; 9 are left. "
        "Of 40 text tokens, 10 (0.25) are merged into others; 30 are left."
    )


def test_padding_that_merges_is_told_from_words():
    some = LayerCounts(0, 40, 20, 0, 0, 10, padding_merged=7).sentences()
    assert some.endswith("10 (0.25), 7 of them padding, are merged into others; 30 are left.")
    every = LayerCounts(0, 40, 20, 0, 0, 10, padding_merged=10).sentences()
    assert every.endswith("10 (0.25), all of them padding, are merged into others; 30 are left.")
    model, processor = tiny("vilt", reduction={**SCHEDULES["pumer"], "text_merge_ratio": 0.4})
    inputs = encode(model, processor, SCENE, "red?")
    first, second = layer_counts(run(model, inputs).reduction)
    real = int(inputs["attention_mask"].sum())
    assert first.padding_merged == first.text_merged == 16 < 40 - real
    assert first.padding_merged + second.padding_merged <= 40 - real


def test_patches_in_words():
    tokens = torch.tensor([[0, 1, -1], [1, 2, 2]])
    assert patches_sentence(tokens) == "of 6 patches, 1 stays, 4 share 2 tokens, 1 is gone"
    tokens = torch.tensor([[-1, -1], [3, 3]])
    assert patches_sentence(tokens) == "of 4 patches, 2 share 1 token, 2 are gone"
