"""The layers of a cache that hold fewer keys."""

import pytest
import torch

from pumer_hf.models.decoders.cut_cache import CutLayer
from pumer_hf.models.decoders.random_inputs import prompts

from .tiny import tiny_model

CUT = {"method": "random", "layers": [0], "prune_ratio": 0.5}


def answered(batch, new_tokens):
    """A cut layer after an answer, and the columns of the prompt that it holds."""
    model = tiny_model("llava", ours=True, reduction=CUT)
    inputs = prompts(model, batch, 5)
    with torch.inference_mode():
        (trace, *_) = model(**inputs).reduction
        output = model.generate(
            **inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens, return_dict_in_generate=True
        )
    return output.past_key_values.layers[1], [*trace.kept.tolist(), *range(36, 41)]


@pytest.mark.parametrize("batch", [1, 2])
def test_tokens_of_an_answer_have_the_next_columns(batch):
    layer, prompt = answered(batch, 4)
    assert isinstance(layer, CutLayer)
    assert layer._columns.shape[1] == len(prompt)  # no token of the answer costs an operation
    assert layer.columns[0].tolist() == [*prompt, 41, 42, 43]
    assert layer.columns.shape == (batch, layer.keys.shape[2])


def test_columns_follow_what_happens_to_the_cache():
    layer, prompt = answered(2, 4)
    layer.reorder_cache(torch.tensor([1, 1]))
    layer.crop(-1)
    assert layer.columns[0].tolist() == [*prompt, 41, 42]
    assert layer.get_seq_length() == 43
    layer.batch_repeat_interleave(2)
    assert layer.columns.shape == (4, layer.keys.shape[2])
    assert layer.note_step(1)
    layer.update(*[torch.zeros(4, *layer.keys.shape[1:2], 1, layer.keys.shape[3])] * 2)
    assert layer.columns[3].tolist()[-2:] == [42, 43]


def test_a_step_that_needs_a_mask_is_noted_by_its_columns():
    layer, _ = answered(1, 3)
    assert not CutLayer().note_step(1)
    layer.weight = torch.ones(1, layer.keys.shape[2])
    assert not layer.note_step(1)
    layer.weight, layer.window = None, layer.seen
    assert not layer.note_step(1)
    layer.window, layer.padded = None, True
    assert not layer.note_step(1)
