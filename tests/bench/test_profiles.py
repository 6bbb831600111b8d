import pytest
import torch
from tiny_models import FAMILIES, schedule
from torch import nn

from pumer_hf.bench.contenders import random_inputs
from pumer_hf.bench.profiles import activation_peaks, peak_memory, reduction_share

CPU = torch.device("cpu")


def test_the_peak_is_what_was_there_at_once():
    kept = []

    def work():
        first = torch.zeros(1000)
        second = torch.zeros(2000)
        del first
        kept.append(torch.zeros(500))
        del second

    assert peak_memory(work, CPU) == 4 * 3000
    kept.clear()  # freed now, and so not counted
    assert peak_memory(kept.clear, CPU) == 0


def test_both_regimes():
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
    model.train()
    peaks = activation_peaks(Named(model), {"x": torch.zeros(100, 8)})
    unit = 4 * 100 * 8
    assert peaks["inference"] == 2 * unit  # what goes into a layer and what comes out
    assert peaks["training"] >= 3 * unit
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


class Named(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return (self.model(x),)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_share_of_the_reduction(family):
    reduced, unreduced = family.model(schedule("pumer", "small")), family.model()
    inputs = random_inputs(reduced, 2, 9)
    assert reduction_share(unreduced, inputs) == 0
    assert 0.02 < reduction_share(reduced, inputs) < 1  # much of a tiny model
