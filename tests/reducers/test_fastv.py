"""FastV, which prunes by the attention of the last text token, and PyramidDrop, which does so in several layers."""

from dataclasses import replace

import pytest
import torch
from tiny_models import FAMILIES

from pumer_hf.ops import saliency_from_token
from pumer_hf.reducers import build_reducer, parse_method
from pumer_hf.tokens import Evidence, Matching, TokenPair, Tokens

FASTV = {"method": "fastv", "layers": [1]}
PYRAMID = {"method": "pyramid", "layers": [1, 3]}
NUM_REAL = (6, 4, 1)
"""Real text tokens of each example in `pair_and_evidence`."""


def pair_and_evidence(num_image=9, seed=0, dtype=torch.float32):
    """Three examples of six text tokens, the last ones of each padding, and their attention in four heads."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(6) < torch.tensor(NUM_REAL).unsqueeze(1)
    text = Tokens.initial(torch.randn(3, 6, 8, generator=generator), mask)
    image = Tokens.initial(torch.randn(3, num_image, 8, generator=generator))
    attention = torch.rand(3, 4, 6, num_image, generator=generator)
    return TokenPair(text, image), Evidence(attention, text.states, image.states, dtype)


def reduced(schedule, pair, evidence, layer=1):
    return build_reducer(parse_method(schedule), 8).eval()(layer, pair, evidence)


def test_the_saliency_of_a_token_is_what_it_attends_to_in_the_mean_of_the_heads():
    attention = pair_and_evidence()[1].text_to_image
    token = torch.tensor([5, 3, 0])
    saliency = saliency_from_token(attention, token)
    for example in range(3):
        for place in range(9):
            heads = [attention[example, head, token[example], place].item() for head in range(4)]
            assert saliency[example, place].item() == pytest.approx(sum(heads) / 4, abs=1e-6)


@pytest.mark.parametrize("schedule", [FASTV, PYRAMID], ids=["fastv", "pyramid"])
def test_the_last_real_word_chooses(schedule):
    pair, evidence = pair_and_evidence()
    _, trace = reduced(schedule, pair, evidence)
    assert trace.keep.shape == (3, 5)
    for example, num_real in enumerate(NUM_REAL):
        attention = evidence.text_to_image[example, :, num_real - 1].mean(dim=0)[1:]
        best = sorted(range(8), key=lambda patch: -attention[patch].item())[:4]
        assert trace.keep[example].tolist() == [0, *(1 + patch for patch in best)]


@pytest.mark.parametrize("schedule", [FASTV, PYRAMID], ids=["fastv", "pyramid"])
def test_no_other_word_has_a_say(schedule):
    pair, evidence = pair_and_evidence()
    expected = reduced(schedule, pair, evidence)[1].keep
    others = torch.ones(3, 1, 6, 1, dtype=torch.bool)
    for example, num_real in enumerate(NUM_REAL):
        others[example, :, num_real - 1] = False
    drawn = torch.rand(evidence.text_to_image.shape, generator=torch.Generator().manual_seed(1))
    changed = replace(evidence, text_to_image=torch.where(others, drawn, evidence.text_to_image))
    assert torch.equal(reduced(schedule, pair, changed)[1].keep, expected)


def test_a_text_that_is_padded_on_the_left_ends_with_the_same_word():
    pair, evidence = pair_and_evidence()
    mask = pair.text.mask.flip(1)
    left = TokenPair(Tokens.initial(pair.text.states, mask), pair.image)
    saliency = reduced(FASTV, left, evidence)[1].saliency
    torch.testing.assert_close(saliency, evidence.text_to_image[:, :, 5].mean(dim=1))


def test_a_last_word_that_another_layer_has_moved_is_found():
    pair, evidence = pair_and_evidence()
    # tokens 2 and 4 merge into 1 and 5; the others are 0, 1, 3, 5 now
    matching = Matching(*(torch.tensor([places] * 3) for places in ([1, 2], [0, 2], [0])))
    text = pair.text.move(matching.positions(6), 4)
    attention = torch.rand(3, 4, 4, 9, generator=torch.Generator().manual_seed(2))
    _, trace = reduced(FASTV, TokenPair(text, pair.image), replace(evidence, text_to_image=attention))
    for example, row in enumerate((3, 2, 0)):
        torch.testing.assert_close(trace.saliency[example], attention[example, :, row].mean(dim=0))


def test_half_precision_rounds_the_saliency_once():
    pair, evidence = pair_and_evidence(dtype=torch.bfloat16)
    nearly = 0.5 + 1e-5 * torch.arange(9.0).expand(3, 4, 6, 9)  # rises, but by less than bfloat16 can tell
    _, trace = reduced(FASTV, pair, replace(evidence, text_to_image=nearly))
    assert trace.keep.tolist() == [[0, 1, 2, 3, 4]] * 3
    _, exact = reduced(FASTV, pair, replace(evidence, text_to_image=nearly, dtype=torch.float32))
    assert exact.keep.tolist() == [[0, 8, 7, 6, 5]] * 3


def test_half_of_the_image_goes_at_each_stage_unless_told():
    fastv, pyramid = (build_reducer(parse_method(schedule), 8) for schedule in (FASTV, PYRAMID))
    assert fastv.output_lengths(1, 7, 577) == (7, 289)
    assert pyramid.output_lengths(1, 7, 577) == (7, 289)
    assert pyramid.output_lengths(3, 7, 289) == (7, 145)
    other = build_reducer(parse_method({**PYRAMID, "prune_ratio": [0.25, 0.75]}), 8)
    assert [other.output_lengths(layer, 7, 100) for layer in (1, 3)] == [(7, 75), (7, 25)]


def test_the_default_is_saved_and_scaled():
    config = parse_method(PYRAMID)
    assert config.to_dict() == {**PYRAMID, "prune_ratio": 0.5}
    assert config.scaled(0.5).to_dict() == {**PYRAMID, "prune_ratio": 0.25}


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({**FASTV, "layers": [1, 3]}, r"reduction.layers=\[1, 3\]: .*'fastv' .*one layer.*'pyramid'"),
        ({**FASTV, "layers": []}, r"reduction.layers=\[\]: "),
        ({**FASTV, "prune_ratio": 1.0}, r"reduction.prune_ratio=1.0: .*\[0, 1\)"),
        ({**FASTV, "prune_ratio": None}, "reduction.prune_ratio=None: "),
        ({"method": "fastv", "site": "inputs", "prune_ratio": 0.5}, "reduction.site='inputs': .*'fastv' .*'layers'"),
        ({**PYRAMID, "prune_ratio": [0.5]}, "reduction.prune_ratio has 1 values for 2 layers"),
        ({"method": "pyramid", "site": "inputs"}, "reduction.site='inputs': .*'pyramid' .*'layers'"),
    ],
)
def test_a_bad_value_is_named(schedule, message):
    with pytest.raises(ValueError, match=message):
        parse_method(schedule)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_in_the_encoders_the_separator_chooses(family):
    model, inputs = family.model(FASTV), family.inputs()
    trace = model(**inputs).reduction[0]
    watched = family.model({"method": "pumer", "layers": [1], "prune_ratio": 0.5, "image_merge_ratio": 0.0})
    watched.load_state_dict(model.state_dict())
    last = inputs["attention_mask"].sum(dim=1) - 1
    seen = []
    reducer = next(iter(watched.base_model.token_reduction.reducers.values()))
    reducer.register_forward_pre_hook(lambda module, args: seen.append(args[2]))
    watched(**inputs)
    torch.testing.assert_close(trace.saliency, saliency_from_token(seen[0].text_to_image, last))
