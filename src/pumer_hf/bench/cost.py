"""Measures the cost of models on one batch (speed, FLOPs and tokens), and makes the rows of a table about it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..figures import figure
from ..flops import count_flops
from ..models.decoders.modeling import ReducedDecoder
from ..models.encoders.base import PuMerPreTrainedModel
from ..results import Cost, TokenCounts
from .throughput import compare_throughput


class ModelSize(NamedTuple):
    """The size of a forward of one example."""

    gflops: float
    """The multiply-adds, in 10^9."""
    tokens_per_layer: TokenCounts
    tokens_in: tuple[int, int]
    """Text and image tokens that come into the first layer, after the reduction of the inputs."""


def measure_cost(
    models: Mapping[str, PuMerPreTrainedModel | ReducedDecoder],
    inputs: dict[str, Tensor],
    seconds: float,
    own_inputs: Mapping[str, dict[str, Tensor]] | None = None,
    examples: Mapping[str, dict[str, Any]] | None = None,
) -> Cost:
    """Measure speed and size of models on one batch, interleaved in one run.

    Args:
        models: the models by name, the unreduced one first, all on the device of the inputs.
        inputs: keyword arguments of their forward.
        seconds: how long to measure.
        own_inputs: by name, the inputs of models that take the same examples in another form (smaller images).
        examples: by name, the inputs of one example. None: the first of the batch. Decoders need them, since the
            pictures of a batch may be in one row.

    Returns:
        The throughput, the GFLOPs of one example and the tokens per layer.
    """
    own_inputs = own_inputs or {}
    evaluated = {name: model.eval() for name, model in models.items()}
    if examples is None:
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
    tokens_in: dict[str, tuple[int, int]] = {}
    for name, model in models.items():
        if isinstance(model, PuMerPreTrainedModel):
            gflops[name], tokens[name], tokens_in[name] = measure_size(model, examples[name])
        elif isinstance(model, ReducedDecoder):
            gflops[name], tokens[name], tokens_in[name] = measure_decoder_size(model, examples[name])
        else:
            gflops[name] = count_flops(model, examples[name])[0] / 1e9
    return Cost(gflops=gflops, tokens_per_layer=tokens, tokens_in=tokens_in)


def measure_size(model: PuMerPreTrainedModel, example: dict[str, Tensor]) -> ModelSize:
    """Count the GFLOPs and the tokens of a forward of one example."""
    inputs: dict[str, Any] = {**example, "output_hidden_states": True}
    flops, outputs = count_flops(model, inputs)
    states = outputs.hidden_states[0]
    if isinstance(states, tuple):  # the model takes several images: one of them is enough
        states = states[0]
    num_text = example["input_ids"].shape[-1]  # no text token leaves before the first layer
    num_image = states.shape[1] - num_text
    lengths = model.token_reduction.lengths_at("layers", num_text, num_image)
    return ModelSize(flops / 1e9, lengths, (num_text, num_image))


def measure_decoder_size(model: ReducedDecoder, example: dict[str, Any]) -> ModelSize:
    """Count the GFLOPs and the tokens of a prefill of one prompt, up to the logits of the next token."""
    inputs: dict[str, Any] = {**example, "logits_to_keep": 1}
    flops, outputs = count_flops(model, inputs)
    num_image = int((example["input_ids"] == model.family.image_token_id(model.config)).sum())
    num_text = example["input_ids"].shape[1] - num_image
    kept: dict[int | None, int] = {}
    for trace in outputs.get("reduction") or ():
        kept[trace.layer] = kept.get(trace.layer, 0) + len(trace.kept)
    tokens_in = (num_text, kept.get(None, num_image))
    lengths: TokenCounts = []
    for layer in range(model.config.get_text_config().num_hidden_layers):
        num_image = kept.get(layer, lengths[-1][1] if lengths else tokens_in[1])
        lengths.append((num_text, num_image))
    return ModelSize(flops / 1e9, lengths, tokens_in)


def cost_rows(cost: Cost, names: Sequence[str]) -> list[list[str]]:
    """Return rows of a table: a column per model, and a last one that compares the last model with the first."""
    assert cost.throughput is not None, "the throughput of the models was not measured"
    gain = cost.throughput.gain
    faster = f"{gain:.2f}x faster" if gain >= 1 else f"{1 / gain:.2f}x slower"
    rows = [
        ["examples/s", *(figure(cost.throughput.speeds[name].examples_per_second) for name in names), faster],
        ["GFLOPs per example", *(figure(cost.gflops[name]) for name in names), f"{cost.gflops_gain:.2f}x fewer"],
    ]
    return rows + [[*row, ""] for row in token_rows(cost, names)]


def token_rows(cost: Cost, names: Sequence[str]) -> list[list[str]]:
    """Return rows with the tokens that leave each layer, and a column per model. It is empty where none were counted.

    A first row has the tokens that come into the first layer, if not all models begin with as many.
    """

    def row(title: str, counts: Mapping[str, tuple[int, int]]) -> list[str]:
        cells = ("{} + {}".format(*counts[name]) if name in counts else "" for name in names)
        return [f"{title} (text + image)", *cells]

    rows = [row("tokens into layer 0", cost.tokens_in)] if len(set(cost.tokens_in.values())) > 1 else []
    tokens = {name: counts for name, counts in cost.tokens_per_layer.items() if name in names}
    for layer, counts in enumerate(zip(*tokens.values(), strict=True)):
        rows.append(row(f"tokens after layer {layer}", dict(zip(tokens, counts, strict=True))))
    return rows
