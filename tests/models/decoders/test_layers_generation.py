"""`generate` of decoders that reduce inside: answers, batches, caches, chats."""

import pytest
import torch
from models.decoders.layers_oracle import FAMILIES, NAMES, LayersOracle, cuts_of, cutting, pumer
from models.decoders.oracle import NEW, ours, stock, with_beams
from models.decoders.test_generation import second_turn
from models.decoders.test_layers_oracles import deep, first_layer, saliency_for, schedule_of
from models.decoders.tiny import IMAGE, ONE, TWO, tiny_inputs

from pumer_hf import reduced
from pumer_hf.models.families import DECODERS

PROMPTS = [[5, 6, ONE, 7, 10], [8, ONE, 9, 9, TWO, 3, 4], [3, 4, 5, 6]]
GREEDY = {"max_new_tokens": NEW, "do_sample": False, "suppress_tokens": [IMAGE]}
SAMPLED = {**GREEDY, "do_sample": True, "top_k": 20}
WAYS = {
    "greedy": GREEDY,
    "sampled": SAMPLED,
    "several": {**SAMPLED, "num_return_sequences": 2},
    "beams": {**GREEDY, "num_beams": 3, "num_return_sequences": 2},
}
BOTH = [{"method": "pumer", "site": "inputs", "keep_ratio": 0.6, "merge_rest": False}, pumer(1, 3, prune=0.4)]


def prompt_of(name, prompts=PROMPTS):
    return tiny_inputs(stock(name), name, prompts)


def answers(model, inputs, **given):
    torch.manual_seed(11)
    return model.generate(**inputs, **given, return_dict_in_generate=True)


@pytest.mark.parametrize(
    "way", ("greedy", "sampled", *(pytest.param(way, marks=with_beams) for way in ("several", "beams")))
)
@pytest.mark.parametrize("kind", ("merge", "tome"))
@pytest.mark.parametrize("name", NAMES)
def test_answers(name, kind, way):
    inputs, given = prompt_of(name), WAYS[way]
    model = ours(name)
    model.set_reduction(schedule_of(kind, first_layer(name)))
    found = answers(model, inputs, **given)
    assert [trace.row for trace in found.reduction] == [0, 1, 1]
    with cutting(stock(name), cuts_of(inputs, found.reduction), sized=kind == "tome"):
        expected = stock(name).generate
        torch.manual_seed(11)
        assert torch.equal(found.sequences, expected(**inputs, **given))
    assert torch.equal(found.sequences, answers(model, inputs, **given, use_cache=False).sequences)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cut_changes_answers(name):
    """So the tests above do not compare what is equal anyway."""
    inputs = prompt_of(name)
    model = ours(name)
    model.set_reduction(pumer(first_layer(name), prune=0.9))
    whole = answers(stock(name), inputs, **GREEDY, output_logits=True).logits
    cut = answers(model, inputs, **GREEDY, output_logits=True).logits
    assert (whole[0] - cut[0])[:2].abs().max() > 1e-2
    torch.testing.assert_close(whole[0][2], cut[0][2], atol=1e-5, rtol=1e-5)  # has no image


@pytest.mark.parametrize("kind", ("merge", "grounded"))
@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_is_its_single_prompts(name, kind):
    inputs = prompt_of(name)
    model = ours(name)
    model.set_reduction(schedule_of(kind, first_layer(name)))
    maps = saliency_for(inputs, kind)
    found = answers(model, inputs | maps, **GREEDY, output_logits=True)
    start = 0
    for row, prompt in enumerate(PROMPTS):
        single = prompt_of(name, [prompt])
        number = int((single["input_ids"] == IMAGE).sum())
        if maps and number:
            single["image_saliency"] = maps["image_saliency"][start : start + number]
        start += number
        expected = answers(model, single, **GREEDY, output_logits=True)
        assert torch.equal(found.sequences[row, -NEW:], expected.sequences[0, -NEW:])
        for one, two in zip(found.logits, expected.logits, strict=True):
            torch.testing.assert_close(one[row], two[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_before_the_decoder_and_inside_it(name):
    inputs = prompt_of(name)
    model = deep(name, True)
    model.set_reduction(BOTH)
    found = answers(model, inputs, **GREEDY)
    assert [trace.layer for trace in found.reduction] == [None] * 3 + [1] * 3 + [3] * 3
    with torch.no_grad():
        oracle = LayersOracle(name, deep(name, False), inputs, found.reduction, generating=True)
        assert torch.equal(found.sequences, torch.cat([inputs["input_ids"], oracle.answer()], dim=1))
    assert torch.equal(found.sequences, answers(model, inputs, **GREEDY, use_cache=False).sequences)
    with reduced(deep(name, False), BOTH) as traces:
        assert torch.equal(answers(deep(name, False), inputs, **GREEDY).sequences, found.sequences)
    assert [trace.layer for trace in traces[0]] == [None] * 3 + [1] * 3 + [3] * 3


@with_beams
@pytest.mark.parametrize("name", ("llava", "qwen2_5_vl", "gemma3", "paligemma"))
def test_beams_before_the_decoder_and_inside_it(name):
    inputs = prompt_of(name)
    model = deep(name, True)
    model.set_reduction(BOTH)
    greedy = answers(model, inputs, **GREEDY)
    for way in ("beams", "several"):
        found = answers(model, inputs, **WAYS[way])
        assert torch.equal(found.sequences, answers(model, inputs, **WAYS[way], use_cache=False).sequences)
        for one, two in zip(found.reduction, greedy.reduction, strict=True):
            assert (one.row, one.layer) == (two.row, two.layer)
            assert torch.equal(one.columns, two.columns)
            assert torch.equal(one.kept, two.kept)
            assert torch.equal(one.holder, two.holder)


@pytest.mark.parametrize("kind", ("cascade", "tome", "both"))
@pytest.mark.parametrize("name", FAMILIES)
def test_turns_on_one_cache(name, kind):
    schedule = {
        "cascade": pumer(1, 2, prune=0.4, merge=0.2),
        "tome": {"method": "tome", "layers": [1, 2], "merge_ratio": 0.3},
        "both": BOTH,
    }[kind]
    first = prompt_of(name, PROMPTS[:2])
    model = deep(name, True)
    model.set_reduction(schedule)
    one = answers(model, first, **GREEDY)
    second = second_turn(name, first, one.sequences, [11, 12, 13], False)
    two = answers(model, second, **GREEDY, past_key_values=one.past_key_values)
    third = second_turn(name, first, two.sequences, [14, 15], False)
    three = answers(model, third, **GREEDY, past_key_values=two.past_key_values)
    with torch.no_grad():
        oracle = LayersOracle(name, deep(name, False), first, one.reduction, sized=kind == "tome", generating=True)
        answer = oracle.answer()
        assert torch.equal(one.sequences[:, -NEW:], answer)
        for turn, found, number in ((second, two, 3), (third, three, 2)):
            fed = oracle.feed(torch.cat([answer[:, -1:], turn["input_ids"][:, -number:]], dim=1))
            answer = oracle.answer(fed)
            assert torch.equal(found.sequences, torch.cat([turn["input_ids"], answer], dim=1))


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_a_loop_of_forwards_answers_as_generate_does(name):
    inputs = prompt_of(name)
    model = deep(name, True)
    model.set_reduction(pumer(1, 3, prune=0.5))
    expected = answers(model, inputs, **GREEDY).sequences[:, -NEW:]
    mask, tokens = inputs["attention_mask"], []
    outputs = model(**inputs, position_ids=positions_for(name, inputs), use_cache=True)
    while len(tokens) < NEW:
        outputs.logits[..., IMAGE] = -torch.inf
        tokens.append(outputs.logits[:, -1].argmax(dim=-1, keepdim=True))
        mask = torch.cat([mask, torch.ones_like(tokens[-1])], dim=1)
        given = {"attention_mask": mask, "past_key_values": outputs.past_key_values}
        position = mask.sum(dim=1, keepdim=True) - 1 + int(name == "paligemma")
        if DECODERS[name].multimodal_rope:
            position = (position + model.base_model.rope_deltas).expand(3, -1, -1)
        outputs = model(input_ids=tokens[-1], position_ids=position, **given)
    assert torch.equal(torch.cat(tokens, dim=1), expected)


def positions_for(name, inputs):
    """The positions that `generate` gives to left-padded prompts; None where the model counts them so itself."""
    if DECODERS[name].multimodal_rope:
        return None
    return (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0) + int(name == "paligemma")
