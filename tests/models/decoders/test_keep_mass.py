"""`keep_mass` before a decoder: each image keeps its own number of tokens, whatever else is in the batch."""

import pytest
import torch
from models.decoders.oracle import stock
from models.decoders.tiny import ONE, TWO, tiny_inputs, tiny_model

from pumer_hf.recipes.generating import kept_of_prompts, watched

PART = {"method": "lookahead", "site": "inputs", "keep_mass": 0.7, "rank": 8}
PROMPTS = [[5, 6, ONE, 7, 8, 10, 11], [8, ONE, 9, 9, TWO, 3, 11, 12, 13], [4, ONE, 12]]
FASTV = {"method": "fastv", "layers": [0], "prune_ratio": 0.5}
CASES = {
    "llava": [PART],
    "llava per prompt": [{**PART, "per_prompt": True, "min_keep": 2}],
    "llava contiguous, then fastv": [{**PART, "positions": "contiguous"}, FASTV],
    "qwen2_vl": [PART],
    "gemma3": [{**PART, "diversity": None}],
}


def rows_of(traces, row, offset):
    """What was kept of the images of a prompt, by places in the prompt without padding."""
    return [(trace.kept - offset).tolist() for trace in traces if trace.row == row and trace.layer is None]


@torch.inference_mode()
@pytest.mark.parametrize("case", CASES)
def test_a_prompt_has_the_same_answer_alone_and_in_a_batch(case):
    name = case.split()[0]
    model = tiny_model(name, ours=True, reduction=CASES[case])
    for key, parameter in model.named_parameters():
        if "scorer" in key and parameter.ndim > 1:
            parameter.div_(4)  # else a single token has all of the mass
    inputs = tiny_inputs(stock(name), name, PROMPTS, pad_left=True)
    together = model(**inputs)
    with watched(model) as traces:
        answers = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    counts = kept_of_prompts(traces, len(PROMPTS))
    numbers = set()
    for row, prompt in enumerate(PROMPTS):
        one = tiny_inputs(stock(name), name, [prompt])
        alone = model(**one)
        torch.testing.assert_close(alone.logits[0, -1], together.logits[row, -1], atol=1e-5, rtol=1e-5)
        offset = inputs["input_ids"].shape[1] - one["input_ids"].shape[1]
        own = rows_of(alone.reduction, 0, 0)
        assert own == rows_of(together.reduction, row, offset)
        numbers |= set(map(len, own))
        assert counts[row] == sum(map(len, own))
        answer = model.generate(**one, max_new_tokens=3, do_sample=False)
        assert torch.equal(answer[0, -3:], answers[row, -3:])
    assert len(numbers) > 1
