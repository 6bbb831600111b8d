"""`reduced`: fewer image tokens in a decoder model that is loaded already, of transformers' own class."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from torch import nn
from transformers import PreTrainedModel

from ..reducers import AnyReduction
from .decoders.attached import Traces, attached, reducers_for
from .decoders.family import DecoderFamily
from .families import DECODERS, decoder_advice


def decoder_of(model: nn.Module) -> tuple[DecoderFamily, PreTrainedModel]:
    """Return the family of a decoder model, and the model itself without what wraps it.

    Args:
        model: a model of transformers' own class or of ours, or a wrapper around it, such as a `PeftModel`.

    Raises:
        ValueError: it holds no model of a family in the table.
    """
    for module in model.modules():
        for row in DECODERS.values():
            if type(module) in (row.stock_class, row.model_class):
                return row, cast(PreTrainedModel, module)
    raise ValueError(
        f"{type(model).__name__}: its image tokens cannot be reduced before a decoder: {decoder_advice()}"
    )


def is_decoder_model(model: nn.Module) -> bool:
    """Return whether [`decoder_of`] finds a decoder model of a known family in a model."""
    classes = tuple(row.stock_class for row in DECODERS.values())
    return any(isinstance(module, classes) for module in model.modules())  # FSDP puts a subclass in their place


@contextmanager
def reduced(model: nn.Module, reduction: AnyReduction) -> Iterator[Traces]:
    """Reduce the image tokens of a loaded decoder model inside a `with` block. It is the stock model again after it.

    The model may be quantised, spread over devices, or inside adapters. Its weights and its class stay as they are.
    One thread at a time can be in such a block with a model of transformers' own class.

    Args:
        model: a model of a family in [`DECODERS`].
        reduction: a schedule: `{"method": "pumer", "site": "inputs", "keep_ratio": 0.25}` reduces before the decoder,
            `{"method": "fastv", "layers": [2], "prune_ratio": 0.5}` inside it. A list of schedules does both.

    Yields:
        A list that gets a tuple for each call of the model that reduced tokens: an [`ImageTrace`] for each image and
        each place where its tokens were reduced.

    Raises:
        ValueError: the family of the model is not in the table, or the schedule does not fit it.
    """
    row, inner = decoder_of(model)
    traces: Traces = []
    with attached(row, inner, reducers_for(row, inner, reduction), traces):
        yield traces
