"""`generate` and `forward` of decoder models with fewer image tokens: chats, caches, streamers, threads."""

import threading
from functools import partial

import pytest
import torch
from models.decoders.oracle import NAMES, NEW, OF_IMAGES, Oracle, in_threads, ours, stock, with_beams
from models.decoders.tiny import IMAGE, ONE, TWO, tiny_inputs, tiny_model
from transformers import DynamicCache, GenerationConfig, TextIteratorStreamer, TextStreamer

from pumer_hf import reduced

DIVERSE = {"method": "diverse", "site": "inputs", "keep_ratio": 0.3}
PUMER = {"method": "pumer", "site": "inputs", "keep_ratio": 0.3}
CONTIGUOUS = {**PUMER, "positions": "contiguous"}
PROMPTS = [[5, 6, ONE, 7], [8, ONE, 9, 9, TWO, 3]]
GREEDY = {"max_new_tokens": NEW, "do_sample": False}


def model_for(name, schedule):
    model = ours(name)
    model.set_reduction(schedule)
    return model


def prompt_of(name, prompts=PROMPTS):
    return tiny_inputs(stock(name), name, prompts)


def second_turn(name, first, sequences, words, with_images):
    """The inputs of the next question of a chat."""
    ids = torch.cat([sequences, torch.tensor(words).expand(len(sequences), -1)], dim=1)
    mask = torch.ones_like(ids)
    mask[:, : first["attention_mask"].shape[1]] = first["attention_mask"]
    inputs = {"input_ids": ids, "attention_mask": mask}
    for key in ("token_type_ids", "mm_token_type_ids"):
        if key in first:
            inputs[key] = torch.nn.functional.pad(first[key], (0, ids.shape[1] - first[key].shape[1]))
    if with_images:
        inputs |= {key: first[key] for key in OF_IMAGES if key in first}
    return inputs


@pytest.mark.parametrize("with_images", (False, True), ids=("alone", "with_images"))
@pytest.mark.parametrize("schedule", (PUMER, {**DIVERSE, "positions": "contiguous"}), ids=("pumer", "contiguous"))
@pytest.mark.parametrize("name", NAMES)
def test_two_turns_on_one_cache(name, schedule, with_images):
    first = prompt_of(name)
    model = model_for(name, schedule)
    one = model.generate(**first, **GREEDY, return_dict_in_generate=True)
    second = second_turn(name, first, one.sequences, [11, 12, 13], with_images)
    two = model.generate(**second, **GREEDY, past_key_values=one.past_key_values, return_dict_in_generate=True)
    with torch.no_grad():
        oracle = Oracle(
            name,
            stock(name),
            first,
            one.reduction,
            generating=True,
            contiguous="positions" in schedule,
            merge=schedule is PUMER,
        )
        answer = oracle.answer()
        assert torch.equal(one.sequences[:, -NEW:], answer)
        expected = oracle.answer(oracle.feed(torch.cat([answer[:, -1:], second["input_ids"][:, -3:]], dim=1)))
    assert torch.equal(two.sequences, torch.cat([second["input_ids"], expected], dim=1))
    third = second_turn(name, first, two.sequences, [14, 15], with_images)
    three = model.generate(**third, **GREEDY, past_key_values=two.past_key_values)
    with torch.no_grad():
        expected = oracle.answer(oracle.feed(torch.cat([expected[:, -1:], third["input_ids"][:, -2:]], dim=1)))
    assert torch.equal(three[:, -NEW:], expected)


RELEVANT = {"method": "relevant_diverse", "site": "inputs", "keep_ratio": 0.3, "p": 1.0}


def chat_of(outputs):
    """The chat so far. A random model may say the placeholder of an image, in the place of which stands a word."""
    chat = outputs.sequences.clone()
    answer = chat[:, -NEW:]
    answer[answer == IMAGE] = 10
    return chat


def kept_of(outputs):
    """The kept places of each image, counted in the image."""
    return [(trace.kept - trace.columns[0]).tolist() for trace in outputs.reduction]


@pytest.mark.parametrize("name", NAMES)
def test_a_later_turn_reads_the_chat_anew_for_its_question(name):
    """The kept tokens depend on the new question alone, and the answer is that of the whole chat with these tokens."""
    first = prompt_of(name)
    model = model_for(name, {**RELEVANT, "reread": True})
    one = model.generate(**first, **GREEDY, return_dict_in_generate=True)
    held = one.past_key_values.get_seq_length()
    seen = {}
    for words in ([11, 12, 13], [21, 22, 23]):
        turn = second_turn(name, first, chat_of(one), words, True)
        before = {key: value.clone() for key, value in turn.items()}
        two = model.generate(**turn, **GREEDY, past_key_values=one.past_key_values, return_dict_in_generate=True)
        with torch.no_grad():
            oracle = Oracle(name, stock(name), turn, two.reduction, generating=True)
            assert torch.equal(two.sequences, torch.cat([turn["input_ids"], oracle.answer()], dim=1))
        assert one.past_key_values.get_seq_length() == held  # the cache of the first turn stays as it is
        assert two.past_key_values.get_seq_length() > held
        assert all(torch.equal(value, turn[key]) for key, value in before.items())
        seen[words[0]] = kept_of(two)
        third = second_turn(name, first, chat_of(two), [14, 15], True)
        three = model.generate(**third, **GREEDY, past_key_values=two.past_key_values, return_dict_in_generate=True)
        assert torch.equal(three.sequences[:, :-NEW], third["input_ids"])
    assert seen[11] != seen[21]
    other = prompt_of(name, [[15, 16, ONE, 17], [18, ONE, 19, 19, TWO, 13]])  # the same images, other words
    again = model.generate(**other, **GREEDY, return_dict_in_generate=True)
    assert kept_of(again) != kept_of(one)
    last = chat_of(one)[:, -1:]  # the last token of an answer is not in the cache, so it counts as new
    turn = second_turn(name, other, torch.cat([chat_of(again)[:, :-1], last], dim=1), [11, 12, 13], True)
    two = model.generate(**turn, **GREEDY, past_key_values=again.past_key_values, return_dict_in_generate=True)
    assert kept_of(two) == seen[11]


@pytest.mark.parametrize("name", ("llava", "qwen3_vl", "paligemma", "gemma4", "qwen3_5"))
def test_a_chat_that_is_read_anew_is_a_fresh_one(name):
    """With a choice that no word influences, and with all tokens. A turn may bring a new image."""
    first = prompt_of(name, [[5, 6, ONE, 7], [8, 8, ONE, 3]])
    whole = prompt_of(name, [[5, 6, ONE, 7, 4, 4, TWO, 9], [8, 8, ONE, 3, 5, 5, ONE, 9]])
    for schedule in (DIVERSE, {**RELEVANT, "keep_ratio": 1.0}):
        model = model_for(name, {**schedule, "reread": True})
        cache = DynamicCache(config=model.config)
        model.generate(**first, do_sample=False, max_new_tokens=2, past_key_values=cache)
        assert cache.get_seq_length() > 0  # an empty cache is filled
        found = model.generate(**whole, **GREEDY, past_key_values=cache)
        assert torch.equal(found, model.generate(**whole, **GREEDY))
    assert torch.equal(found, stock(name).generate(**whole, **GREEDY))


def test_a_chat_that_begins_without_an_image_is_read_anew():
    model = model_for("llava", {**DIVERSE, "reread": True})
    first = prompt_of("llava", [[5, 6, 7]])
    one = model.generate(**first, **GREEDY, return_dict_in_generate=True)
    turn = second_turn("llava", first, one.sequences, [11, 12], False)
    text = model.generate(**turn, **GREEDY, past_key_values=one.past_key_values)
    assert torch.equal(text, stock("llava").generate(**turn, **GREEDY))
    whole = prompt_of("llava", [[*one.sequences[0].tolist(), ONE, 9]])
    found = model.generate(**whole, **GREEDY, past_key_values=one.past_key_values)
    assert torch.equal(found, model.generate(**whole, **GREEDY))


@pytest.mark.parametrize("schedule", (PUMER, CONTIGUOUS), ids=("original", "contiguous"))
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_loop_of_forwards_answers_as_generate_does(name, schedule):
    inputs = prompt_of(name, [[8, ONE, 9, 9, TWO, 3]])
    model = model_for(name, schedule)
    expected = model.generate(**inputs, **GREEDY)[:, -NEW:]
    outputs = model(**inputs, use_cache=True)
    mask, tokens = inputs["attention_mask"], []
    while len(tokens) < NEW:
        tokens.append(outputs.logits[:, -1].argmax(dim=-1, keepdim=True))
        mask = torch.cat([mask, torch.ones_like(tokens[-1])], dim=1)
        outputs = model(input_ids=tokens[-1], attention_mask=mask, past_key_values=outputs.past_key_values)
    assert torch.equal(torch.cat(tokens, dim=1), expected)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_loop_of_forwards_has_the_logits_of_the_oracle(name):
    inputs = prompt_of(name, [[8, ONE, 9, 9, TWO, 3]])
    outputs = model_for(name, DIVERSE)(**inputs, past_key_values=DynamicCache(config=ours(name).config))
    oracle = Oracle(name, stock(name), inputs, outputs.reduction)
    token = torch.tensor([[17, 18]])
    outputs = ours(name)(input_ids=token, past_key_values=outputs.past_key_values)  # a mask of ones may be left out
    torch.testing.assert_close(outputs.logits[:, -1], oracle.feed(token), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_without_an_image_runs_stock(name):
    inputs = prompt_of(name, [[5, 6, 7], [8, 9]])
    model = model_for(name, PUMER)
    assert torch.equal(model.generate(**inputs, **GREEDY), stock(name).generate(**inputs, **GREEDY))
    with torch.no_grad():
        outputs = model(**inputs)
        assert torch.equal(outputs.logits, stock(name)(**inputs).logits)
    assert "reduction" not in outputs


@pytest.mark.parametrize("name", NAMES)
def test_set_reduction_none_is_the_stock_model(name):
    inputs = prompt_of(name)
    model = model_for(name, PUMER)
    expected = stock(name).generate(**inputs, **GREEDY)
    assert model.config.reduction["method"] == "pumer"
    model.set_reduction(None)
    assert model.config.reduction is None
    assert torch.equal(model.generate(**inputs, **GREEDY), expected)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, stock(name)(**inputs).logits)


@pytest.mark.parametrize("name", NAMES)
def test_reduced_is_our_class_and_leaves_no_trace(name):
    inputs = prompt_of(name)
    expected = model_for(name, PUMER).generate(**inputs, **GREEDY)
    other = model_for(name, DIVERSE).generate(**inputs, **GREEDY)
    model = tiny_model(name)
    before, whole = dict(vars(model)), model.generate(**inputs, **GREEDY)
    with reduced(model, PUMER) as traces:
        assert torch.equal(model.generate(**inputs, **GREEDY), expected)
        assert [trace.row for trace in traces[0]] == [0, 1, 1]
        with reduced(model, DIVERSE) as inner:  # the inner one alone
            assert torch.equal(model.generate(**inputs, **GREEDY), other)
        assert len(inner) == 1
        assert torch.equal(model.generate(**inputs, **GREEDY), expected)
        assert len(traces) == 2
    assert vars(model).keys() == before.keys()
    with pytest.raises(RuntimeError, match="mine"), reduced(model, PUMER):
        raise RuntimeError("mine")
    assert vars(model).keys() == before.keys()
    assert torch.equal(model.generate(**inputs, **GREEDY), whole)


@pytest.mark.parametrize("name", ("llava", "qwen3_vl"))
def test_reduced_takes_our_models_too(name):
    inputs = prompt_of(name)
    other = model_for(name, DIVERSE).generate(**inputs, **GREEDY)
    expected = model_for(name, PUMER).generate(**inputs, **GREEDY)
    with reduced(ours(name), DIVERSE) as traces:
        assert torch.equal(ours(name).generate(**inputs, **GREEDY), other)
        assert len(traces) == 1
    assert torch.equal(ours(name).generate(**inputs, **GREEDY), expected)
    assert ours(name).watch is None
    assert ours(name).reduction.to_dict()["method"] == "pumer"


@pytest.mark.parametrize("name", ("llava", "qwen2_5_vl", "gemma4"))
def test_threads_generate_at_once(name):
    prompts = [PROMPTS, [[5, ONE, 9], [7, 7, 7]], [[3, TWO, 4, 4]], [[1, 2, 3]]] * 2
    several = [prompt_of(name, prompt) for prompt in prompts]
    model = model_for(name, PUMER)
    second = tiny_model(name)
    expected = [model.generate(**inputs, **GREEDY) for inputs in several]
    with reduced(second, DIVERSE):
        others = [second.generate(**inputs, **GREEDY) for inputs in several]
        found = in_threads(
            [partial(one.generate, **inputs, **GREEDY) for one in (model, second) for inputs in several]
        )
    for one, two in zip(found, expected + others, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    "name",
    ("llava", *(pytest.param(name, marks=pytest.mark.slow) for name in ("qwen3_vl", "paligemma"))),
)
@torch.no_grad()
def test_a_compiled_model_gives_the_same(name):
    torch.compiler.reset()
    inputs = prompt_of(name)
    model = model_for(name, PUMER)
    expected = model(**inputs).logits
    found = torch.compile(model, backend="eager")(**inputs)
    torch.testing.assert_close(found.logits, expected, atol=1e-5, rtol=1e-5)
    assert len(found.reduction) == 3


class Words:
    """A tokenizer whose words are numbers."""

    def decode(self, tokens, **kwargs):
        return "".join(f"{int(token)} " for token in tokens)


@pytest.mark.parametrize("name", ("llava", "qwen2_vl"))
def test_streamers_get_the_whole_prompt_first(name, capsys):
    inputs = prompt_of(name, [[5, ONE, 6, 7]])
    model = model_for(name, PUMER)
    expected = model.generate(**inputs, **GREEDY)[0].tolist()
    model.generate(**inputs, **GREEDY, streamer=TextStreamer(Words()))
    assert [int(word) for word in capsys.readouterr().out.split()] == expected
    streamer = TextIteratorStreamer(Words(), skip_prompt=True, timeout=30)
    thread = threading.Thread(target=model.generate, kwargs={**inputs, **GREEDY, "streamer": streamer})
    thread.start()
    assert [int(word) for word in "".join(streamer).split()] == expected[-NEW:]
    thread.join()


@pytest.mark.parametrize("beams", (1, pytest.param(3, marks=with_beams)))
@pytest.mark.parametrize("name", NAMES)
def test_an_output_begins_with_the_whole_prompt_and_has_traces(name, beams):
    inputs = prompt_of(name)
    given = {**GREEDY, "num_beams": beams, "return_dict_in_generate": True, "output_scores": True}
    outputs = model_for(name, PUMER).generate(**inputs, **given)
    assert torch.equal(outputs.sequences[:, :-NEW], inputs["input_ids"])
    assert [trace.row for trace in outputs.reduction] == [0, 1, 1]
    assert len(outputs.scores) == NEW
    plain = ours(name).generate(**inputs, **GREEDY, num_beams=beams)
    assert torch.equal(plain, outputs.sequences)


@pytest.mark.parametrize("place", ("argument", "config"))
@pytest.mark.parametrize("name", ("llava", "qwen2_5_vl"))
def test_lengths_count_the_whole_prompt(name, place):
    inputs = prompt_of(name)
    length = inputs["input_ids"].shape[1]
    model = model_for(name, PUMER)
    answers = model.generate(**inputs, **GREEDY)
    stop = int(answers[0, length + 1])  # the second new token
    lengths = {"max_length": length + 3, "min_length": length + 3}
    given = {"do_sample": False, "pad_token_id": 0, "eos_token_id": stop}
    if place == "argument":
        given |= lengths
    else:
        given = {"generation_config": GenerationConfig(**given, **lengths)}
    found = model.generate(**inputs, **given)
    assert found.shape == (2, length + 3)
    assert stop not in found[:, length : length + 2]
    if place == "config":
        assert given["generation_config"].max_length == length + 3


def test_positional_arguments():
    inputs = prompt_of("llava")
    model = model_for("llava", PUMER)
    expected = model.generate(**inputs, **GREEDY)
    rest = {key: value for key, value in inputs.items() if key != "input_ids"}
    assert torch.equal(model.generate(inputs["input_ids"], **rest, **GREEDY), expected)
    assert torch.equal(model.generate(inputs=inputs["input_ids"], **rest, **GREEDY), expected)
    with torch.no_grad():
        logits = model(**inputs).logits
        pixels, mask = inputs["pixel_values"], inputs["attention_mask"]
        assert torch.equal(model(inputs["input_ids"], pixels, attention_mask=mask).logits, logits)
        as_tuple = model(**inputs, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], logits)


@pytest.mark.parametrize("name", ("llava", "qwen2_vl", "gemma3"))
@torch.no_grad()
def test_few_logits_are_those_of_the_last_tokens(name):
    inputs = prompt_of(name)
    model = model_for(name, PUMER)
    torch.testing.assert_close(model(**inputs, logits_to_keep=1).logits, model(**inputs).logits[:, -1:])
