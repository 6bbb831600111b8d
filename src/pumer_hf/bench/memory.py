"""Peak memory of one call: what it allocates on top of what was there before."""

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

REGIMES = ("inference", "training")
"""A forward under `inference_mode`, and a step of training (forward and backward): never one figure for both."""


def peak_memory(call: Callable[[], Any], device: torch.device) -> int:
    """Bytes that a call has allocated at its peak, beyond those that were allocated before it.

    On CUDA by the statistics of the caching allocator. On a CPU by the profiler, which sees each tensor that comes and
    goes, but no scratch memory inside of libraries.

    Args:
        call: the function.
        device: on which it works.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate((size for _, size in changes), initial=0))


def activation_peaks(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, int]:
    """Peak bytes of activations in both `REGIMES`: weights, gradients and inputs do not count.

    Args:
        model: on the device of the inputs; is in eval mode afterwards, without gradients.
        inputs: keyword arguments of its forward.
    """
    device = next(iter(inputs.values())).device

    @torch.inference_mode()
    def infer() -> None:
        model(**inputs)

    def step() -> None:
        model(**inputs)[0].float().square().mean().backward()

    model.eval()
    infer()  # what a first call keeps for later does not count
    peaks = {"inference": peak_memory(infer, device)}
    model.train()
    step()  # so that the gradients are there
    peaks["training"] = peak_memory(step, device)
    model.zero_grad(set_to_none=True)
    model.eval()
    return peaks
