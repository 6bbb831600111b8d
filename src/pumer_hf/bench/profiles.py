"""Profiles one call: its peak memory, and the parts of its time that a reduction takes and that it cannot touch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from transformers.modeling_layers import GradientCheckpointingLayer

from ..models.profiling import REDUCTION_REGION

FORWARDS = 3
"""How many forwards are profiled for their time."""
WHOLE_REGION = "pumer_hf::forward"
"""The name of a profiled forward in profiles."""
TOUCHED_REGION = "pumer_hf::touched"
"""The name in profiles of the layers that get fewer tokens."""


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
    """Measure how many seconds a call spends on reducing tokens, and how many it takes in all ([`region_seconds`])."""
    return region_seconds(call, device, REDUCTION_REGION)


def region_seconds(call: Callable[[], Any], device: torch.device, region: str) -> tuple[float, float]:
    """Measure how many seconds a call spends in a region, and how many it takes in all.

    On a CPU, the seconds are those of the clock. On CUDA, they are those of the kernels.

    Args:
        call: a function that runs a model, not compiled, which has run before.
        device: the device of the model.
        region: the name of the region in profiles.
    """
    with profiler(device) as profiled, record_function(WHOLE_REGION):
        call()
    times = {region: 0.0, WHOLE_REGION: 0.0}
    for event in profiled.key_averages():
        if event.key in times:
            times[event.key] += event.device_time_total if device.type == "cuda" else event.cpu_time_total
    return times[region] / 1e6, times[WHOLE_REGION] / 1e6


@torch.inference_mode()
def untouched_share(
    models: tuple[nn.Module, nn.Module], calls: tuple[Callable[[], Any], Callable[[], Any]], device: torch.device
) -> float:
    """Measure the part of the unreduced model's time that its reduction cannot touch.

    It is the time outside the layers that get fewer tokens, or leave fewer, in the reduced model: in most models the
    embeddings, an image tower, the layers before the first cut, and the head.

    Args:
        models: the unreduced and the reduced model, not compiled. They may be the same object.
        calls: functions that run them.
        device: the device of the models.
    """
    unreduced, reduced = (layer_shapes(model, call) for model, call in zip(models, calls, strict=True))
    names = [name for name, shapes in unreduced.items() if shapes != reduced.get(name)]
    with marked([models[0].get_submodule(name) for name in names]):
        times = [region_seconds(calls[0], device, TOUCHED_REGION) for _ in range(FORWARDS)]
    return 1 - sum(touched for touched, _ in times) / sum(whole for _, whole in times)


def layer_shapes(model: nn.Module, call: Callable[[], Any]) -> dict[str, list[torch.Size]]:
    """Run a model, and return the shapes of the states that come into its layers and leave them, by name.

    A layer of METER has two of each, those of the text and those of the image.
    """
    shapes: dict[str, list[torch.Size]] = {}

    def see(name: str, args: Any, kwargs: Any, output: Any) -> None:
        before = args or (kwargs["hidden_states"],)
        after = (output,) if isinstance(output, Tensor) else output
        states = (value for value in (*before, *after) if isinstance(value, Tensor))
        shapes.setdefault(name, []).extend(value.shape for value in states)

    layers = {name: module for name, module in model.named_modules() if isinstance(module, GradientCheckpointingLayer)}
    hooks = [
        layer.register_forward_hook(
            lambda module, args, kwargs, output, name=name: see(name, args, kwargs, output), with_kwargs=True
        )
        for name, layer in layers.items()
    ]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


@contextmanager
def marked(layers: list[nn.Module]) -> Iterator[None]:
    """Make profiles show the calls of some layers under `TOUCHED_REGION`, inside a `with` block."""
    open_regions: list[record_function] = []

    def begin(module: nn.Module, args: Any) -> None:
        open_regions.append(record_function(TOUCHED_REGION))
        open_regions[-1].__enter__()

    def end(module: nn.Module, args: Any, output: Any) -> None:
        open_regions.pop().__exit__(None, None, None)

    hooks = [hook for one in layers for hook in (one.register_forward_pre_hook(begin), one.register_forward_hook(end))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
