"""Forward throughput of several models, measured in one interleaved run."""

import ctypes
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..results import Latencies, Latency, Speed, Throughput

MIN_ROUNDS = 5
"""How often each function is timed at least."""
FEW_ROUNDS = 3
"""How often each function is timed where a rough figure is enough."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`, by their names there."""


def interleaved_times(
    calls: Mapping[str, Callable[[], Any]],
    *,
    warmup: int,
    seconds: float,
    on_cuda: bool = False,
    on_round: Callable[[], None] | None = None,
    min_rounds: int = MIN_ROUNDS,
) -> dict[str, list[float]]:
    """Time functions in turn, A B A B ..., so that a change of the machine's speed affects all of them alike.

    From then on, the process keeps the memory that it frees ([`keep_freed_memory`]).

    Args:
        calls: functions by name.
        warmup: rounds that do not count.
        seconds: keep going for about this long, and for at least `min_rounds`.
        on_cuda: whether the functions work on the GPU. Its events then time each call, which waits for the GPU.
        on_round: called after each round.
        min_rounds: how often each function is timed at least.

    Returns:
        Seconds per call, in order of the rounds.
    """
    keep_freed_memory()
    for _ in range(warmup):
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < min_rounds:
        for name, call in calls.items():
            times[name].append(cuda_seconds(call) if on_cuda else wall_seconds(call))
        if on_round is not None:
            on_round()
    return times


@torch.inference_mode()
def rough_ratio(baseline: Callable[[], Any], call: Callable[[], Any], on_cuda: bool) -> float:
    """Measure in a few rounds how many times as fast as `baseline` a function is."""
    calls = {"baseline": baseline, "call": call}
    times = interleaved_times(calls, warmup=1, seconds=0, on_cuda=on_cuda, min_rounds=FEW_ROUNDS)
    return median_ratio(*times.values())


def expected_seconds(in_turn: float, *, warmup: int, seconds: float) -> float:
    """Estimate how many seconds [`interleaved_times`] takes if a round takes `in_turn` seconds. The other arguments
    are the same as there.
    """
    return warmup * in_turn + max(seconds, MIN_ROUNDS * in_turn)


@torch.inference_mode()
def forward_seconds(models: Mapping[str, nn.Module], inputs: Mapping[str, dict[str, Tensor]]) -> dict[str, float]:
    """Estimate how many seconds a forward of each model takes under `inference_mode`. The second forward is timed,
    since the first one may compile the model. A bar shows the progress.

    Args:
        models: the models by name, in the mode (eval) to measure.
        inputs: by name of the model, the keyword arguments of its forward.
    """
    keep_freed_memory()
    times = {}
    for name, model in tqdm(models.items(), desc="First forward passes", unit="model", leave=False):
        call = partial(model, **inputs[name])
        call()
        on_cuda = next(iter(inputs[name].values())).device.type == "cuda"
        times[name] = cuda_seconds(call) if on_cuda else wall_seconds(call)
    return times


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next allocation, as torch's allocator does on a GPU.

    Without it, the memory of large tensors goes back to the system, which returns it page by page and filled with
    zeros. For a small model at a large batch this took up to a third of the time, and not always the same part. On
    systems without glibc, this function does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.system() == "Linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def wall_seconds(call: Callable[[], Any]) -> float:
    """Return the seconds that a function takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cuda_seconds(call: Callable[[], Any]) -> float:
    """Return the seconds that an idle GPU takes for all the work that a function gives it."""
    torch.cuda.synchronize()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


@torch.inference_mode()
def compare_throughput(
    models: Mapping[str, nn.Module],
    inputs: dict[str, Tensor],
    *,
    own_inputs: Mapping[str, dict[str, Tensor]] | None = None,
    warmup: int = 3,
    seconds: float = 10.0,
    on_round: Callable[[], None] | None = None,
) -> Throughput:
    """Measure the forward throughput under `inference_mode`, on the same batch, relative to the first model.

    Args:
        models: the models by name, on the device of the inputs, in the mode (eval) to measure.
        inputs: keyword arguments of their forward, with a batch dimension first.
        own_inputs: by name, the inputs of models that take the same examples in another form (smaller images).
        on_round: called after each round.
    """
    device = next(iter(inputs.values())).device
    batch_size = len(next(iter(inputs.values())))

    calls = {name: partial(model, **(own_inputs or {}).get(name, inputs)) for name, model in models.items()}
    times = interleaved_times(calls, warmup=warmup, seconds=seconds, on_cuda=device.type == "cuda", on_round=on_round)
    baseline = next(iter(times.values()))
    speeds = {
        name: Speed(
            examples_per_second=batch_size / median(model_times),
            slowest=batch_size / max(model_times),
            fastest=batch_size / min(model_times),
            ratio=median_ratio(baseline, model_times),
        )
        for name, model_times in times.items()
    }
    return Throughput(batch_size, len(baseline), "forward, inference_mode", speeds)


@torch.inference_mode()
def compare_latency(
    models: Mapping[str, nn.Module],
    inputs: Mapping[str, dict[str, Tensor]],
    *,
    warmup: int = 3,
    seconds: float = 10.0,
    on_round: Callable[[], None] | None = None,
) -> Latencies:
    """Measure the forward latency under `inference_mode`, relative to the first model.

    Args:
        models: the models by name, in the mode (eval) to measure.
        inputs: by name of the model, the keyword arguments of its forward, usually of one example.
        on_round: called after each round.
    """
    device = next(iter(next(iter(inputs.values())).values())).device
    calls = {name: partial(model, **inputs[name]) for name, model in models.items()}
    times = interleaved_times(calls, warmup=warmup, seconds=seconds, on_cuda=device.type == "cuda", on_round=on_round)
    baseline = next(iter(times.values()))
    found = {}
    for name, model_times in times.items():
        p50, p90, p99 = (torch.tensor(model_times).quantile(torch.tensor([0.5, 0.9, 0.99])) * 1000).tolist()
        found[name] = Latency(p50, p90, p99, median_ratio(baseline, model_times))
    return Latencies(len(baseline), found)


def median_ratio(baseline: Sequence[float], model_times: Sequence[float]) -> float:
    """Divide the baseline's time by the model's time in each round, and return the median of these ratios."""
    return median(base / time for base, time in zip(baseline, model_times, strict=True))
