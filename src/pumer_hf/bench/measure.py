"""Measures everything about the contenders of a benchmark, and makes the table about it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from tqdm.auto import tqdm

from ..figures import duration, figure
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.reducible import reduces_tokens
from ..results import REGIMES, Cost, Memory
from .break_even import BreakEven, Crossing, cross, doubled
from .contenders import BenchOptions, Contender, at_image_size, torch_options
from .cost import measure_sizes, token_rows
from .profiles import activation_peaks, reduction_share, untouched_share
from .progress import Progress
from .throughput import compare_latency, compare_throughput, expected_seconds, forward_seconds, rough_ratio

START, LIMIT = 8, 4096
"""The first and the last batch size that are tried where the batch grows."""
PAYS = 1.03
"""A doubled batch pays if it makes some contender so many times as fast per example."""
COUNTING, PROFILING, MEMORY = 2, 5, 10
"""How many forwards take as long as counting FLOPs, profiling the reduction and measuring memory, on a CPU."""


def measure(contenders: Mapping[str, Contender], options: BenchOptions) -> Cost:
    """Measure the speed, the memory and the size of models, relative to the first one, which is the baseline.

    Args:
        contenders: the contenders by name. The first one is the baseline, the last one the model of interest.
        options: how to measure.

    Returns:
        All fields of [`Cost`]. The options can leave out the latency and the memory.
    """
    names = list(contenders)
    models = {name: one.run for name, one in contenders.items()}
    with torch_options(options):
        batch_size = options.batch_size or grown_batch(contenders)
        batches = {name: one.inputs(batch_size) for name, one in contenders.items()}
        examples = {name: one.inputs(1) for name, one in contenders.items()}
        expected = expected_of_all(contenders, forward_seconds(models, batches), options, batch_size)
        with Progress(f"Measuring {', '.join(names)} at batch {batch_size}", expected) as progress:
            return measure_parts(contenders, options, batches, examples, progress)


def measure_parts(
    contenders: Mapping[str, Contender],
    options: BenchOptions,
    batches: Mapping[str, dict[str, Any]],
    examples: Mapping[str, dict[str, Any]],
    progress: Progress,
) -> Cost:
    """Do the work of [`measure`]. Each contender has a batch to measure on and a single example."""
    models = {name: one.run for name, one in contenders.items()}
    choices: dict[str, Any] = {"seconds": options.seconds, "on_round": progress.move}
    progress.begin("throughput")
    throughput = compare_throughput(models, next(iter(batches.values())), own_inputs=batches, warmup=1, **choices)
    latency = None
    if options.latency:
        progress.begin("latency")
        choices["seconds"] = options.seconds / 2
        latency = compare_latency(models, examples, warmup=2, **choices)
    progress.begin("FLOPs")
    sized = measure_sizes({name: one.eager for name, one in contenders.items()}, examples)
    progress.begin("reduction")
    shares = {
        name: reduction_share(one.eager, batches[name])
        for name, one in contenders.items()
        if reduces_tokens(one.eager)
    }
    memory = measure_memory(contenders, batches, progress) if options.memory else None
    return replace(sized, throughput=throughput, latency=latency, reduction_share=shares, memory=memory)


def measure_memory(
    contenders: Mapping[str, Contender], batches: Mapping[str, dict[str, Any]], progress: Progress
) -> Memory:
    """Measure the peak memory of each contender on its batch."""
    peaks = {}
    for name, one in contenders.items():
        progress.begin(f"memory, {name}")
        peaks[name] = activation_peaks(one.eager, batches[name])
    batch_size = len(next(iter(next(iter(batches.values())).values())))
    return Memory(batch_size, **{regime: {name: peak[regime] for name, peak in peaks.items()} for regime in REGIMES})


def measure_break_even(contenders: Mapping[str, Contender], options: BenchOptions, cost: Cost) -> BreakEven:
    """Find the smallest batch and the smallest image that pay, and the time that the reduction cannot touch.

    Each size is measured in a few rounds, from the smallest one on. Compiled models would be compiled again for each
    size, so for them only the sizes count that `cost` has.

    Args:
        contenders: the contenders by name, the unreduced model first and the reduced one last.
        options: how to measure.
        cost: what [`measure`] has found for them.
    """
    assert cost.throughput is not None, "`measure` always gives it"
    pair, on_cuda = [list(contenders.values())[index] for index in (0, -1)], options.device == "cuda"

    def ratio(models: Sequence[Contender], batch_size: int) -> float:
        baseline, reduced = (partial(one.run, **one.inputs(batch_size)) for one in models)
        return rough_ratio(baseline, reduced, on_cuda)

    def ratio_of_side(side: int) -> float:
        assert batch is not None, "sides are tried where a batch pays"
        return ratio([at_image_size(one, side * patch) for one in pair], batch)

    known = {cost.throughput.batch_size: cost.throughput.gain}
    if cost.latency is not None:
        known[1] = cost.latency.models[cost.throughput.names[-1]].ratio
    models = (pair[0].eager, pair[1].eager)
    calls = tuple(partial(one.eager, **one.inputs(1)) for one in pair)
    with torch_options(options):
        untouched = untouched_share(models, (calls[0], calls[1]), pair[0].eager.device)
        largest = cost.throughput.batch_size
        by_batch = cross(doubled(1, largest), known, None if options.compile else partial(ratio, pair))
        batch = by_batch.first
        if batch is None:
            return BreakEven(untouched, by_batch)
        patch = patch_side(pair[0].inputs_of)
        side = pair[0].inputs_of.config.image_size // patch
        sides = cross(doubled(2, side), {side: by_batch.ratios[batch]}, None if options.compile else ratio_of_side)
    return BreakEven(untouched, by_batch, Crossing({one**2: found for one, found in sides.ratios.items()}))


def patch_side(model: PuMerPreTrainedModel) -> int:
    """Return the side of a patch of one of our models in pixels."""
    config: Any = model.config
    side = getattr(config, "vision_config", config).patch_size
    return side if isinstance(side, int) else math.lcm(*side)


def pools_only(model: Any) -> bool:
    """Return whether a model is one of ours and its last layer computes only what is pooled (`config.pooled_only`)."""
    return isinstance(model, PuMerPreTrainedModel) and model.pools_only


def speeds_at(contenders: Mapping[str, Contender], batch_size: int) -> dict[str, float]:
    """Measure the examples per second at a batch size, in a few rounds."""
    batches = {name: one.inputs(batch_size) for name, one in contenders.items()}
    models = {name: one.run for name, one in contenders.items()}
    first = next(iter(batches.values()))
    throughput = compare_throughput(models, first, own_inputs=batches, warmup=1, seconds=0)
    return {name: speed.examples_per_second for name, speed in throughput.speeds.items()}


def expected_of_all(
    contenders: Mapping[str, Contender], forwards: Mapping[str, float], options: BenchOptions, batch_size: int
) -> float:
    """Estimate how many seconds [`measure_parts`] takes.

    Args:
        contenders: the contenders by name.
        forwards: by name of the contender, the seconds of a forward at the batch size.
        options: how to measure.
        batch_size: examples per forward.
    """
    in_turn = sum(forwards.values())
    alone = in_turn / batch_size
    seconds = expected_seconds(in_turn, warmup=1, seconds=options.seconds) + COUNTING * alone
    if options.latency:
        seconds += expected_seconds(alone, warmup=2, seconds=options.seconds / 2)
    seconds += PROFILING * sum(forwards[name] for name, one in contenders.items() if reduces_tokens(one.eager))
    return seconds + (MEMORY * in_turn if options.memory else 0)


def grown_batch(contenders: Mapping[str, Contender]) -> int:
    """Return the batch size that [`grow_batch`] finds. A bar shows the sizes that it tries."""
    with tqdm(desc="Growing the batch", unit="size", leave=False) as bar:

        def speeds(batch_size: int) -> dict[str, float]:
            bar.set_postfix_str(f"batch {batch_size}")
            found = speeds_at(contenders, batch_size)
            bar.update()
            return found

        return grow_batch(speeds)


def grow_batch(speeds: Callable[[int], Mapping[str, float]], start: int = START, limit: int = LIMIT) -> int:
    """Double the batch until no contender becomes faster per example, or until the GPU's memory is full.

    Args:
        speeds: examples per second by name, at a batch size.
        start: the first batch size.
        limit: the last one.

    Returns:
        The last batch size that paid.
    """
    batch_size, known = start, speeds(start)
    while 2 * batch_size <= limit:
        try:
            found = speeds(2 * batch_size)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if all(found[name] < PAYS * speed for name, speed in known.items()):
            break
        batch_size, known = 2 * batch_size, found
    return batch_size


def measure_rows(cost: Cost) -> list[list[str]]:
    """Return the rows of the table about what [`measure`] gave, with a column per contender."""
    names = list(cost.gflops)
    first = names[0]
    rows = [["", *names], *speed_rows(cost, names)]
    if cost.memory is not None:
        rows += memory_rows(cost.memory, names)
    rows.append(["GFLOPs per example", *(figure(cost.gflops[name]) for name in names)])
    rows.append(["  times fewer", *(f"{cost.gflops[first] / cost.gflops[name]:.2f}x" for name in names)])
    shares = cost.reduction_share
    rows.append(
        ["the reduction's own time", *(f"{100 * shares[name]:.1f} %" if name in shares else "" for name in names)]
    )
    return rows + token_rows(cost, names)


def speed_rows(cost: Cost, names: Sequence[str]) -> list[list[str]]:
    """Return the rows about throughput and latency."""
    assert cost.throughput is not None, "`measure` always gives it"
    speeds, times_first = cost.throughput.speeds, f"  times {names[0]}"
    rows = [
        ["examples/s", *(figure(speeds[name].examples_per_second) for name in names)],
        [times_first, *(f"{speeds[name].ratio:.2f}x" for name in names)],
    ]
    if cost.latency is not None:
        latencies = [cost.latency.models[name] for name in names]
        times = (" / ".join(duration(time / 1000) for time in (one.p50, one.p90, one.p99)) for one in latencies)
        rows.append(["time at batch 1 (p50 / p90 / p99)", *times])
        rows.append([times_first, *(f"{one.ratio:.2f}x" for one in latencies)])
    return rows


def memory_rows(memory: Memory, names: Sequence[str]) -> list[list[str]]:
    """Return the rows about the peak memory."""
    rows = []
    for regime in REGIMES:
        rows.append([f"peak MiB, {regime}", *(figure(memory.peaks(regime)[name] / 2**20) for name in names)])
        rows.append([f"  of {names[0]}", *(f"{100 * memory.share(regime, name):.0f} %" for name in names)])
    return rows
