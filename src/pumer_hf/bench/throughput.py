"""Forward throughput of several models, measured in one interleaved run."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn


def interleaved_times(calls: dict[str, Callable[[], Any]], *, warmup: int, seconds: float) -> dict[str, list[float]]:
    """Time functions in turn, A B A B ..., so that a change of the machine's speed meets all alike.

    Args:
        calls: functions by name. One that works on a GPU must wait for it.
        warmup: rounds that do not count.
        seconds: keep going for about this long, and for at least five rounds.

    Returns:
        Seconds per call, in order of the rounds.
    """
    for _ in range(warmup):
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 5:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


@torch.inference_mode()
def compare_throughput(
    models: Mapping[str, nn.Module],
    inputs: dict[str, Tensor],
    *,
    own_inputs: Mapping[str, dict[str, Tensor]] | None = None,
    warmup: int = 3,
    seconds: float = 10.0,
) -> dict[str, Any]:
    """Forward throughput under `inference_mode`, on the same batch, relative to the first model.

    Args:
        models: by name, on the device of the inputs, in the mode (eval) to measure.
        inputs: keyword arguments of their forward, with a batch dimension first.
        own_inputs: by name, of models that take another form of the same batch, such as smaller images.
        warmup: rounds that do not count.
        seconds: how long to measure.

    Returns:
        Plain JSON types: `batch_size`, `rounds`, `regime`, and per model `examples_per_second` (median), `slowest` and
        `fastest` round, and `ratio`: the median over the rounds of its speed over the first model's.
    """
    device = next(iter(inputs.values())).device
    batch_size = len(next(iter(inputs.values())))

    def runner(model: nn.Module, inputs: dict[str, Tensor]) -> Callable[[], Any]:
        def run() -> None:
            model(**inputs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return run

    calls = {name: runner(model, (own_inputs or {}).get(name, inputs)) for name, model in models.items()}
    times = interleaved_times(calls, warmup=warmup, seconds=seconds)
    baseline = next(iter(times.values()))
    report: dict[str, Any] = {"batch_size": batch_size, "rounds": len(baseline), "regime": "forward, inference_mode"}
    for name, seconds_per_batch in times.items():
        report[name] = {
            "examples_per_second": batch_size / median(seconds_per_batch),
            "slowest": batch_size / max(seconds_per_batch),
            "fastest": batch_size / min(seconds_per_batch),
            "ratio": median(base / own for base, own in zip(baseline, seconds_per_batch, strict=True)),
        }
    return report
