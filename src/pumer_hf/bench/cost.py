"""What models cost on one batch: speed, FLOPs and tokens, as JSON and as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..figures import figure
from ..flops import count_flops
from ..models.encoders.base import PuMerPreTrainedModel
from .environment import environment
from .throughput import compare_throughput


def cost_report(
    models: Mapping[str, PuMerPreTrainedModel],
    inputs: dict[str, Tensor],
    seconds: float,
    own_inputs: Mapping[str, dict[str, Tensor]] | None = None,
) -> dict[str, Any]:
    """Speed and size of models on one batch, interleaved, relative to the first.

    Args:
        models: by name, the unreduced one first, all on the device of the inputs.
        inputs: keyword arguments of their forward.
        seconds: how long to measure.
        own_inputs: by name, for models that take the same examples otherwise (smaller images).

    Returns:
        Plain JSON types: `throughput` ([`compare_throughput`]), `gflops` (multiply-adds of one example) and
        `tokens_per_layer` (pairs of text and image tokens that leave each layer), each by name of the model;
        `throughput` and `gflops` also have `ratio`, the last model's gain over the first; and the [`environment`].
    """
    own_inputs = own_inputs or {}
    sizes = {}
    for name, model in models.items():
        example = {key: value[:1] for key, value in own_inputs.get(name, inputs).items()}
        sizes[name] = measure_size(model.eval(), example)
    gflops = {name: count for name, (count, _) in sizes.items()}
    names = list(models)
    first, last = names[0], names[-1]
    throughput = compare_throughput(models, inputs, own_inputs=own_inputs, seconds=seconds)
    return {
        "throughput": {"ratio": throughput[last]["ratio"], **throughput},
        "gflops": {"ratio": gflops[first] / gflops[last], **gflops},
        "tokens_per_layer": {name: lengths for name, (_, lengths) in sizes.items()},
        **environment(),
    }


def measure_size(model: PuMerPreTrainedModel, example: dict[str, Tensor]) -> tuple[float, list[tuple[int, int]]]:
    """GFLOPs (multiply-adds) of a forward of one example, and how many text and image tokens leave each layer."""
    inputs: dict[str, Any] = {**example, "output_hidden_states": True}
    flops, outputs = count_flops(model, inputs)
    states = outputs.hidden_states[0]
    if isinstance(states, tuple):  # of the first of several images
        states = states[0]
    num_text = example["input_ids"].shape[-1]
    return flops / 1e9, model.output_lengths(num_text, states.shape[1] - num_text)


def cost_rows(report: Mapping[str, Any], names: Sequence[str]) -> list[list[str]]:
    """Rows of a table, a column per model and a last one that compares first and last."""
    throughput, gflops, tokens = report["throughput"], report["gflops"], report["tokens_per_layer"]
    gain = throughput["ratio"]
    faster = f"{gain:.2f}x faster" if gain >= 1 else f"{1 / gain:.2f}x slower"
    fewer = f"{gflops['ratio']:.2f}x fewer"
    rows = [
        ["examples/s", *(figure(throughput[name]["examples_per_second"]) for name in names), faster],
        ["GFLOPs per example", *(figure(gflops[name]) for name in names), fewer],
    ]
    for layer, lengths in enumerate(zip(*(tokens[name] for name in names), strict=True)):
        rows.append([f"tokens after layer {layer} (text + image)", *("{} + {}".format(*pair) for pair in lengths), ""])
    return rows


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in aligned columns, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def speed_note(report: Mapping[str, Any]) -> str:
    """How the speed was measured."""
    throughput = report["throughput"]
    regime = f"{throughput['regime']}, batch {throughput['batch_size']}"
    return f"Speed: {regime}, {throughput['rounds']} interleaved rounds."
