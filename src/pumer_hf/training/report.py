"""Teacher against student: what reduction costs in accuracy and wins in speed, as JSON and as a table."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..bench.environment import environment
from ..bench.flops import count_flops
from ..bench.throughput import compare_throughput
from ..models.base import PuMerPreTrainedModel


def cost_report(
    models: Mapping[str, PuMerPreTrainedModel], inputs: dict[str, Tensor], seconds: float
) -> dict[str, Any]:
    """Speed and size of models on one batch, interleaved, relative to the first.

    Args:
        models: by name, the unreduced one first, all on the device of the inputs.
        inputs: keyword arguments of their forward.
        seconds: how long to measure.

    Returns:
        Plain JSON types: `throughput` ([`compare_throughput`]), `gflops` (multiply-adds of one example) and
        `tokens_per_layer` (pairs of text and image tokens that leave each layer), each by name of the model;
        `throughput` and `gflops` also have `ratio`, the last model's gain over the first; and the [`environment`].
    """
    example = {name: value[:1] for name, value in inputs.items()}
    flops = {name: count_flops(model.eval(), example)[0] for name, model in models.items()}
    names = list(models)
    first, last = names[0], names[-1]
    throughput = compare_throughput(models, inputs, seconds=seconds)
    num_text = inputs["input_ids"].shape[1]
    states = models[first](**example, output_hidden_states=True).hidden_states[0]
    if isinstance(states, tuple):  # of the first of several images
        states = states[0]
    num_image = states.shape[1] - num_text
    return {
        "throughput": {"ratio": throughput[last]["ratio"], **throughput},
        "gflops": {"ratio": flops[first] / flops[last], **{name: count / 1e9 for name, count in flops.items()}},
        "tokens_per_layer": {name: model.output_lengths(num_text, num_image) for name, model in models.items()},
        **environment(),
    }


def format_report(report: dict[str, Any], names: list[str]) -> str:
    """The results of a recipe as a text table, a column per model name and a last one that compares first and last."""
    first, last = names[0], names[-1]
    throughput, gflops, tokens = report["throughput"], report["gflops"], report["tokens_per_layer"]
    rows = [["", *names, ""]]

    def add_accuracy(label: str, values: dict[str, float]) -> None:
        change = f"{values[last] - values[first]:+.2f} points" if len(names) > 1 else ""
        rows.append([label, *(f"{values[name]:.2f}" for name in names), change])

    for metric in [name for name, value in report[first].items() if isinstance(value, float)]:
        add_accuracy(f"{metric.replace('_', ' ')}, %", {name: report[name][metric] for name in names})
    for kind in sorted(report[first].get("accuracy_by_kind", {})):
        add_accuracy(f"  {kind}", {name: report[name]["accuracy_by_kind"][kind] for name in names})
    faster, fewer = f"{throughput['ratio']:.2f}x faster", f"{gflops['ratio']:.2f}x fewer"
    rows.append(["examples/s", *(f"{throughput[name]['examples_per_second']:.0f}" for name in names), faster])
    rows.append(["GFLOPs per example", *(f"{gflops[name]:.4g}" for name in names), fewer])
    for layer, lengths in enumerate(zip(*(tokens[name] for name in names), strict=True)):
        rows.append([f"tokens after layer {layer} (text + image)", *("{} + {}".format(*pair) for pair in lengths), ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    baselines = ", ".join(f"{name.replace('_', ' ')} {value:.1f} %" for name, value in report["baselines"].items())
    regime = f"{throughput['regime']}, batch {throughput['batch_size']}, {throughput['rounds']} interleaved rounds"
    notes = [f"Baselines that see no image: {baselines}."] if baselines else []
    return "\n".join([*table, *notes, f"Speed: {regime}."])
