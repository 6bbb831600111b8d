"""Functions that load a decoder model as our class of it, or make one with random weights."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization

from ..reducers import AnyReduction, parse_reduction
from .decoders.family import DecoderFamily
from .decoders.modeling import ReducedDecoder
from .families import DECODERS, decoder_advice
from .loading import SAVED, naming, saved_config

DRAWN = 2**20
"""How many random numbers are drawn for random weights. They are repeated, as speed does not depend on them."""
SPREAD = 0.02
"""The standard deviation of random weights, which is the usual `initializer_range`."""

EXAMPLE = {"method": "pumer", "site": "inputs", "keep_ratio": 0.25}
"""The schedule that an error proposes."""


def is_decoder(source: str) -> bool:
    """Return whether a checkpoint is a decoder model of a known family.

    Args:
        source: a folder, or an id on the Hub.

    Raises:
        ValueError: there is no such checkpoint.
    """
    return find_decoder(saved_config(source)) is not None


def find_decoder(config: Mapping[str, Any]) -> DecoderFamily | None:
    """Return the family of decoder models of a `config.json`, of transformers' class or of ours; None if it has none.

    Args:
        config: the content of the file.
    """
    model_type = config.get("model_type")
    for row in DECODERS.values():
        if model_type in (row.stock_type, row.config_class.model_type):
            return row
    return None


def decoder_of_config(config: Mapping[str, Any], source: str) -> DecoderFamily:
    """Return the family as [`find_decoder`] does.

    Args:
        config: the content of a `config.json`.
        source: where it is from, for the message.

    Raises:
        ValueError: it is not the config of a decoder model of a known family.
    """
    row = find_decoder(config)
    if row is None:
        raise ValueError(
            f"{source}: model_type={config.get('model_type')!r} is no decoder of a known family: {decoder_advice()}"
        )
    return row


def asked_schedule(config: Mapping[str, Any], reduction: Any, source: str) -> Any:
    """Return the schedule that a model is to have, before it is loaded: the given one, else that of its config.

    Args:
        config: the content of a `config.json`.
        reduction: the given schedule, in any form that [`parse_reduction`] takes, or [`SAVED`].
        source: where the config is from, for the message.

    Raises:
        ValueError: the schedule is wrong, or reduces nothing.
    """
    schedule = config.get("reduction") if isinstance(reduction, str) and reduction == SAVED else reduction
    if parse_reduction(schedule) is None:
        raise ValueError(
            f"{source}: the model reduces no tokens: give a schedule, such as --reduction '{json.dumps(EXAMPLE)}'"
        )
    return schedule


def load_decoder(
    source: str, reduction: Any = SAVED, dtype: torch.dtype | None = None, device: str = "cpu"
) -> ReducedDecoder:
    """Load a checkpoint as our class of its family, in eval mode. The checkpoint may be one of transformers' class.

    Args:
        source: a folder, or an id on the Hub.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.
        dtype: the precision; None: that of the checkpoint.
        device: `"cpu"` or `"cuda"`.

    Raises:
        ValueError: there is no such checkpoint, it is of no known family, or the schedule is wrong.
    """
    row = decoder_of_config(saved_config(source), source)
    overrides = {} if isinstance(reduction, str) and reduction == SAVED else {"reduction": reduction}
    with naming(repr(source), source, "model"):
        model = row.model_class.from_pretrained(source, dtype="auto" if dtype is None else dtype, **overrides)
    return model.to(device).eval()


def random_decoder(
    row: DecoderFamily,
    config: Any,
    *,
    reduction: AnyReduction = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    attention: str = "sdpa",
) -> ReducedDecoder:
    """Make a model with random weights, directly on its device and in its precision. Its answers mean nothing.

    Args:
        row: its family.
        config: a config of our class.
        reduction: its schedule, in any form that [`parse_reduction`] takes.
        dtype: the precision.
        device: `"cpu"` or `"cuda"`.
        attention: transformers' `attn_implementation`.
    """
    schedule = config.checked(reduction)
    config.schedule = None if schedule is None else replace(schedule, flops=None)
    with torch.device(device), initialization.no_init_weights():
        model = row.model_class._from_config(config, dtype=dtype, attn_implementation=attention)
    model.tie_weights()  # a part of the initialisation that was left out
    fill_at_random(model)
    if schedule is not None and schedule.flops is not None:
        model.token_reduction.fit(schedule.flops)
    return model.eval()


@torch.no_grad()
def fill_at_random(model: nn.Module) -> None:
    """Fill the weights of a model with random numbers. Vectors called `weight` are those of norms and become 1.

    Few numbers are drawn and many copied, so a model of billions of weights is filled as fast as memory is written.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(DRAWN, generator=generator) * SPREAD
    pools: dict[tuple[torch.device, torch.dtype], Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and name.endswith("weight"):
            parameter.fill_(1)
            continue
        key = (parameter.device, parameter.dtype)
        pool = pools.setdefault(key, drawn.to(device=parameter.device, dtype=parameter.dtype))
        flat = parameter.view(-1)
        whole = len(flat) // DRAWN * DRAWN
        flat[:whole].view(-1, DRAWN).copy_(pool.expand(whole // DRAWN, -1))
        flat[whole:].copy_(pool[: len(flat) - whole])


@contextmanager
def unreduced(model: ReducedDecoder) -> Iterator[None]:
    """Run a model of ours without its reduction inside a `with` block: it is then the stock model."""
    with model.token_reduction.using({}):
        yield
