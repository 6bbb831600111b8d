"""Measures the cost of models on one batch (speed, FLOPs and tokens), and makes the rows of a table about it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..figures import figure
from ..flops import count_flops
from ..models.encoders.base import PuMerPreTrainedModel
from ..results import Cost, TokenCounts
from .throughput import compare_throughput


def measure_cost(
    models: Mapping[str, PuMerPreTrainedModel],
    inputs: dict[str, Tensor],
    seconds: float,
    own_inputs: Mapping[str, dict[str, Tensor]] | None = None,
) -> Cost:
    """Measure speed and size of models on one batch, interleaved in one run.

    Args:
        models: the models by name, the unreduced one first, all on the device of the inputs.
        inputs: keyword arguments of their forward.
        seconds: how long to measure.
        own_inputs: by name, the inputs of models that take the same examples in another form (smaller images).

    Returns:
        The throughput, the GFLOPs of one example and the tokens per layer.
    """
    own_inputs = own_inputs or {}
    evaluated = {name: model.eval() for name, model in models.items()}
    examples = {name: {key: value[:1] for key, value in own_inputs.get(name, inputs).items()} for name in models}
    throughput = compare_throughput(evaluated, inputs, own_inputs=own_inputs, seconds=seconds)
    return replace(measure_sizes(evaluated, examples), throughput=throughput)


def measure_sizes(models: Mapping[str, nn.Module], examples: Mapping[str, dict[str, Any]]) -> Cost:
    """Count the GFLOPs and the tokens per layer of models. A model of transformers has no tokens per layer here.

    Args:
        models: the models by name.
        examples: the inputs of one example for each model.
    """
    gflops: dict[str, float] = {}
    tokens: dict[str, TokenCounts] = {}
    for name, model in models.items():
        if isinstance(model, PuMerPreTrainedModel):
            gflops[name], tokens[name] = measure_size(model, examples[name])
        else:
            gflops[name] = count_flops(model, examples[name])[0] / 1e9
    return Cost(gflops=gflops, tokens_per_layer=tokens)


def measure_size(model: PuMerPreTrainedModel, example: dict[str, Tensor]) -> tuple[float, TokenCounts]:
    """Count the GFLOPs (multiply-adds) of a forward of one example, and the text and image tokens that leave each
    layer.
    """
    inputs: dict[str, Any] = {**example, "output_hidden_states": True}
    flops, outputs = count_flops(model, inputs)
    states = outputs.hidden_states[0]
    if isinstance(states, tuple):  # the model takes several images: one of them is enough
        states = states[0]
    num_text = example["input_ids"].shape[-1]
    return flops / 1e9, model.output_lengths(num_text, states.shape[1] - num_text)


def cost_rows(cost: Cost, names: Sequence[str]) -> list[list[str]]:
    """Return rows of a table: a column per model, and a last one that compares the last model with the first."""
    assert cost.throughput is not None, "the throughput of the models was not measured"
    gain = cost.throughput.gain
    faster = f"{gain:.2f}x faster" if gain >= 1 else f"{1 / gain:.2f}x slower"
    rows = [
        ["examples/s", *(figure(cost.throughput.speeds[name].examples_per_second) for name in names), faster],
        ["GFLOPs per example", *(figure(cost.gflops[name]) for name in names), f"{cost.gflops_gain:.2f}x fewer"],
    ]
    for layer, lengths in enumerate(zip(*(cost.tokens_per_layer[name] for name in names), strict=True)):
        rows.append(
            [f"tokens after layer {layer} (text + image)", *(f"{text} + {image}" for text, image in lengths), ""]
        )
    return rows
