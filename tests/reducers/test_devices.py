"""A reduction stays on the device of its tokens. No GPU is needed: the device "meta" is another one than the CPU."""

import pytest
import torch
from tiny_models import REDUCTIONS, parts_of
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pumer_hf import ops
from pumer_hf.models.encoders.release import ReleaseKernel
from pumer_hf.reducers import build_reducer
from pumer_hf.reducers.release import MeterReleaseReducer, ReleaseReducer
from pumer_hf.tokens import Evidence, TokenPair, Tokens

WIDTH, DEVICE = 6, "meta"
RELEASES = (ReleaseReducer, MeterReleaseReducer)
CASES = [
    *((name, None, training) for name in REDUCTIONS if name != "none" for training in (False, True)),
    *((name, release, False) for name in ("pumer-small", "pumer-extreme") for release in RELEASES),
]


class OneDevice(TorchDispatchMode):
    """Every operation whose tensors are on two devices is an error, as it is with a GPU; a scalar may be anywhere."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [leaf for leaf in _pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.ndim}
        assert len(devices) <= 1, f"{func} of tensors on {devices}"
        return func(*args, **(kwargs or {}))


def tokens(length: int) -> Tokens:
    mask = torch.ones(2, length, dtype=torch.bool, device=DEVICE)
    prior = torch.ones(2, length, device=DEVICE)
    return Tokens.initial(torch.ones(2, length, WIDTH, device=DEVICE), mask, prior, (4, 4))


@pytest.mark.parametrize(("name", "release", "training"), CASES)
def test_a_reduction_stays_on_the_device_of_its_tokens(name, release, training):
    schedule = parts_of(REDUCTIONS[name])[-1]
    reducer = build_reducer(schedule, WIDTH) if release is None else release(schedule, WIDTH)
    reducer = reducer.to(DEVICE).train(training)
    pair = TokenPair(tokens(9), tokens(17))
    pair = pair if release is None else ReleaseKernel().begin(pair)
    keys = (torch.ones(2, length, 3, device=DEVICE) for length in (9, 17))
    evidence = Evidence(torch.ones(2, 2, 9, 17, device=DEVICE), *keys)
    with OneDevice():
        result = reducer(schedule.layers[0] if schedule.layers else 0, pair, evidence)
    made = [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    assert {tensor.device.type for tensor in made} == {DEVICE}


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("ratio", [0, 1])
def test_a_matching_stays_on_the_device_of_its_metric(length, ratio):
    mask = torch.ones(2, length, dtype=torch.bool, device=DEVICE)
    with OneDevice():
        metric = torch.ones(2, length, 3, device=DEVICE)
        matching = ops.bipartite_soft_matching(metric, mask, ratio * ops.max_merges(length))
        positions = ops.merge_positions(*matching, length)
    for part in (*matching, positions):
        assert (part.device.type, part.dtype) == (DEVICE, torch.long)
