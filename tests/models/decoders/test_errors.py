"""What cannot be reduced is an error that names the argument."""

import pytest
import torch
from models.decoders.oracle import NAMES, ours, stock
from models.decoders.tiny import IMAGE, ONE, tiny_inputs, tiny_model
from torch import nn
from transformers import StaticCache

from pumer_hf import reduced
from pumer_hf.models.families import DECODERS

PUMER = {"method": "pumer", "site": "inputs", "keep_ratio": 0.3}
GREEDY = {"max_new_tokens": 3, "do_sample": False}


@pytest.fixture
def model():
    ours("llava").set_reduction(PUMER)
    return ours("llava")


@pytest.fixture
def inputs():
    return tiny_inputs(stock("llava"), "llava", [[5, 6, ONE, 7]])


def static(model):
    return StaticCache(config=model.config.get_text_config(), max_cache_len=64)


@pytest.mark.parametrize(
    ("name", "value"),
    (
        ("past_key_values", static),
        ("cache_implementation", "static"),
        ("assistant_model", stock),
        ("prompt_lookup_num_tokens", 2),
        ("pixel_values_videos", torch.zeros(1, 1, 3, 24, 24)),
    ),
)
def test_arguments_of_generate(model, inputs, name, value):
    if name == "past_key_values":
        value = static(model)
    if name == "assistant_model":
        value = stock("llava")
    with pytest.raises(ValueError, match=f"^{name}"):
        model.generate(**inputs, **GREEDY, **{name: value})
    with reduced(stock("llava"), PUMER), pytest.raises(ValueError, match=f"^{name}"):
        stock("llava").generate(**inputs, **GREEDY, **{name: value})


def test_a_static_cache_in_a_forward(model, inputs):
    with pytest.raises(ValueError, match="^past_key_values: .*DynamicCache"):
        model(**inputs, past_key_values=static(model))


def test_embeddings_in_the_place_of_words(model, inputs):
    ids = inputs.pop("input_ids")
    embeddings = model.get_input_embeddings()(ids.masked_fill(ids == IMAGE, 0))
    with pytest.raises(ValueError, match="^inputs_embeds"):
        model(**inputs, inputs_embeds=embeddings)
    with pytest.raises(ValueError, match="^inputs_embeds"):
        model.generate(**inputs, inputs_embeds=embeddings, **GREEDY)


@pytest.mark.parametrize("name", NAMES)
def test_videos(name):
    ours(name).set_reduction(PUMER)
    inputs = tiny_inputs(stock(name), name, [[5, 6, ONE, 7]])
    with pytest.raises(ValueError, match="^pixel_values_videos"):
        ours(name).generate(**inputs, pixel_values_videos=torch.zeros(1), **GREEDY)


@pytest.mark.parametrize("name", ("llava", "qwen2_vl", "llava_next"))
def test_a_wrong_number_of_placeholders(name):
    ours(name).set_reduction(PUMER)
    inputs = tiny_inputs(stock(name), name, [[5, 6, ONE, 7]])
    column = int((inputs["input_ids"][0] == IMAGE).nonzero()[0])
    inputs["input_ids"][0, column] = 5
    number = int((inputs["input_ids"] == IMAGE).sum())
    with pytest.raises(ValueError, match=f"input_ids: {number} .*{number + 1} tokens"):
        ours(name)(**inputs)


def test_a_new_image_on_an_old_cache(model, inputs):
    first = model.generate(**inputs, **GREEDY, return_dict_in_generate=True)
    ids = torch.cat([first.sequences, inputs["input_ids"]], dim=1)
    with pytest.raises(ValueError, match="input_ids: .*image.*past_key_values"):
        model.generate(input_ids=ids, past_key_values=first.past_key_values, **GREEDY)


def test_reading_anew_needs_the_images_and_a_new_question(model, inputs):
    model.set_reduction({**PUMER, "reread": True})
    first = model.generate(**inputs, **GREEDY, return_dict_in_generate=True)
    longer = torch.cat([first.sequences, first.sequences[:, -1:]], dim=1)
    with pytest.raises(ValueError, match="^pixel_values: missing: with reduction.reread"):
        model.generate(input_ids=longer, past_key_values=first.past_key_values, **GREEDY)
    with pytest.raises(ValueError, match="^input_ids: .* a new question"):
        model.generate(**inputs, past_key_values=first.past_key_values, **GREEDY)


@pytest.mark.parametrize("name", ("llava", "gemma3"))
def test_flash_attention_with_gaps_in_the_positions(name):
    model = tiny_model(name, ours=True, reduction=PUMER)
    inputs = tiny_inputs(stock(name), name, [[5, 6, ONE, 7]])
    model.config.get_text_config()._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="positions='original'.*contiguous"):
        model.generate(**inputs, **GREEDY)


def test_a_model_of_no_known_family():
    titles = ".*".join(row.title for row in DECODERS.values())
    with pytest.raises(ValueError, match=f"Linear.*{titles}"), reduced(nn.Linear(2, 2), PUMER):
        pass


@pytest.mark.parametrize(
    ("reduction", "message"),
    (
        (
            {"method": "pumer", "layers": [1], "prune_ratio": 0.1, "image_merge_ratio": 0.1, "text_merge_ratio": 0.1},
            "text_merge_ratio=0.1",
        ),
        (
            {"method": "tome", "site": "tower", "merge_ratio": 0.1},
            "site='tower'.*LLaVA-1.5 can reduce at 'inputs', 'layers'",
        ),
        ({"method": "random", "layers": [2], "prune_ratio": 0.1}, "layers=.2.*below the last one.*layer 2"),
        (None, "reduction=None"),
        ({**PUMER, "keep_ratio": 0.0}, "keep_ratio=0.0"),
        ({**PUMER, "keep_rat": 0.5}, "keep_rat .*keep_ratio"),
        ({**PUMER, "positions": "close"}, "positions='close'"),
        ({**PUMER, "reread": "yes"}, "reread='yes': must be true or false"),
        ({"method": "lookahead", "site": "inputs", "keep_ratio": 0.5}, "weights"),
    ),
)
def test_schedules(reduction, message):
    with pytest.raises(ValueError, match=message), reduced(stock("llava"), reduction):
        pass
    if reduction is not None:
        with pytest.raises(ValueError, match=message):
            ours("llava").set_reduction(reduction)


def test_a_map_that_is_missing_or_does_not_fit(model, inputs):
    model.set_reduction({"method": "grounded", "site": "inputs", "keep_ratio": 0.5})
    with pytest.raises(ValueError, match="^image_saliency: missing"):
        model(**inputs)
    with pytest.raises(ValueError, match="^image_saliency: 35 .*36"):
        model(**inputs, image_saliency=torch.zeros(35))


@pytest.mark.parametrize("name", ("num_beams", "num_return_sequences"))
def test_an_older_transformers_repeats_no_images(model, inputs, name, monkeypatch):
    monkeypatch.setattr("pumer_hf.models.decoders.call_checks.REPEATS_IMAGES", False)
    with pytest.raises(ValueError, match=f"{name}=2.*5.20"):
        model.generate(**inputs, max_new_tokens=3, do_sample=name == "num_return_sequences", **{name: 2})
    assert len(model.generate(**inputs, **GREEDY)) == 1


@pytest.mark.parametrize(
    "reduction", [PUMER, {"method": "random", "layers": [0], "prune_ratio": 0.5}], ids=["inputs", "layers"]
)
def test_a_mask_of_several_questions_in_a_row(model, inputs, reduction):
    model.set_reduction(reduction)
    length = inputs["input_ids"].shape[1]
    with pytest.raises(ValueError, match=r"^attention_mask: .*\(B, L\)"):
        model(**{**inputs, "attention_mask": torch.zeros(1, 1, length, length)})
