"""Feed-forward parts in pieces: the same results from less memory."""

import pytest
import torch
from tiny import PUMER
from tiny_models import FAMILIES
from torch import nn

from pumer_hf.bench.contenders import random_inputs
from pumer_hf.bench.full_size import paper_model
from pumer_hf.bench.profiles import activation_peaks
from pumer_hf.models.encoders.base import PuMerPreTrainedModel
from pumer_hf.models.encoders.chunking import MIN_CHUNK, tokenwise

SCHEDULE = {**PUMER, "layers": [1, 2], "image_merge_ratio": 0.4, "text_merge_ratio": 0.2}


def test_pieces_give_the_same():
    function = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.GELU())
    states = torch.randn(3, 5, 4)
    with torch.no_grad():
        whole = tokenwise(function, states, None)
        assert whole is not states
        for chunk in (1, 4, 14, 15, 16):
            given = states.clone()
            result = tokenwise(function, given, chunk)
            assert torch.allclose(result, whole, atol=1e-6)
            assert (result is given) == (chunk < 15)


def wide(family):
    """A model whose tokens are many enough for pieces: 17 x 17 image tokens of width 32; and inputs for it.

    In float64, so that no rounding decides which of two tokens that are all but equally alike is merged.
    """
    if family == "vilt":
        model = FAMILIES[family].model(
            SCHEDULE, image_size=64, patch_size=4, hidden_size=32, intermediate_size=512, hidden_act="gelu"
        )
    else:
        vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
        vision |= {"image_size": 64, "patch_size": 4}
        model = FAMILIES[family].model(SCHEDULE, vision_config=vision, hidden_size=32, intermediate_size=512)
    inputs = random_inputs(model, 8, 9)
    return model.double(), inputs | {"pixel_values": inputs["pixel_values"].double()}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_need_less_memory(family, monkeypatch):
    model, inputs = wide(family)
    assert model.chunk_size(8, 9, 257) is None  # gradients need it all
    with torch.inference_mode():
        assert 8 * 266 / 2 > model.chunk_size(8, 9, 257) >= MIN_CHUNK
        in_pieces = model(**inputs).logits
    whole = model(**inputs).logits
    assert torch.allclose(in_pieces, whole, atol=1e-10)

    peak = activation_peaks(model, inputs)["inference"]
    monkeypatch.setattr(PuMerPreTrainedModel, "chunk_size", lambda *args: None)
    assert peak < 0.8 * activation_peaks(model, inputs)["inference"]


@pytest.mark.slow
@pytest.mark.parametrize("setting", [("vilt", "vqav2", 8), ("meter", "vqav2", 4)], ids=lambda setting: setting[0])
def test_memory_at_full_size(setting):
    *names, batch_size = setting
    model = paper_model(*names)
    inputs = random_inputs(model, batch_size, 32)
    reduced = activation_peaks(model, inputs)
    model.set_reduction(None)
    unreduced = activation_peaks(model, inputs)
    assert reduced["inference"] <= 0.6 * unreduced["inference"]
    assert reduced["training"] <= 0.62 * unreduced["training"]


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_and_what_hooks_see_are_not_overwritten(family):
    model, inputs = wide(family)
    seen = []
    layers = model.base_model.encoder.layer if family == "vilt" else model.base_model.pairs
    for layer in layers:
        layer.register_forward_hook(lambda module, given, made: seen.append((made[0], made[0].clone())))
    with torch.no_grad():
        in_pieces = model(**inputs, output_hidden_states=True).hidden_states
    whole = model(**inputs, output_hidden_states=True).hidden_states
    for one, other in zip(in_pieces, whole, strict=True):
        assert torch.allclose(one, other, atol=1e-10)
    assert all(torch.equal(now, then) for now, then in seen)
