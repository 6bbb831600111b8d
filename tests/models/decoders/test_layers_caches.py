"""The caches of decoders that reduce inside: later turns, new images, cropping, reordering, and what cannot be."""

import pytest
import torch
from models.decoders.layers_oracle import FAMILIES, Cut, LayersOracle, cuts_of, cutting, pumer
from models.decoders.oracle import NEW, ours, stock
from models.decoders.test_generation import second_turn
from models.decoders.test_layers_generation import GREEDY, answers, prompt_of
from models.decoders.test_layers_oracles import check, deep, first_layer
from models.decoders.tiny import IMAGE, ONE, TWO, tiny_inputs, tiny_model
from transformers import DynamicCache, StaticCache

from pumer_hf import reduced

PROMPTS = [[5, 6, ONE, 7, 10], [8, ONE, 9, 9, TWO, 3, 4]]


def cut_model(name, *layers, **amounts):
    model = deep(name, True)
    model.set_reduction(pumer(*(layers or (1, 2)), **amounts))
    return model


@torch.no_grad()
def prefilled(name, cache=None, **amounts):
    """A model, the output of a forward that has reduced, and the oracle at the same place."""
    inputs = prompt_of(name, PROMPTS)
    model = cut_model(name, **amounts)
    outputs = model(**inputs, past_key_values=DynamicCache(config=model.config) if cache is None else cache)
    oracle = LayersOracle(name, deep(name, False), inputs, outputs.reduction)
    check(outputs, oracle)
    return model, outputs.past_key_values, oracle


def step(model, cache, oracle, tokens):
    """The logits of a model after more tokens, which stand at the places that the oracle says."""
    mask = torch.cat([oracle.inner.mask, torch.ones_like(tokens)], dim=1)
    position = oracle.inner.last + 1 + torch.arange(tokens.shape[1])
    return model(input_ids=tokens, attention_mask=mask, position_ids=position, past_key_values=cache).logits[:, -1]


MORE = torch.tensor([[11, 12, 13], [14, 15, 16]])
OTHER = torch.tensor([[21, 22], [23, 24]])


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_cache_is_cropped_to_the_prompt(name):
    model, cache, oracle = prefilled(name)
    length = cache.get_seq_length()
    step(model, cache, oracle, MORE)
    assert cache.get_seq_length() == length + 3
    cache.crop(-3)
    assert [cache.get_seq_length(layer) for layer in range(5)] == [length] * 5
    found = step(model, cache, oracle, OTHER)
    torch.testing.assert_close(found, oracle.feed(OTHER), atol=2e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=rf"^crop\(-3\): {length} columns"):
        cache.crop(-3)


@pytest.mark.parametrize("way", ("reorder", "select", "repeat"))
@pytest.mark.parametrize("name", ("llava", "qwen2_5_vl", "gemma3", "paligemma"))
@torch.no_grad()
def test_rows_of_a_cache_change_places(name, way):
    """As beams do. Each row has a cut of its own."""
    model, cache, oracle = prefilled(name, merge=0.2)
    step(model, cache, oracle, MORE)
    expected = oracle.feed(MORE)
    expected = oracle.feed(OTHER)
    order = {"reorder": [1, 0], "select": [1], "repeat": [0, 0, 1, 1]}[way]
    if way == "reorder":
        cache.reorder_cache(torch.tensor(order))
    elif way == "select":
        cache.batch_select_indices(torch.tensor(order))
    else:
        cache.batch_repeat_interleave(2)
    mask, last = oracle.inner.mask[order], oracle.inner.last[..., order, :] - 1
    position = last + torch.arange(2)
    if name.startswith("qwen"):
        position = position[-3:]
    found = model(input_ids=OTHER[order], attention_mask=mask, position_ids=position, past_key_values=cache).logits[
        :, -1
    ]
    torch.testing.assert_close(found, expected[order], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ("llava", "llava_next", "internvl", "gemma3", "smolvlm"))
def test_a_new_image_in_a_later_turn(name):
    """It is reduced by what the new question attends to. The images of the first turn stay as they are."""
    first = prompt_of(name, PROMPTS)
    model = cut_model(name)
    one = answers(model, first, **GREEDY)
    addition = tiny_inputs(stock(name), name, [[17, ONE, 18], [19, TWO, 20]], pad_left=False)
    second = second_turn(name, first, torch.cat([one.sequences, addition["input_ids"]], dim=1), [11, 12], False)
    new = slice(one.sequences.shape[1], one.sequences.shape[1] + addition["input_ids"].shape[1])
    for key, value in addition.items():
        if key == "attention_mask" or key.endswith("token_type_ids"):
            second[key][:, new] = value
        elif key != "input_ids":
            second[key] = value
    two = answers(model, second, **GREEDY, past_key_values=one.past_key_values)
    is_new = second["input_ids"] == IMAGE
    is_new[:, : first["input_ids"].shape[1]] = False
    assert all(bool(is_new[trace.row, trace.columns].all()) for trace in two.reduction)
    cuts = []
    for old in cuts_of(first, one.reduction):
        keep = torch.nn.functional.pad(old.keep, (0, second["input_ids"].shape[1] - old.keep.shape[1]), value=True)
        keep = keep & ~is_new & second["attention_mask"].bool()
        for trace in two.reduction:
            if trace.layer == old.layer:
                keep[trace.row, trace.kept] = True
        cuts.append(Cut(old.layer, keep, (), torch.ones(keep.shape)))
    plain = deep(name, False)
    with cutting(plain, cuts_of(first, one.reduction)):
        other = answers(plain, first, **GREEDY)
    assert torch.equal(one.sequences, other.sequences)
    with cutting(plain, cuts):
        expected = answers(plain, second, **GREEDY, past_key_values=other.past_key_values, output_logits=True)
    assert torch.equal(two.sequences, expected.sequences)


@pytest.mark.parametrize("name", ("llava", "qwen2_vl", "gemma3", "paligemma"))
def test_the_cache_of_a_cut_prompt_after_the_reduction(name):
    """A model of ours goes on with it, also without a schedule. A stock model outside `reduced` refuses it."""
    first = prompt_of(name, PROMPTS)
    plain = tiny_model(name)
    schedule = pumer(first_layer(name))
    with reduced(plain, schedule):
        one = answers(plain, first, **GREEDY)
        second = second_turn(name, first, one.sequences, [11, 12], False)
        expected = answers(plain, second, **GREEDY, past_key_values=one.past_key_values).sequences
        again = answers(plain, first, **GREEDY)
    with pytest.raises(ValueError, match=r"^past_key_values: .*`reduced`"):
        answers(plain, second, **GREEDY, past_key_values=again.past_key_values)
    model = ours(name)
    model.set_reduction(schedule)
    one = answers(model, first, **GREEDY)
    model.set_reduction(None)
    assert torch.equal(answers(model, second, **GREEDY, past_key_values=one.past_key_values).sequences, expected)


def test_a_cache_without_a_config():
    """Its layers are made when they are first used."""
    found = prefilled("llava", cache=DynamicCache())
    for model, cache, oracle in (found,):
        torch.testing.assert_close(step(model, cache, oracle, MORE), oracle.feed(MORE), atol=2e-5, rtol=1e-5)
    assert [layer.keys.shape[2] for layer in cache.layers] == sorted(
        (layer.keys.shape[2] for layer in cache.layers), reverse=True
    )
    assert cache.layers[4].keys.shape[2] < cache.layers[1].keys.shape[2]


def static(model):
    return StaticCache(config=model.config.get_text_config(), max_cache_len=256)


@pytest.mark.parametrize(
    ("name", "value"),
    (
        ("past_key_values", static),
        ("past_key_values", lambda model: DynamicCache(config=model.config, offloading=True)),
        ("cache_implementation", "static"),
        ("cache_implementation", "offloaded"),
        ("cache_implementation", "quantized"),
        ("assistant_model", lambda model: stock("llava")),
        ("prompt_lookup_num_tokens", 2),
        ("prefill_chunk_size", 8),
        ("pixel_values_videos", torch.zeros(1, 1, 3, 24, 24)),
    ),
)
def test_arguments_that_cannot_be(name, value):
    inputs = prompt_of("llava", PROMPTS)
    model = ours("llava")
    model.set_reduction(pumer(1))
    value = value(model) if callable(value) else value
    with pytest.raises(ValueError, match=f"^{name}.*: .*(use|set_reduction)"):
        model.generate(**inputs, **GREEDY, **{name: value})
    with reduced(stock("llava"), pumer(1)), pytest.raises(ValueError, match=f"^{name}"):
        stock("llava").generate(**inputs, **GREEDY, **{name: value})


def test_a_static_cache_in_a_forward():
    model = ours("llava")
    model.set_reduction(pumer(1))
    with pytest.raises(ValueError, match="^past_key_values: .*DynamicCache"):
        model(**prompt_of("llava", PROMPTS), past_key_values=static(model))


WINDOW = {
    "num_hidden_layers": 5,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"],
}


@pytest.mark.parametrize("kind", ("pumer", "tome"))
def test_gemma3_beyond_its_window(kind):
    """The window counts the columns of the whole prompt, so a layer sees those that a stock layer would see."""
    schedule = pumer(0, 2, merge=0.2) if kind == "pumer" else {"method": "tome", "layers": [1], "merge_ratio": 0.4}
    plain = tiny_model("gemma3", **WINDOW)
    model = tiny_model("gemma3", ours=True, reduction=schedule, **WINDOW)
    for prompts in (PROMPTS, [[ONE, *range(4, 40)], [7, 8, ONE, 9, *range(5, 11)]]):
        inputs = prompt_of("gemma3", prompts)
        one = answers(model, inputs, **GREEDY)
        with torch.no_grad():
            oracle = LayersOracle("gemma3", plain, inputs, one.reduction, sized=kind == "tome", generating=True)
            answer = oracle.answer()
            assert torch.equal(one.sequences[:, -NEW:], answer)
            outputs = model(**inputs)
            check(outputs, LayersOracle("gemma3", plain, inputs, outputs.reduction, sized=kind == "tome"))
        assert torch.equal(one.sequences, answers(model, inputs, **GREEDY, use_cache=False).sequences)
        words = list(range(40, 64))
        turn = second_turn("gemma3", inputs, one.sequences, words, False)
        two = answers(model, turn, **GREEDY, past_key_values=one.past_key_values)
        with torch.no_grad():
            fed = oracle.feed(torch.cat([answer[:, -1:], turn["input_ids"][:, -len(words) :]], dim=1))
            assert torch.equal(two.sequences[:, -NEW:], oracle.answer(fed))


@pytest.mark.parametrize("layer", (0, 1))
def test_qwen3_is_cut_after_its_last_deepstack_layer(layer):
    model = ours("qwen3_vl")
    if layer:
        model.set_reduction(pumer(layer))
        assert {trace.layer for trace in answers(model, prompt_of("qwen3_vl"), **GREEDY).reduction} == {layer}
        return
    with pytest.raises(ValueError, match=r"layers=\[0\].*Qwen3-VL adds features.*from 1 on"):
        model.set_reduction(pumer(layer))


@pytest.mark.parametrize("name", ("qwen3_5", "qwen3_5_moe", "gemma4"))
def test_families_that_cannot(name):
    with pytest.raises(ValueError, match="site='layers'.*'inputs': its .*layers"):
        ours(name).set_reduction(pumer(1))
    with pytest.raises(ValueError, match="site='layers'"), reduced(stock(name), pumer(1)):
        pass
