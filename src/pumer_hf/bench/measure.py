"""All that a benchmark measures of its contenders, as JSON and as a table."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from tqdm.auto import tqdm

from ..figures import duration, figure
from ..flops import count_flops
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.reduction import reduces_tokens
from .contenders import Contender, Settings, torch_settings
from .cost import measure_size
from .environment import environment
from .profiles import REGIMES, activation_peaks, reduction_share
from .progress import Progress
from .throughput import compare_latency, compare_throughput, expected_seconds, forward_seconds

START, LIMIT = 8, 4096
"""Batch sizes to begin and to end with, where the batch grows."""
PAYS = 1.03
"""A doubled batch must be so much faster per example for somebody to pay."""


COUNTING, PROFILING, MEMORY = 2, 5, 10
"""How many forwards take as long as counting FLOPs, profiling the reduction and measuring memory: as seen on a CPU."""


def measure(contenders: Mapping[str, Contender], settings: Settings) -> dict[str, Any]:
    """Speed, memory and size of models, each beside the first one, which is the baseline.

    Args:
        contenders: by name: the baseline, others, and last the one that it is about.
        settings: how.

    Returns:
        Plain JSON types, by name of the contender: `throughput` ([`compare_throughput`]), `latency`
        ([`compare_latency`], batch 1), `memory` (peak bytes of activations by regime, [`activation_peaks`]), `gflops`
        (multiply-adds of an example), `tokens_per_layer` (of our models) and `reduction_share` (of those that reduce,
        [`reduction_share`]). `throughput` and `gflops` also have `ratio`, the gain of the last over the first. Beside
        them what was set, and the [`environment`].
    """
    with torch_settings(settings):
        return {**measure_set(contenders, settings), **environment()}


def measure_set(contenders: Mapping[str, Contender], settings: Settings) -> dict[str, Any]:
    """What [`measure`] gives but for the environment, with torch set already."""
    names = list(contenders)
    models = {name: one.run for name, one in contenders.items()}
    batch_size = settings.batch_size or grown_batch(contenders)
    batches = {name: one.inputs(batch_size) for name, one in contenders.items()}
    examples = {name: one.inputs(1) for name, one in contenders.items()}
    expected = expected_of_all(contenders, forward_seconds(models, batches), settings, batch_size)
    with Progress(f"Measuring {', '.join(names)} at batch {batch_size}", expected) as progress:
        return measure_parts(contenders, settings, batches, examples, progress)


def measure_parts(
    contenders: Mapping[str, Contender],
    settings: Settings,
    batches: Mapping[str, dict[str, Any]],
    examples: Mapping[str, dict[str, Any]],
    progress: Progress,
) -> dict[str, Any]:
    """What [`measure_set`] gives, from the inputs of each contender: a batch to measure on, and a single example."""
    names = list(contenders)
    models = {name: one.run for name, one in contenders.items()}
    choices: dict[str, Any] = {"seconds": settings.seconds, "on_round": progress.move}
    progress.begin("throughput")
    throughput = compare_throughput(models, batches[names[0]], own_inputs=batches, warmup=1, **choices)
    report: dict[str, Any] = {
        "device": settings.device,
        "dtype": {name: str(one.eager.dtype).removeprefix("torch.") for name, one in contenders.items()},
        "matmul_precision": settings.matmul_precision,
        "compiled": [name for name, one in contenders.items() if one.run is not one.eager],
        "pooled_only": [name for name, one in contenders.items() if pools_only(one.eager)],
        "throughput": {"ratio": throughput[names[-1]]["ratio"], **throughput},
    }
    if settings.latency:
        progress.begin("latency")
        choices["seconds"] = settings.seconds / 2
        report["latency"] = compare_latency(models, examples, warmup=2, **choices)
    progress.begin("FLOPs")
    report |= sizes({name: (one, examples[name]) for name, one in contenders.items()})
    progress.begin("reduction")
    report["reduction_share"] = {
        name: reduction_share(one.eager, batches[name])
        for name, one in contenders.items()
        if reduces_tokens(one.eager)
    }
    if settings.memory:
        peaks = {}
        for name, one in contenders.items():
            progress.begin(f"memory, {name}")
            peaks[name] = activation_peaks(one.eager, batches[name])
        report["memory"] = {
            "batch_size": len(next(iter(batches[names[0]].values()))),
            **{regime: {name: peak[regime] for name, peak in peaks.items()} for regime in REGIMES},
        }
    return report


def pools_only(model: Any) -> bool:
    """Whether it is a model of ours whose last layer computes only what is pooled (`config.pooled_only`)."""
    return isinstance(model, PuMerPreTrainedModel) and model.pools_only


def sizes(contenders: Mapping[str, tuple[Contender, dict[str, Any]]]) -> dict[str, Any]:
    """`gflops` and `tokens_per_layer` of contenders, each with an example of its inputs."""
    gflops, tokens = {}, {}
    for name, (one, example) in contenders.items():
        if isinstance(one.eager, PuMerPreTrainedModel):
            gflops[name], tokens[name] = measure_size(one.eager, example)
        else:
            gflops[name] = count_flops(one.eager, example)[0] / 1e9
    first, *_, last = gflops
    return {"gflops": {"ratio": gflops[first] / gflops[last], **gflops}, "tokens_per_layer": tokens}


def speeds_at(contenders: Mapping[str, Contender], batch_size: int) -> dict[str, float]:
    """Examples per second at a batch size, from a few rounds."""
    batches = {name: one.inputs(batch_size) for name, one in contenders.items()}
    models = {name: one.run for name, one in contenders.items()}
    first = next(iter(batches.values()))
    report = compare_throughput(models, first, own_inputs=batches, warmup=1, seconds=0)
    return {name: report[name]["examples_per_second"] for name in contenders}


def expected_of_all(
    contenders: Mapping[str, Contender], forwards: Mapping[str, float], settings: Settings, batch_size: int
) -> float:
    """About how long [`measure_parts`] takes.

    Args:
        contenders: by name.
        forwards: seconds of a forward of each at the batch size.
        settings: how to measure.
        batch_size: examples per forward.
    """
    in_turn = sum(forwards.values())
    alone = in_turn / batch_size
    seconds = expected_seconds(in_turn, warmup=1, seconds=settings.seconds) + COUNTING * alone
    if settings.latency:
        seconds += expected_seconds(alone, warmup=2, seconds=settings.seconds / 2)
    seconds += PROFILING * sum(forwards[name] for name, one in contenders.items() if reduces_tokens(one.eager))
    return seconds + (MEMORY * in_turn if settings.memory else 0)


def grown_batch(contenders: Mapping[str, Contender]) -> int:
    """The batch size that [`grow_batch`] finds, with a bar of those that it tries."""
    with tqdm(desc="Growing the batch", unit="size", leave=False) as bar:

        def speeds(batch_size: int) -> dict[str, float]:
            bar.set_postfix_str(f"batch {batch_size}")
            found = speeds_at(contenders, batch_size)
            bar.update()
            return found

        return grow_batch(speeds)


def grow_batch(speeds: Callable[[int], Mapping[str, float]], start: int = START, limit: int = LIMIT) -> int:
    """Double the batch until that makes no contender faster per example, or the GPU's memory is full.

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


def measure_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Rows of a table, a column per contender, from what [`measure`] gave."""
    names = [name for name in report["gflops"] if name != "ratio"]
    first = names[0]
    throughput, gflops, tokens = report["throughput"], report["gflops"], report["tokens_per_layer"]
    rows = [["", *names]]
    rows.append(["examples/s", *(figure(throughput[name]["examples_per_second"]) for name in names)])
    rows.append([f"  times {first}", *(f"{throughput[name]['ratio']:.2f}x" for name in names)])
    if "latency" in report:
        latency = report["latency"]
        times = (" / ".join(duration(latency[name][part] / 1000) for part in ("p50", "p90", "p99")) for name in names)
        rows.append(["time at batch 1 (p50 / p90 / p99)", *times])
        rows.append([f"  times {first}", *(f"{latency[name]['ratio']:.2f}x" for name in names)])
    for regime in REGIMES if "memory" in report else ():
        peaks = report["memory"][regime]
        rows.append([f"peak MiB, {regime}", *(figure(peaks[name] / 2**20) for name in names)])
        rows.append([f"  of {first}", *(f"{100 * peaks[name] / peaks[first]:.0f} %" for name in names)])
    rows.append(["GFLOPs per example", *(figure(gflops[name]) for name in names)])
    rows.append(["  times fewer", *(f"{gflops[first] / gflops[name]:.2f}x" for name in names)])
    shares = report["reduction_share"]
    rows.append(
        ["the reduction's own time", *(f"{100 * shares[name]:.1f} %" if name in shares else "" for name in names)]
    )
    for layer in range(len(tokens[first])):
        lengths = ("{} + {}".format(*tokens[name][layer]) if name in tokens else "" for name in names)
        rows.append([f"tokens after layer {layer} (text + image)", *lengths])
    return rows
