"""Profiles one call: its peak memory, and the part of its time that goes into reducing tokens."""

import os
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from ..models.profiling import REDUCTION_REGION

FORWARDS = 3
"""How many forwards are profiled for their time."""
WHOLE_REGION = "pumer_hf::forward"
"""The name of a profiled forward in profiles."""


def profiler(device: torch.device, memory: bool = False) -> profile:
    """Return a profiler that writes nothing to the terminal."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # read when the first profiler starts
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    return profile(activities=activities, profile_memory=memory, acc_events=True)  # without it, torch 2.10 warns


def peak_memory(call: Callable[[], Any], device: torch.device) -> int:
    """Measure how many bytes a call has allocated at its peak, beyond those that were allocated before it.

    On CUDA, the caching allocator counts the bytes. On a CPU, the profiler counts them. The profiler sees each tensor
    that is allocated and freed, but not the memory that libraries use inside.

    Args:
        call: the function.
        device: the device on which the function works.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profiler(device, memory=True) as profiled:
        call()
    events = profiled.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate((size for _, size in changes), initial=0))


def activation_peaks(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, int]:
    """Measure the peak bytes of activations in both regimes. Weights, their gradients and inputs do not count.

    Args:
        model: a model on the device of the inputs. Afterwards it is in eval mode and has no gradients.
        inputs: keyword arguments of its forward.

    Returns:
        The bytes by name of the regime ([`Memory`]).
    """
    device = next(iter(inputs.values())).device

    @torch.inference_mode()
    def infer() -> None:
        model(**inputs)

    def step() -> None:
        model(**inputs)[0].float().square().mean().backward()

    model.eval()
    infer()  # what the first call keeps for later calls does not count
    peaks = {"inference": peak_memory(infer, device)}
    model.train()
    step()  # it allocates the gradients, which do not count
    peaks["training"] = peak_memory(step, device)
    model.zero_grad(set_to_none=True)
    model.eval()
    return peaks


@torch.inference_mode()
def reduction_share(model: nn.Module, inputs: dict[str, Tensor]) -> float:
    """Measure the part of a forward's time that goes into reducing tokens: collecting the evidence, deciding, moving.

    The time is measured on the device: on CUDA, it is the time of the kernels. It does not contain what the reduction
    saves.

    Args:
        model: in eval mode, not compiled, on the device of the inputs.
        inputs: keyword arguments of its forward.

    Returns:
        From 0, for a model that reduces nothing, to 1.
    """
    device = next(iter(inputs.values())).device

    def call() -> None:
        model(**inputs)

    call()
    reduction, whole = zip(*(reduction_seconds(call, device) for _ in range(FORWARDS)), strict=True)
    return sum(reduction) / sum(whole)


def reduction_seconds(call: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Measure how many seconds a call spends on reducing tokens, and how many it takes in all.

    On a CPU, the seconds are those of the clock. On CUDA, they are those of the kernels.

    Args:
        call: a function that runs a model, not compiled, which has run before.
        device: the device of the model.
    """
    with profiler(device) as profiled, record_function(WHOLE_REGION):
        call()
    times = {REDUCTION_REGION: 0.0, WHOLE_REGION: 0.0}
    for event in profiled.key_averages():
        if event.key in times:
            times[event.key] += event.device_time_total if device.type == "cuda" else event.cpu_time_total
    return times[REDUCTION_REGION] / 1e6, times[WHOLE_REGION] / 1e6
