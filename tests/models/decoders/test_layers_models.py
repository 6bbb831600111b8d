"""Models that reduce inside their decoder: saved, copied, compiled, observed, in threads, with a scorer."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from models.decoders.layers_oracle import FAMILIES, LayersOracle, pumer
from models.decoders.oracle import in_threads, ours, stock
from models.decoders.test_layers_generation import GREEDY, SAMPLED, answers, prompt_of
from models.decoders.test_layers_oracles import check, deep, first_layer
from models.decoders.tiny import ONE, TWO, tiny_inputs, tiny_model
from transformers import AutoModelForImageTextToText

from pumer_hf import reduced
from pumer_hf.models.decoders.observing import observe_decoder
from pumer_hf.models.families import DECODERS
from pumer_hf.training.scorer import add_scorer

PROMPTS = [[5, 6, ONE, 7, 10], [8, ONE, 9, 9, TWO, 3, 4]]
SCHEDULE = pumer(1, 3, prune=[0.4, 0.5], merge=0.2)


@pytest.mark.parametrize("name", FAMILIES)
def test_reduced_is_our_class_and_leaves_no_trace(name):
    inputs = prompt_of(name, PROMPTS)
    schedule, other = pumer(first_layer(name)), {"method": "tome", "layers": [1], "merge_ratio": 0.4}
    model = ours(name)
    model.set_reduction(schedule)
    expected = answers(model, inputs, **SAMPLED).sequences
    model.set_reduction(other)
    second = answers(model, inputs, **SAMPLED).sequences
    model = tiny_model(name)
    before, whole = dict(vars(model)), answers(model, inputs, **SAMPLED).sequences
    hooks = count_hooks(model)
    with reduced(model, schedule) as traces:
        assert torch.equal(answers(model, inputs, **SAMPLED).sequences, expected)
        with reduced(model, other) as inner:
            assert torch.equal(answers(model, inputs, **SAMPLED).sequences, second)
        assert len(inner) == 1
        assert torch.equal(answers(model, inputs, **SAMPLED).sequences, expected)
        assert len(traces) == 2
    assert [(trace.row, trace.layer) for trace in traces[0]] == [(row, first_layer(name)) for row in (0, 1, 1)]
    with pytest.raises(RuntimeError, match="mine"), reduced(model, schedule):
        raise RuntimeError("mine")
    assert vars(model).keys() == before.keys()
    assert count_hooks(model) == hooks
    assert model.config.get_text_config()._attn_implementation == "sdpa"
    assert torch.equal(answers(model, inputs, **SAMPLED).sequences, whole)


def count_hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize(
    "schedule", (SCHEDULE, [{"method": "diverse", "site": "inputs", "keep_ratio": 0.5}, SCHEDULE])
)
@pytest.mark.parametrize("name", FAMILIES)
def test_folders(name, schedule, tmp_path):
    inputs = prompt_of(name, PROMPTS)
    model = tiny_model(name, ours=True, reduction=schedule, num_hidden_layers=5)
    expected = answers(model, inputs, **GREEDY).sequences
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert loaded.reduction == model.reduction
    assert torch.equal(answers(loaded, inputs, **GREEDY).sequences, expected)
    plain = DECODERS[name].stock_class.from_pretrained(tmp_path)
    with reduced(plain, schedule):
        assert torch.equal(answers(plain, inputs, **GREEDY).sequences, expected)
    assert "_for_reduction" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("name", ("llava", "qwen3_vl", "paligemma"))
def test_copies(name):
    """A copy has its own schedule."""
    inputs = prompt_of(name, PROMPTS)
    model = tiny_model(name, ours=True, reduction=SCHEDULE, num_hidden_layers=5)
    expected = answers(model, inputs, **GREEDY, output_logits=True)
    copy = deepcopy(model)
    model.set_reduction(None)
    whole = answers(model, inputs, **GREEDY, output_logits=True)
    found = answers(copy, inputs, **GREEDY, output_logits=True)
    assert torch.equal(found.sequences, expected.sequences)
    assert torch.equal(found.logits[0], expected.logits[0])
    assert (whole.logits[0] - found.logits[0]).abs().max() > 1e-2
    plain = deep(name, False)
    assert torch.equal(whole.sequences, answers(plain, inputs, **GREEDY).sequences)


@pytest.mark.parametrize("name", ("llava", "qwen2_5_vl", "gemma3"))
def test_threads_generate_at_once(name):
    """With one model of ours, and with a stock one that reduces otherwise."""
    prompts = [PROMPTS, [[5, ONE, 9], [7, 7, 7]], [[3, TWO, 4, 4]], [[1, 2, 3]]]
    several = [prompt_of(name, prompt) for prompt in prompts]
    model, second = deep(name, True), tiny_model(name)
    model.set_reduction(SCHEDULE)
    expected = [answers(model, inputs, **GREEDY).sequences for inputs in several]
    with reduced(second, {"method": "tome", "layers": [1], "merge_ratio": 0.4}):
        expected += [answers(second, inputs, **GREEDY).sequences for inputs in several]
        found = in_threads(
            [partial(one.generate, **inputs, **GREEDY) for one in (model, second) for inputs in several]
        )
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("name", ("llava", "qwen3_vl", "paligemma", "gemma3"))
@torch.no_grad()
def test_a_compiled_prefill_gives_the_same(name):
    torch.compiler.reset()
    inputs = prompt_of(name, PROMPTS)
    model = tiny_model(name, ours=True, reduction=pumer(first_layer(name), prune=0.4, merge=0.2))
    expected = model(**inputs)
    found = torch.compile(model, backend="eager")(**inputs)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
    for one, two in zip(found.reduction, expected.reduction, strict=True):
        assert torch.equal(one.holder, two.holder)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_observer_sees_the_unreduced_model(name):
    inputs = prompt_of(name, PROMPTS)
    row, model = DECODERS[name], deep(name, True)
    plain = observe_decoder(row, deep(name, False), inputs, [2, 4])
    model.set_reduction(SCHEDULE)
    expected = answers(model, inputs, **GREEDY).sequences
    found = observe_decoder(row, model, inputs, [2, 4])
    for one, two in zip(plain, found, strict=True):
        for layer in (2, 4):
            torch.testing.assert_close(one.attention[layer], two.attention[layer], atol=1e-6, rtol=1e-5)
    second = tiny_model(name)
    with reduced(second, pumer(1)):
        seen = observe_decoder(row, second, inputs, [2], rows="answer", answer_tokens=2)
    for one, two in zip(
        observe_decoder(row, stock(name), inputs, [2], rows="answer", answer_tokens=2), seen, strict=True
    ):
        torch.testing.assert_close(one.attention[2], two.attention[2], atol=1e-6, rtol=1e-5)
    assert torch.equal(answers(model, inputs, **GREEDY).sequences, expected)


@pytest.mark.parametrize("name", ("llava", "qwen2_vl", "gemma3"))
@torch.no_grad()
def test_every_token_before_the_decoder_and_a_map_inside_it(name):
    """The map is the same, whether the input or a method before the decoder hands it on."""
    inputs = prompt_of(name, PROMPTS)
    model = deep(name, True)
    number = int((inputs["input_ids"] == 90).sum())
    maps = {"image_saliency": torch.rand(number, generator=torch.Generator().manual_seed(2))}
    grounded = {"method": "grounded", "layers": [1, 3], "prune_ratio": 0.4}
    model.set_reduction(grounded)
    expected = model(**inputs, **maps)
    plain = deep(name, False)
    check(expected, LayersOracle(name, plain, inputs, expected.reduction))
    start = 0
    for trace in expected.reduction[:3]:  # one row of images after the other
        assert trace.layer == 1
        values = maps["image_saliency"][start : start + len(trace.columns)]
        torch.testing.assert_close(trace.saliency, values)
        start += len(trace.columns)
    model.set_reduction([{"method": "diverse", "site": "inputs", "keep_ratio": 1.0}, grounded])
    found = model(**inputs, **maps)
    inside = [trace for trace in found.reduction if trace.layer is not None]
    for one, two in zip(inside, expected.reduction, strict=True):
        assert torch.equal(one.kept, two.kept)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(found.logits[real], expected.logits[real], atol=1e-5, rtol=1e-5)
    sequences = answers(model, inputs | maps, **GREEDY).sequences
    assert torch.equal(sequences, answers(model, inputs | maps, **GREEDY, use_cache=False).sequences)
    single = tiny_inputs(stock(name), name, PROMPTS[1:])
    own = int((single["input_ids"] == 90).sum())
    single["image_saliency"] = maps["image_saliency"][-own:]
    assert torch.equal(answers(model, single, **GREEDY).sequences[0, -5:], sequences[1, -5:])


@pytest.mark.parametrize("name", ("llava", "qwen2_5_vl", "paligemma"))
@torch.no_grad()
def test_a_scorer_before_the_decoder_chooses_inside_it(name):
    """It keeps every token before the decoder. PuMer prunes by its saliency in a layer."""
    model = tiny_model(name, ours=True, num_hidden_layers=5)
    add_scorer(model, {"method": "lookahead", "site": "inputs", "keep_ratio": 1.0, "rank": 8, "target_layer": 1})
    part = {"method": "lookahead", "site": "inputs", "keep_ratio": 1.0}
    model.set_reduction([part, pumer(1, prune=0.5, saliency="lookahead")])
    inputs = prompt_of(name, [[5, 6, ONE, 7, 10], [8, 9, TWO, 3, 4]])
    outputs = model(**inputs)
    check(outputs, LayersOracle(name, deep(name, False), inputs, outputs.reduction))
    before = {trace.row: trace for trace in outputs.reduction if trace.layer is None}
    inside = [trace for trace in outputs.reduction if trace.layer is not None]
    assert len(inside) == len(before) == 2
    for trace in inside:
        saliency = before[trace.row].saliency
        order = sorted(range(len(saliency)), key=lambda index: -float(saliency[index]))
        chosen = sorted(order[: len(saliency) - round(0.5 * len(saliency))])
        assert torch.equal(trace.kept, trace.columns[chosen])
    sequences = answers(model, inputs, **GREEDY).sequences
    assert torch.equal(sequences, answers(model, inputs, **GREEDY, use_cache=False).sequences)
