"""Decoder models learn with fewer image tokens: labels, gradients, checkpointing, lower precision, adapters."""

import inspect
from copy import deepcopy

import pytest
import torch
from models.decoders.oracle import NAMES, Oracle, ours, stock
from models.decoders.tiny import IMAGE, ONE, TWO, tiny_inputs, tiny_model
from torch.nn import functional as F

from pumer_hf import reduced

PUMER = {"method": "pumer", "site": "inputs", "keep_ratio": 0.3}
GRID = {"method": "grid", "site": "inputs", "keep_ratio": 0.25}
PROMPTS = [[5, 6, ONE, 7, 8, 10], [8, ONE, 9, 9, TWO, 3, 11, 12]]


def training_inputs(name, pad_left=False):
    """Prompts with labels on their words, even on one that follows an image."""
    inputs = tiny_inputs(stock(name), name, PROMPTS, pad_left=pad_left)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
    labels = labels.masked_fill(inputs["attention_mask"] == 0, -100)
    words = inputs["attention_mask"].cumsum(dim=1)
    labels = labels.masked_fill(words <= 3, -100)  # nothing comes before the first word of a row
    if name == "paligemma":
        inputs["token_type_ids"] = (labels != -100).long()
    return inputs, labels


def hand_loss(oracle, labels):
    """The loss of the next token, of the tokens that stay."""
    logits = torch.cat([row[:-1] for row in oracle.logits])
    wanted = torch.cat([row[stays][1:] for row, stays in zip(labels, oracle.keep, strict=True)])
    return F.cross_entropy(logits.float(), wanted)


def gradients(model):
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("pad_left", (False, True), ids=("right", "left"))
@pytest.mark.parametrize("schedule", (PUMER, GRID), ids=("pumer", "grid"))
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_the_stock_model_without_the_dropped_tokens(name, schedule, pad_left):
    inputs, labels = training_inputs(name, pad_left)
    assert int((labels != -100).sum()) >= 5
    model = tiny_model(name, ours=True, reduction=schedule)
    outputs = model(**inputs, labels=labels)
    outputs.loss.backward()
    plain = tiny_model(name)
    oracle = Oracle(name, plain, inputs, outputs.reduction, merge=schedule is PUMER, labels=labels)
    expected = hand_loss(oracle, labels)
    expected.backward()
    torch.testing.assert_close(outputs.loss, expected, atol=1e-5, rtol=1e-5)
    wanted = gradients(plain)
    found = gradients(model)
    assert found.keys() == wanted.keys()
    assert any("vis" in key and value.abs().max() > 1e-5 for key, value in wanted.items())
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ("llava", "qwen3_vl"))
def test_a_label_on_an_image_token_that_goes_is_an_error(name):
    inputs, _ = training_inputs(name)
    model = tiny_model(name, ours=True, reduction=GRID)
    with pytest.raises(ValueError, match="labels: .*-100"):
        model(**inputs, labels=inputs["input_ids"])


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_changes_no_gradient(name):
    inputs, labels = training_inputs(name)
    model = tiny_model(name, ours=True, reduction=PUMER).train()
    model(**inputs, labels=labels, use_cache=False).loss.backward()
    expected = {key: value.clone() for key, value in gradients(model).items()}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model(**inputs, labels=labels, use_cache=False).loss.backward()
    found = gradients(model)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_bfloat16(name):
    plain = deepcopy(stock(name)).to(torch.bfloat16)
    model = tiny_model(name, ours=True, reduction=PUMER).to(torch.bfloat16)
    inputs = tiny_inputs(plain, name, PROMPTS)
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    outputs = model(**inputs)
    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.logits.isfinite().all()
    oracle = Oracle(name, plain, inputs, outputs.reduction, merge=True)
    for row, stays, expected in zip(outputs.logits, oracle.keep, oracle.logits, strict=True):
        difference = row[len(row) - int(stays.sum()) :] - expected
        assert difference.abs().mean() < 0.1 * expected.abs().mean()
    model.set_reduction({**PUMER, "keep_ratio": 1.0})
    given = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(**inputs, **given), plain.generate(**inputs, **given))


def adapted(model, name):
    peft = pytest.importorskip("peft", reason="adapters need peft")
    targets = r".*(language_model|text_model).*\.(q_proj|v_proj)"
    adapters = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    assert any("lora_" in key for key, _ in adapters.named_parameters())
    return adapters.eval()


@pytest.mark.parametrize("name", NAMES)
def test_adapters_around_and_merged(name):
    inputs = tiny_inputs(stock(name), name, PROMPTS)
    given = {"max_new_tokens": 4, "do_sample": False}
    torch.manual_seed(3)
    around = adapted(tiny_model(name, ours=True, reduction=PUMER), name)
    answers = around.generate(**inputs, **given)
    with torch.no_grad():
        logits = around(**inputs).logits
        assert logits.shape[1] < inputs["input_ids"].shape[1]
    torch.manual_seed(3)
    wrapped = adapted(tiny_model(name), name)
    whole = wrapped.generate(**inputs, **given)
    with reduced(wrapped, PUMER) as traces, torch.no_grad():
        assert torch.equal(wrapped.generate(**inputs, **given), answers)
        torch.testing.assert_close(wrapped(**inputs).logits, logits, atol=1e-6, rtol=1e-6)
    assert [len(call) for call in traces] == [3, 3]
    assert torch.equal(wrapped.generate(**inputs, **given), whole)
    with torch.no_grad():
        merged = around.merge_and_unload()
        torch.testing.assert_close(merged(**inputs).logits, logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(merged.generate(**inputs, **given)[:, :-4], inputs["input_ids"])


def test_adapters_learn():
    inputs, labels = training_inputs("llava")
    model = adapted(tiny_model("llava", ours=True, reduction=PUMER), "llava").train()
    model(**inputs, labels=labels).loss.backward()
    found = gradients(model)
    assert found
    assert all("lora_" in key for key in found)
    assert all(value.abs().sum() > 0 for value in found.values())


def test_the_trainer_sees_the_arguments_of_the_stock_forward():
    stock_names = inspect.signature(type(stock("llava")).forward).parameters
    assert list(inspect.signature(type(ours("llava")).forward).parameters) == list(stock_names)
