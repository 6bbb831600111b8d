"""What decoders that reduce inside return: lengths, attentions, few logits, tuples, kernels, precision."""

from copy import deepcopy

import pytest
import torch
from models.decoders.layers_oracle import FAMILIES, LayersOracle, pumer
from models.decoders.oracle import ours
from models.decoders.test_layers_generation import GREEDY, answers, prompt_of
from models.decoders.test_layers_oracles import check, deep
from models.decoders.tiny import IMAGE, ONE, TWO, tiny_model

PROMPTS = [[5, 6, ONE, 7, 10], [8, ONE, 9, 9, TWO, 3, 4]]
CUTS = {
    "pumer": pumer(1, 3, prune=0.5, merge=0.2),
    "tome": {"method": "tome", "layers": [1, 2], "merge_ratio": 0.3},
    "random": {"method": "random", "layers": [2], "prune_ratio": 0.95},
    "several": [pumer(1, prune=0.4), {"method": "tome", "layers": [3], "merge_ratio": 0.3}],
    "both": [{"method": "diverse", "site": "inputs", "keep_ratio": 0.5}, pumer(2, prune=0.3, merge=0.1)],
    "inputs": {"method": "tome", "site": "inputs", "merge_ratio": 0.3},
}


@pytest.mark.parametrize("kind", CUTS)
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_hidden_states_have_the_announced_lengths(name, kind):
    """A layer gives what came into it. What is left after it goes into the next one. The end has all columns again."""
    inputs = prompt_of(name, [[5, 6, ONE, 7, 10]])
    model = deep(name, True)
    model.set_reduction(CUTS[kind])
    outputs = model(**inputs, output_hidden_states=True)
    is_image = inputs["input_ids"] == IMAGE
    num_image = int(is_image.sum())
    num_text = is_image.numel() - num_image
    announced = model.output_lengths(num_text, num_image)
    assert {text for text, _ in announced} == {num_text}
    assert announced[-1][1] == len(outputs.reduction[-1].kept) < num_image
    before = [trace for trace in outputs.reduction if trace.layer is None]
    begin = num_text + (len(before[0].kept) if before else num_image)
    through = [text + image for text, image in announced]
    expected = [begin, begin, *through[:-1], begin]
    assert [states.shape[1] for states in outputs.hidden_states] == expected
    states = model(**inputs, output_hidden_states=True, output_attentions=False).hidden_states
    assert all(torch.equal(one, two) for one, two in zip(states, outputs.hidden_states, strict=True))


@pytest.mark.parametrize("name", ("llava", "qwen2_vl"))
def test_a_prompt_without_an_image_has_all_its_tokens(name):
    model = deep(name, True)
    model.set_reduction(CUTS["pumer"])
    assert model.output_lengths(7, 0) == [(7, 0)] * 4


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_few_logits_and_tuples(name):
    inputs = prompt_of(name, PROMPTS)
    model = deep(name, True)
    model.set_reduction(CUTS["pumer"])
    outputs = model(**inputs)
    assert outputs.logits.shape[:2] == inputs["input_ids"].shape
    few = model(**inputs, logits_to_keep=2)
    torch.testing.assert_close(few.logits, outputs.logits[:, -2:], atol=1e-6, rtol=1e-6)
    assert len(few.reduction) == len(outputs.reduction) == 6
    as_tuple = model(**inputs, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], outputs.logits)


@pytest.mark.parametrize("kind", ("pumer", "tome", "several"))
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_both_kernels_give_the_same(name, kind):
    """The eager one shows the attention of each layer to what is left."""
    inputs = prompt_of(name, PROMPTS)
    found = {}
    for kernel in ("sdpa", "eager"):
        model = tiny_model(name, ours=True, reduction=CUTS[kind], num_hidden_layers=5)
        model.set_attn_implementation(kernel)
        found[kernel] = model(**inputs, output_attentions=kernel == "eager")
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(found["sdpa"].logits[real], found["eager"].logits[real], atol=1e-5, rtol=1e-5)
    lengths = [attention.shape[2:] for attention in found["eager"].attentions]
    assert all(queries == keys for queries, keys in lengths)
    assert lengths[0][0] == lengths[1][0] == inputs["input_ids"].shape[1] > lengths[-1][0]
    for one, two in zip(found["sdpa"].reduction, found["eager"].reduction, strict=True):
        assert torch.equal(one.kept, two.kept)
        assert torch.equal(one.holder, two.holder)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=("bfloat16", "float16"))
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_half_precision_picks_the_same_tokens_with_every_kernel(name, dtype):
    inputs = prompt_of(name, PROMPTS)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    model = deepcopy(deep(name, True)).to(dtype)
    plain = deepcopy(deep(name, False)).to(dtype)
    kept = {}
    for kernel in ("sdpa", "eager"):
        model.set_attn_implementation({"text_config": kernel, "vision_config": "sdpa"})
        model.set_reduction(pumer(0 if name != "qwen3_vl" else 1, prune=0.6))
        outputs = model(**inputs)
        assert outputs.logits.dtype == dtype
        assert outputs.logits.isfinite().all()
        kept[kernel] = [trace.kept.tolist() for trace in outputs.reduction]
        model.set_reduction(CUTS["tome"])
        found = answers(model, inputs, **GREEDY)
        oracle = LayersOracle(name, plain, inputs, model(**inputs).reduction, sized=True)
        for row, expected in zip(oracle.rows(model(**inputs).logits), oracle.logits, strict=True):
            assert (row - expected).float().abs().mean() < 0.1 * expected.float().abs().mean()
        assert torch.equal(found.sequences[:, :-5], inputs["input_ids"])
        model.set_reduction(pumer(1, prune=0.0))
        plain.set_attn_implementation({"text_config": kernel, "vision_config": "sdpa"})
        assert torch.equal(answers(model, inputs, **GREEDY).sequences, answers(plain, inputs, **GREEDY).sequences)
    assert kept["sdpa"] == kept["eager"]


@pytest.mark.parametrize("name", ("llava", "qwen2_5_vl", "gemma3", "paligemma"))
@torch.no_grad()
def test_autocast(name):
    inputs = prompt_of(name, PROMPTS)
    model = deep(name, True)
    for kind in ("pumer", "tome"):
        model.set_reduction(CUTS[kind])
        exact = model(**inputs).logits
        with torch.autocast("cpu", torch.bfloat16):
            found = model(**inputs).logits
        real = inputs["attention_mask"].bool()
        real &= inputs["input_ids"] != IMAGE  # other image tokens may stay
        assert (found[real] - exact[real]).float().abs().mean() < 0.2 * exact[real].abs().mean()


def test_another_kernel_is_named():
    model = tiny_model("llava", ours=True, reduction=pumer(1))
    model.config.get_text_config()._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="attn_implementation='flash_attention_2'.*'sdpa'"):
        model(**prompt_of("llava", PROMPTS))


@pytest.mark.parametrize("name", ("llava", "qwen2_5_vl"))
@torch.no_grad()
def test_gaps_in_the_positions_are_no_new_texts(name):
    """Without a mask and without a cache, transformers reads gaps in positions as several texts in one row."""
    inputs = prompt_of(name, [[5, 6, ONE, 7, 10]])
    model = deep(name, True)
    model.set_reduction(CUTS["both"])
    expected = model(**inputs).logits
    mask = inputs.pop("attention_mask")
    assert bool(mask.all())
    outputs = model(**inputs, use_cache=False)
    torch.testing.assert_close(outputs.logits, expected, atol=1e-6, rtol=1e-6)
    model.set_reduction(CUTS["pumer"])
    found = model(**inputs, use_cache=False)
    oracle = LayersOracle(name, deep(name, False), inputs | {"attention_mask": mask}, found.reduction)
    check(found, oracle)


@torch.no_grad()
def test_padding_is_masked_in_the_layers_after_a_cut():
    """An attention function that is registered without its mask function attends to padding."""
    model = ours("llava")
    model.set_reduction(pumer(0))
    inputs = prompt_of("llava", [[5, 6, ONE, 7, 10], [5, 6, 7, 7, 8, 9, ONE, 7, 10, 11, 12]])
    found = model(**inputs).logits
    padded = inputs["attention_mask"] == 0
    assert bool(padded.any())
    inputs["input_ids"][padded] = 13
    torch.testing.assert_close(model(**inputs).logits[~padded], found[~padded], atol=1e-6, rtol=1e-6)
