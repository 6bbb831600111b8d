"""What the observation of an unreduced decoder gives: its image tokens, and where its text attends."""

import threading

import pytest
import torch
from models.decoders.tiny import IMAGE, ONE, TWO, tiny_inputs, tiny_model
from transformers import AttentionInterface, AttentionMaskInterface

from pumer_hf.models.decoders import text_rows
from pumer_hf.models.decoders.observing import observe_decoder, with_encoded_images
from pumer_hf.models.decoders.text_rows import SUFFIX, attending_layers, text_configs
from pumer_hf.models.families import DECODERS

NAMES = list(DECODERS)
PROMPTS = [[5, ONE, 7, 8, 9], [4, 5, TWO, 17, ONE, 8], [3, ONE, 5, 6], [11, 12]]
"""The second prompt has two images, and the last one none."""
FIRST = [[ONE, 7, 8, 9], [ONE, 17, 8], [ONE, 5]]
"""PaliGemma's prompts begin with their image."""


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    for interface in (AttentionInterface(), AttentionMaskInterface()):
        assert not [name for name in interface if name.endswith(SUFFIX)]


def prompts_of(name):
    return FIRST if name == "paligemma" else PROMPTS


def model_and_inputs(name, **kwargs):
    model = tiny_model(name, **kwargs)
    return model, tiny_inputs(model, name, prompts_of(name))


def images_of(input_ids):
    """The row and the columns of each run of placeholders."""
    images = []
    for row, tokens in enumerate(input_ids.tolist()):
        begin = None
        for column, token in enumerate([*tokens, -1]):
            if token == IMAGE and begin is None:
                begin = column
            if token != IMAGE and begin is not None:
                images.append((row, list(range(begin, column))))
                begin = None
    return images


def by_hand(name, layer, rows):
    """The attention of a layer to each image, from the matrices of the eager implementation."""
    model, inputs = model_and_inputs(name)
    inputs = {key: value.clone() for key, value in inputs.items()}
    model.set_attn_implementation("eager")
    with torch.no_grad():
        # the encoded images come with the positions of `generate`, which leave the padding out
        encoded = with_encoded_images(DECODERS[name], model, inputs)
        attentions = model(**encoded, output_attentions=True).attentions
    matrix = dict(zip(attending_layers(model), attentions, strict=True))[layer]
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    found = []
    for row, columns in images_of(ids):
        after = [
            place
            for place in range(columns[-1] + 1, ids.shape[1])
            if mask[row, place] and int(ids[row, place]) != IMAGE
        ]
        places = after if rows == "question" else [ids.shape[1] - 1]
        part = matrix[row][:, places][:, :, columns].mean(dim=(0, 1))
        found.append((len(columns), row, part / part.sum()))
    return found


@pytest.mark.parametrize("rows", ["question", "answer"])
@pytest.mark.parametrize("name", NAMES)
def test_the_attention_is_that_of_the_eager_implementation(name, rows):
    model, inputs = model_and_inputs(name)
    layers = attending_layers(model)
    seen = observe_decoder(DECODERS[name], model, inputs, layers, rows=rows)
    for layer in layers:
        expected = by_hand(name, layer, rows)
        assert max(float(part.max() - part.min()) for _, _, part in expected) > 1e-3  # else this test shows nothing
        for one in seen:
            alike = [item for item in expected if item[0] == one.features.shape[1]]
            assert one.examples.tolist() == [row for _, row, _ in alike]
            wanted = torch.stack([part for _, _, part in alike])
            torch.testing.assert_close(one.attention[layer], wanted, atol=1e-5, rtol=1e-4)
    assert sum(len(one.examples) for one in seen) == len(images_of(inputs["input_ids"]))


@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "gemma3", "paligemma"])
def test_a_batch_is_its_single_prompts(name):
    model, inputs = model_and_inputs(name)
    layer = attending_layers(model)[-1]
    alone = {}
    for row, prompt in enumerate(prompts_of(name)):
        if any(isinstance(item, tuple) for item in prompt):
            for one in observe_decoder(DECODERS[name], model, tiny_inputs(model, name, [prompt]), [layer]):
                alone[row, one.features.shape[1]] = one.attention[layer]
    for one in observe_decoder(DECODERS[name], model, inputs, [layer]):
        for row in set(one.examples.tolist()):
            mine = one.attention[layer][one.examples == row]
            torch.testing.assert_close(mine, alone[row, one.features.shape[1]], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("together", [False, True])
def test_the_tokens_are_those_that_a_reducer_gets(name, together):
    reduction = {"method": "diverse", "site": "inputs", "keep_ratio": 0.5, "per_prompt": together}
    model, inputs = model_and_inputs(name, ours=True, reduction=reduction)
    given = []
    model.reducer.register_forward_pre_hook(lambda module, args: given.append(args[1:]))
    with torch.no_grad():
        model(**inputs)
    seen = observe_decoder(DECODERS[name], model, inputs, [], together=together)
    assert len(seen) == len(given)
    for one, (pair, evidence) in zip(seen, given, strict=True):
        assert torch.equal(one.pair.text.states, pair.text.states)
        assert torch.equal(one.pair.text.mask, pair.text.mask)
        assert torch.equal(one.pair.image.states, pair.image.states)
        assert torch.equal(one.features, evidence.image_keys[:, 1:])
        assert one.attention == {}


def test_all_images_of_a_prompt_may_count_as_one():
    model, inputs = model_and_inputs("llava")
    (one, two) = observe_decoder(DECODERS["llava"], model, inputs, [1], together=True)
    assert [one.features.shape[1], two.features.shape[1]] == [36, 72]
    assert (one.examples.tolist(), two.examples.tolist()) == ([0, 2], [1])
    assert two.attention[1].sum() == pytest.approx(1)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "smolvlm"])
def test_the_stock_kernel_runs_and_later_layers_do_not(name, monkeypatch):
    """The layers before the last one that is wanted run the kernel of the model, and those after it nothing."""
    model, inputs = model_and_inputs(name)
    ran = []
    for index, layer in enumerate(model.get_decoder().layers):
        layer.register_forward_pre_hook(lambda *args, index=index: ran.append(index))
    fused = []
    real = AttentionInterface()["sdpa"]

    def kernel(module, *args, **kwargs):
        if module.config is model.get_decoder().config:
            fused.append(module.layer_idx)
        return real(module, *args, **kwargs)

    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", kernel)
    observe_decoder(DECODERS[name], model, inputs, [1])
    assert ran == [0, 1]
    assert fused == [0]
    ran.clear()
    observe_decoder(DECODERS[name], model, inputs, [])
    assert ran == []


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_implementation_is_the_old_one_afterwards(implementation):
    model, inputs = model_and_inputs("llava")
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        before = model(**inputs).logits
    observe_decoder(DECODERS["llava"], model, inputs, [2])
    assert [config._attn_implementation for config in text_configs(model)] == [implementation] * len(
        text_configs(model)
    )
    assert model.model.vision_tower.config._attn_implementation == implementation
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, before)


def test_the_implementation_is_the_old_one_after_an_exception(monkeypatch):
    model, inputs = model_and_inputs("llava")

    def broken(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(text_rows, "attention_of_rows", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        observe_decoder(DECODERS["llava"], model, inputs, [1])
    assert {config._attn_implementation for config in text_configs(model)} == {"sdpa"}
    monkeypatch.undo()
    assert len(observe_decoder(DECODERS["llava"], model, inputs, [1])) == 1


def test_two_threads_may_observe_at_once():
    """Also the same model, and another one whose forward nobody observes."""
    models = {name: model_and_inputs(name) for name in ("llava", "qwen2_5_vl")}
    expected = {name: observe_decoder(DECODERS[name], *models[name], [1]) for name in models}
    wrong, threads = [], []

    def observe(name):
        for _ in range(10):
            for one, wanted in zip(observe_decoder(DECODERS[name], *models[name], [1]), expected[name], strict=True):
                if not torch.equal(one.attention[1], wanted.attention[1]):
                    wrong.append(name)

    def plain():
        model, inputs = model_and_inputs("internvl")
        with torch.no_grad():
            before = model(**inputs).logits
            for _ in range(20):
                if not torch.equal(model(**inputs).logits, before):
                    wrong.append("plain")

    for work in (lambda: observe("llava"), lambda: observe("llava"), lambda: observe("qwen2_5_vl"), plain):
        threads.append(threading.Thread(target=work))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "smolvlm", "paligemma"])
def test_the_inputs_stay_as_they_are_and_may_be_encoded(name):
    model, inputs = model_and_inputs(name)
    before = {key: value.clone() for key, value in inputs.items()}
    encoded = with_encoded_images(DECODERS[name], model, inputs)
    assert "pixel_values" not in encoded
    assert all(torch.equal(before[key], inputs[key]) for key in before)
    features = encoded["mm_encoder_outputs"]["image"].pooler_output
    for _ in range(2):
        seen = observe_decoder(DECODERS[name], model, encoded, [1])
        for one, wanted in zip(seen, observe_decoder(DECODERS[name], model, inputs, [1]), strict=True):
            assert torch.equal(one.attention[1], wanted.attention[1])
    assert encoded["mm_encoder_outputs"]["image"].pooler_output is features


def test_half_precision_and_a_model_of_ours_are_observed():
    model, inputs = model_and_inputs(
        "llava", ours=True, reduction={"method": "grid", "keep_ratio": 0.2, "site": "inputs"}
    )
    (whole,) = observe_decoder(DECODERS["llava"], model, inputs, [2])
    (half,) = observe_decoder(DECODERS["llava"], model.to(torch.bfloat16), as_half(inputs), [2])
    assert half.attention[2].dtype == torch.float32
    torch.testing.assert_close(half.attention[2], whole.attention[2], atol=0.02, rtol=0.2)


def as_half(inputs):
    return {key: value.bfloat16() if value.is_floating_point() else value for key, value in inputs.items()}


# The model's own answer

NEW = 3
"""How many tokens of the answer count."""


def counted_tokens(answer, end):
    """How many tokens of an answer count: those before its end, and at least the first."""
    return next((place for place, token in enumerate(answer) if token == end), NEW) or 1


def end_of_some(name, model):
    """A token with which the answers to the prompts with images end after different numbers of tokens."""
    answers = []
    for prompt in prompts_of(name):
        if any(isinstance(item, tuple) for item in prompt):
            inputs = tiny_inputs(model, name, [prompt])
            found = model.generate(**inputs, do_sample=False, max_new_tokens=NEW)
            answers.append(found[0, inputs["input_ids"].shape[1] :].tolist())
    ends = [end for answer in answers for end in answer]
    return next(end for end in ends if len({counted_tokens(answer, end) for answer in answers}) > 1)


def answer_by_hand(name, model, prompt, layer):
    """The attention of the greedy answer to one prompt, from the eager matrices of the prompt with the answer."""
    inputs = tiny_inputs(model, name, [prompt])
    length = inputs["input_ids"].shape[1]
    answer = model.generate(**inputs, do_sample=False, max_new_tokens=NEW)[0, length:].tolist()
    end = model.generation_config.eos_token_id
    counted = counted_tokens(answer, end)
    longer = tiny_inputs(model, name, [[*prompt, *answer[: counted - 1]]])
    if name == "paligemma":
        longer["token_type_ids"][:, length:] = 1  # its answers are read from left to right
    eager = tiny_model(name)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        encoded = with_encoded_images(DECODERS[name], eager, longer)
        attentions = eager(**encoded, output_attentions=True).attentions
    matrix = dict(zip(attending_layers(eager), attentions, strict=True))[layer][0]
    found = []
    for _, columns in images_of(longer["input_ids"]):
        part = matrix[:, length - 1 :][:, :, columns].mean(dim=(0, 1))
        found.append((len(columns), part / part.sum()))
    return counted, found


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        *[(name, False) for name in NAMES],
        # the tiny models of the other families give all prompts the same answer
        *[(name, True) for name in ("llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "paligemma", "gemma4", "qwen3_5")],
    ],
)
def test_the_rows_of_an_answer_are_those_of_its_tokens(name, ends):
    """In a padded batch, whose answers have different lengths, as for each prompt with its answer alone."""
    model, inputs = model_and_inputs(name)
    layers = attending_layers(model)[-2:]
    if ends:
        model.generation_config.eos_token_id = end_of_some(name, model)
    seen = observe_decoder(DECODERS[name], model, inputs, layers, rows="answer", answer_tokens=NEW)
    one_token = observe_decoder(DECODERS[name], model, inputs, layers, rows="answer")
    for layer in layers:
        expected = [
            (row, *answer_by_hand(name, model, prompt, layer))
            for row, prompt in enumerate(prompts_of(name))
            if any(isinstance(item, tuple) for item in prompt)
        ]
        lengths = {counted for _, counted, _ in expected}
        assert len(lengths) > 1 if ends else lengths == {NEW}
        for one, first in zip(seen, one_token, strict=True):
            wanted = [part for _, _, parts in expected for number, part in parts if number == one.features.shape[1]]
            torch.testing.assert_close(one.attention[layer], torch.stack(wanted), atol=1e-5, rtol=1e-4)
            assert ends or not torch.allclose(one.attention[layer], first.attention[layer], atol=1e-3)
    assert model.get_decoder().config._attn_implementation == "sdpa"


def test_an_answer_in_eager_attention_and_in_a_short_window():
    """A cache with a sliding window has dropped tokens when the answer attends."""
    model, inputs = model_and_inputs("gemma3")
    seen = observe_decoder(DECODERS["gemma3"], model, inputs, [1], rows="answer", answer_tokens=NEW)
    model.set_attn_implementation("eager")
    for one, other in zip(
        seen, observe_decoder(DECODERS["gemma3"], model, inputs, [1], rows="answer", answer_tokens=NEW), strict=True
    ):
        torch.testing.assert_close(one.attention[1], other.attention[1], atol=1e-6, rtol=1e-4)


# Errors


def test_a_question_before_the_image_needs_something_after_it():
    model = tiny_model("llava")
    inputs = tiny_inputs(model, "llava", [[5, 6, ONE]])
    inputs = {"pixel_values": inputs["pixel_values"], "input_ids": inputs["input_ids"][:, :-1]}
    with pytest.raises(ValueError, match="input_ids: a prompt ends with its image"):
        observe_decoder(DECODERS["llava"], model, inputs, [1])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("qwen3_5", {"layers": [2]}, r"layers=\[2\]: layer 2 has no attention to see: choose of 3"),
        ("llava", {"layers": [3]}, r"layers=\[3\].*choose of 0, 1, 2"),
        ("llava", {"rows": "words"}, "rows='words': choose one of question, answer"),
    ],
)
def test_what_cannot_be_seen_is_an_error(name, change, message):
    model, inputs = model_and_inputs(name)
    with pytest.raises(ValueError, match=message):
        observe_decoder(DECODERS[name], model, inputs, **{"layers": [0], **change})


def test_training_mode_other_kernels_and_text_alone_are_errors():
    model, inputs = model_and_inputs("llava")
    with pytest.raises(ValueError, match="training mode"):
        observe_decoder(DECODERS["llava"], model.train(), inputs, [1])
    model.eval()
    model.get_decoder().config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="attn_implementation='flex_attention'"):
        observe_decoder(DECODERS["llava"], model, inputs, [1])
    with pytest.raises(ValueError, match="pixel_values: the batch has no image"):
        observe_decoder(DECODERS["llava"], model, tiny_inputs(model, "llava", [[5, 6]]), [1])
