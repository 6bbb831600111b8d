"""Decoders that reduce inside learn: loss, gradients, checkpointing, and answers that are no evidence."""

from types import SimpleNamespace

import pytest
import torch
from models.decoders.layers_oracle import FAMILIES, LayersOracle, pumer
from models.decoders.oracle import kept_columns, stock
from models.decoders.test_layers_oracles import check, deep
from models.decoders.test_training import adapted, gradients
from models.decoders.tiny import IMAGE, ONE, SPREAD, TWO, tiny_inputs, tiny_model

from pumer_hf import reduced

QUESTIONS = [[5, 6, ONE, 7, 10], [8, ONE, 9, 9, TWO, 3, 4]]
ANSWERS = ([21, 22, 23], [24, 25])
SCHEDULES = {
    "pumer": pumer(1, 3, prune=0.4, merge=0.2),
    "tome": {"method": "tome", "layers": [1, 2], "merge_ratio": 0.4},
    "both": [{"method": "pumer", "site": "inputs", "keep_ratio": 0.6}, pumer(2, prune=0.4)],
}


def training_inputs(name, pad_left=False, answers=ANSWERS):
    """Questions and answers, with labels on the answers alone."""
    prompts = [[*question, *answer] for question, answer in zip(QUESTIONS, answers, strict=True)]
    inputs = tiny_inputs(stock(name), name, prompts, pad_left=pad_left)
    labels = torch.full_like(inputs["input_ids"], -100)
    for row, answer in enumerate(answers):
        end = int(inputs["attention_mask"][row].nonzero()[-1]) + 1
        labels[row, end - len(answer) : end] = torch.tensor(answer)
    if name == "paligemma":
        inputs["token_type_ids"] = (labels != -100).long()
    return inputs, labels


def check_gradients(found, expected, tolerance=2e-5):
    assert found.keys() == expected.keys()
    assert any("vis" in key and value.abs().max() > 1e-5 for key, value in expected.items())
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=tolerance, rtol=1e-3)


@pytest.mark.parametrize("pad_left", (False, True), ids=("right", "left"))
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients_are_those_of_the_stock_model_without_the_dropped_tokens(name, kind, pad_left):
    inputs, labels = training_inputs(name, pad_left)
    model = tiny_model(name, ours=True, reduction=SCHEDULES[kind], num_hidden_layers=5)
    outputs = model(**inputs, labels=labels)
    outputs.loss.backward()
    plain = tiny_model(name, num_hidden_layers=5)
    more = {"merge": True} if kind == "both" else {}
    oracle = LayersOracle(name, plain, inputs, outputs.reduction, sized=kind == "tome", labels=labels, **more)
    oracle.outputs.loss.backward()
    torch.testing.assert_close(outputs.loss, oracle.outputs.loss, atol=1e-5, rtol=1e-5)
    whole = stock_loss(name, inputs, labels)
    assert abs(float(outputs.loss.detach()) - whole) > 1e-4
    check_gradients(gradients(model), gradients(plain))


@torch.no_grad()
def stock_loss(name, inputs, labels):
    return float(deep(name, False)(**inputs, labels=labels).loss)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", (False, True), ids=("without_reentry", "with_reentry"))
@pytest.mark.parametrize("kind", ("pumer", "tome", "random"))
@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointing_changes_no_gradient(name, kind, reentrant):
    """Also of a method that draws its tokens in training."""
    inputs, labels = training_inputs(name)
    random = {"method": "random", "layers": [1, 2], "prune_ratio": 0.4}
    model = tiny_model(name, ours=True, reduction=SCHEDULES.get(kind, random), num_hidden_layers=5).train()
    model.enable_input_require_grads()
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.zero_grad()
        torch.manual_seed(4)
        outputs = model(**inputs, labels=labels, use_cache=False)
        outputs.loss.backward()
        found.append((outputs, {key: value.clone() for key, value in gradients(model).items()}))
    (before, expected), (after, others) = found
    assert torch.equal(kept_columns(inputs, before.reduction[-3:]), kept_columns(inputs, after.reduction[-3:]))
    check_gradients(others, expected, tolerance=1e-6)


@pytest.mark.parametrize(
    "schedule",
    (pumer(1, prune=0.6), {"method": "fastv", "layers": [1], "prune_ratio": 0.6}, pumer(2, merge=0.3)),
    ids=("pumer", "fastv", "merge"),
)
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_an_answer_is_no_evidence(name, schedule):
    """What is kept depends on no labelled token, not even on how many there are."""
    model = deep(name, True)
    model.set_reduction(schedule)
    kept = []
    for answers in (ANSWERS, ([31, 32, 33, 34], [35, 36, 37])):
        inputs, labels = training_inputs(name, answers=answers)
        kept.append([trace.kept.tolist() for trace in model(**inputs, labels=labels).reduction])
    inputs, _ = training_inputs(name, answers=([], []))
    kept.append([trace.kept.tolist() for trace in model(**inputs).reduction])
    assert kept[0] == kept[1] == kept[2]
    inputs, labels = training_inputs(name)  # without labels the same tokens are a part of the question
    assert [trace.kept.tolist() for trace in model(**inputs).reduction] != kept[0]


@pytest.mark.parametrize("name", ("llava", "qwen3_vl"))
def test_a_label_on_an_image_token_is_an_error(name):
    inputs, _ = training_inputs(name)
    model = deep(name, True)
    model.set_reduction(pumer(1))
    with pytest.raises(ValueError, match="labels: .*-100"):
        model(**inputs, labels=inputs["input_ids"])


def test_a_prompt_that_is_all_answer_is_an_error():
    inputs, _ = training_inputs("llava")
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
    model = deep("llava", True)
    for part in (pumer(1), {"method": "random", "layers": [2], "prune_ratio": 0.2}):
        model.set_reduction(part)
        with pytest.raises(ValueError, match="^labels: an answer begins right after an image"):
            model(**inputs, labels=labels)


@pytest.mark.parametrize("name", ("llava", "qwen2_5_vl", "gemma3"))
def test_adapters_around(name):
    inputs, labels = training_inputs(name)
    torch.manual_seed(3)
    around = adapted(tiny_model(name, ours=True, reduction=SCHEDULES["pumer"], num_hidden_layers=5), name)
    outputs = around(**inputs, labels=labels)
    outputs.loss.backward()
    assert all("lora_" in key for key in gradients(around))
    torch.manual_seed(3)
    wrapped = adapted(tiny_model(name, num_hidden_layers=5), name)
    with reduced(wrapped, SCHEDULES["pumer"]) as traces:
        other = wrapped(**inputs, labels=labels)
        other.loss.backward()
    assert len(traces[0]) == len(outputs.reduction) == 6
    torch.testing.assert_close(other.loss, outputs.loss)
    others = gradients(wrapped)
    for key, value in gradients(around).items():
        torch.testing.assert_close(others[key], value)
    whole = wrapped(**inputs, labels=labels)
    assert "reduction" not in whole
    assert (whole.logits - outputs.logits).abs().max() > 1e-2


LEARNED = {
    "dynamicvit": {"method": "dynamicvit", "layers": [1, 3], "prune_ratio": 0.4},
    "tip": {
        "method": "tip",
        "layers": [1, 3],
        "prune_ratio": 0.4,
        "continuity_weight": 0.0,
        "contrastive_weight": 0.0,
    },
}


@pytest.mark.parametrize("kind", LEARNED)
@pytest.mark.parametrize("name", FAMILIES)
def test_methods_that_learn_mask_tokens_in_training(name, kind):
    """A token that is not drawn stays, but no other one attends to it. In eval mode it is cut."""
    inputs, labels = training_inputs(name)
    model = tiny_model(name, ours=True, reduction=LEARNED[kind], num_hidden_layers=5).train()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "pruners" in key and value.ndim > 1:
                value.div_(SPREAD * SPREAD)  # so that the draws are not certain
    torch.manual_seed(5)
    outputs = model(**inputs, labels=labels)
    outputs.loss.backward()
    seen = []
    for trace in outputs.reduction:
        drawn = trace.columns[trace.holder == trace.columns]
        assert 0 < len(drawn) < len(trace.columns)
        seen.append(SimpleNamespace(row=trace.row, layer=trace.layer, columns=drawn, holder=drawn, kept=drawn))
    plain = tiny_model(name, num_hidden_layers=5)
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if "layers_site" not in key})
    oracle = LayersOracle(name, plain, inputs, seen, labels=labels)
    check(outputs, oracle)
    torch.testing.assert_close(outputs.loss, oracle.outputs.loss, atol=1e-5, rtol=1e-5)
    learned = {key: value for key, value in gradients(model).items() if "pruners" in key}
    assert learned
    assert any(value.abs().sum() > 0 for value in learned.values())
    model.eval()
    with torch.no_grad():
        outputs = model(**inputs)
        check(outputs, LayersOracle(name, plain, inputs, outputs.reduction))
