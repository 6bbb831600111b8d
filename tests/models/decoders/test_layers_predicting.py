"""Inside the decoder: what predicts is never cut, what has read an answer is no evidence, and what has no effect is
refused.
"""

import pytest
import torch
from models.decoders.tiny import IMAGE, ONE, tiny_inputs, tiny_model

from pumer_hf.models.decoders.prompt import IGNORED

PARTS = {
    "random": {"method": "random", "layers": [1], "prune_ratio": 0.5},
    "pumer": {"method": "pumer", "layers": [1], "prune_ratio": 0.5, "image_merge_ratio": 0.0},
    "fastv": {"method": "fastv", "layers": [1], "prune_ratio": 0.5},
}
parts = pytest.mark.parametrize("part", PARTS.values(), ids=list(PARTS))


def model_and(prompt, part):
    model = tiny_model("llava", ours=True, reduction=part)
    inputs = tiny_inputs(model, "llava", [prompt])
    ends = (inputs["input_ids"] >= 91).logical_and(inputs["input_ids"] != IMAGE)  # the tokens around an image
    return model, {name: value[~ends].unsqueeze(0) if value.ndim == 2 else value for name, value in inputs.items()}


@parts
def test_a_prompt_that_ends_with_its_image(part):
    model, inputs = model_and([1, 5, ONE], part)
    with pytest.raises(ValueError, match="ends with its image"):
        model(**inputs)
    with pytest.raises(ValueError, match="ends with its image"):
        model.generate(**inputs, max_new_tokens=2)


@parts
def test_an_answer_right_after_an_image(part):
    model, inputs = model_and([1, ONE, 5, 6, 7], part)
    labels = torch.where(inputs["input_ids"] == 5, 5, IGNORED)
    with pytest.raises(ValueError, match="labels: an answer begins right after an image"):
        model(**inputs, labels=labels)
    labels = torch.where(inputs["input_ids"] == 6, 6, IGNORED)
    assert model(**inputs, labels=labels).loss.isfinite()


@parts
def test_what_follows_an_answer_is_no_evidence(part):
    """A chat with two turns keeps for its first question what `generate` keeps for it, whatever the answer was."""
    model, whole = model_and([1, ONE, 10, 11, 20, 12, 13, 21], part)
    _, first = model_and([1, ONE, 10, 11], part)
    (alone,) = model(**first).reduction
    for answer in (20, 30):
        ids = torch.where(whole["input_ids"] == 20, answer, whole["input_ids"])
        labels = torch.where((ids == answer) | (ids == 21), ids, IGNORED)
        (trace,) = model(**{**whole, "input_ids": ids}, labels=labels).reduction
        assert torch.equal(trace.kept, alone.kept)


@pytest.mark.parametrize("name", ("pumer", "relevant_diverse"))
def test_what_follows_an_answer_chooses_nothing_before_the_decoder(name):
    part = {"method": name, "site": "inputs", "keep_ratio": 0.3, "p": 2.0}
    model, whole = model_and([1, ONE, 10, 11, 20, 12, 13, 21], part)
    _, first = model_and([1, ONE, 10, 11], part)
    labels = torch.where((whole["input_ids"] == 20) | (whole["input_ids"] == 21), whole["input_ids"], IGNORED)
    (alone,), (trace,) = model(**first).reduction, model(**whole, labels=labels).reduction
    assert torch.equal(trace.kept, alone.kept)


@pytest.mark.parametrize(("name", "value"), (("positions", "contiguous"), ("per_prompt", True), ("reread", True)))
def test_fields_of_the_other_site_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^reduction.{name}={value!r}: only site 'inputs' has it"):
        tiny_model("llava", ours=True, reduction={**PARTS["random"], name: value})


@pytest.mark.parametrize("later", (PARTS["pumer"], None), ids=("inside", "unreduced"))
@torch.no_grad()
def test_a_cache_that_was_cut_before_the_decoder_is_refused_by_a_model_that_does_not_cut_there(later):
    before = {"method": "tome", "site": "inputs", "keep_ratio": 0.5}
    model, inputs = model_and([1, ONE, 10, 11], [before, PARTS["pumer"]])
    given = {"max_new_tokens": 2, "do_sample": False}
    output = model.generate(**inputs, **given, return_dict_in_generate=True)
    chat = torch.cat([output.sequences, torch.tensor([[12, 13]])], dim=1)
    model.set_reduction(later)
    with pytest.raises(ValueError, match="past_key_values: it holds prompts that were cut before the decoder"):
        model.generate(chat, attention_mask=torch.ones_like(chat), past_key_values=output.past_key_values, **given)
    model.set_reduction([before, PARTS["pumer"]])
    model.generate(chat, attention_mask=torch.ones_like(chat), past_key_values=output.past_key_values, **given)


def test_frozen_pruners_cut_in_training_as_in_evaluation():
    part = {"method": "dynamicvit", "layers": [1], "prune_ratio": 0.5}
    model, inputs = model_and([1, ONE, 10, 11], part)
    expected = model(**inputs).logits
    model.layers_site.requires_grad_(False)
    model.train()
    torch.testing.assert_close(model(**inputs).logits, expected)
