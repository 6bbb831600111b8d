"""Multiply-adds of a forward at full size against Table 7 of the paper: of ViLT a real one with random weights, of
METER one on the meta device, which runs the same operations.
"""

import pytest
import torch
from torch import nn

from pumer_hf import (
    PuMerMeterConfig,
    PuMerMeterForImagesAndTextClassification,
    PuMerMeterModel,
    PuMerViltConfig,
    PuMerViltModel,
    preset,
)
from pumer_hf.flops import count_flops


@pytest.fixture(scope="module")
def vilt():
    """One full-size ViLT for all rows."""
    return PuMerViltModel(PuMerViltConfig())


@pytest.mark.parametrize(
    ("task", "paper", "design", "tokens"),
    [
        (None, 16, 15.95, []),
        ("vqav2", 8.7, 8.70, [(26, 87), (21, 52), (17, 31)]),
        ("snli_ve", 7.7, 7.65, [(26, 87), (21, 52), (17, 31), (14, 19)]),
    ],
)
def test_vilt_matches_table_7(vilt, task, paper, design, tokens):
    vilt.set_reduction(None if task is None else preset("vilt", task))
    inputs = {"input_ids": torch.ones(1, 32, dtype=torch.long), "pixel_values": torch.zeros(1, 3, 384, 384)}
    flops, outputs = count_flops(vilt, inputs)
    assert flops / 1e9 == pytest.approx(design, rel=0.01)
    assert flops / 1e9 == pytest.approx(paper, rel=0.01)
    assert [(trace.num_text, trace.num_image) for trace in outputs.reduction] == tokens


@pytest.fixture(scope="module")
def meter():
    """One full-size METER for all rows: its backbone for one image, the whole for two."""
    with torch.device("meta"):
        return PuMerMeterForImagesAndTextClassification(PuMerMeterConfig(num_images=2, modality_type_vocab_size=3))


METER_VQA = [(26, 347), (21, 209), (17, 125), (14, 75)]
METER_VE = [(26, 203), (21, 72), (17, 26), (14, 10)]


@pytest.mark.parametrize(
    ("task", "num_images", "paper", "design", "tokens"),
    [
        (None, 1, 92, 91.9, []),
        ("vqav2", 1, 64.7, 64.6, METER_VQA),
        ("snli_ve", 1, 59, 59.0, METER_VE),
        (None, 2, 184, 183.8, []),
        ("nlvr2", 2, 131, 130.8, 2 * METER_VE[:3]),
    ],
)
def test_meter_matches_table_7(meter, task, num_images, paper, design, tokens):
    meter.set_reduction(None if task is None else preset("meter", task))
    with torch.device("meta"):
        images = torch.zeros(1, 2, 3, 384, 384) if num_images == 2 else torch.zeros(1, 3, 384, 384)
        inputs = {"input_ids": torch.full((1, 32), 5), "pixel_values": images}
    flops, outputs = count_flops(meter if num_images == 2 else meter.meter, inputs)
    assert flops / 1e9 == pytest.approx(design, rel=0.01)
    assert flops / 1e9 == pytest.approx(paper, rel=0.01)
    assert [(trace.num_text, trace.num_image) for trace in outputs.reduction] == tokens


TOWER = {"method": "tome", "site": "tower"}


@pytest.mark.parametrize(("ratio", "gflops", "left"), [(0.0, 64.7, 577), (0.08, 39.9, 231)])
def test_merging_in_the_image_tower_goes_beyond_the_paper(ratio, gflops, left):
    with torch.device("meta"):
        model = PuMerMeterModel(
            PuMerMeterConfig(reduction=[preset("meter", "vqav2"), {**TOWER, "merge_ratio": ratio}])
        )
        inputs = {"input_ids": torch.full((1, 32), 5), "pixel_values": torch.zeros(1, 3, 384, 384)}
    flops, outputs = count_flops(model, {**inputs, "output_hidden_states": True})
    assert flops / 1e9 == pytest.approx(gflops, rel=0.005)
    assert outputs.hidden_states[0].shape[1] == 32 + left


def test_attention_on_cpu_is_counted():
    class Attention(nn.Module):
        def forward(self, states):
            return nn.functional.scaled_dot_product_attention(states, states, states)

    flops, _ = count_flops(Attention(), {"states": torch.randn(1, 2, 8, 4)})
    assert flops == 2 * 2 * 8 * 8 * 4  # two products of 8 x 8 x 4, in each of two heads


def test_the_training_mode_is_kept():
    model = nn.Linear(3, 2).train()
    flops, outputs = count_flops(model, {"input": torch.randn(5, 3)})
    assert flops == 5 * 3 * 2
    assert model.training
    assert not outputs.requires_grad
