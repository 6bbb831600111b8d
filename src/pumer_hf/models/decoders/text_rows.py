"""`text_rows`: how much some tokens of a prompt attend to all others, computed beside the stock attention kernel.

The text model of a decoder calls an attention function that its config names. For the time of a `with` block the
config names one of our own. It computes the attention of a few rows in full, and calls the stock function for the
rest of the layer. So a fused kernel still runs, and no matrix of all attentions is made.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import import_module
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from ... import ops

SUFFIX = "_beside_text_rows"
"""What the name of our attention function adds to that of the stock one."""
SHOWING = "_for_reduction"
"""What the name of the attention function adds to that of the stock one in a model that reduces inside."""
SUPPORTED = ("sdpa", "eager")
"""The implementations of attention beside which rows are computed."""
_ONE_AT_A_TIME = Lock()
"""Held while a model has our attention function. The names of such functions are shared by all threads."""


class LastLayerSeen(Exception):
    """Ends the forward of a model after the last layer that is asked for."""


@dataclass
class TextRows:
    """The rows to compute, and what has been computed.

    Args:
        places: long (B, R), the columns of the tokens whose attention is computed.
        layers: indices of the layers.
    """

    places: Tensor
    layers: Collection[int]
    attention: dict[int, Tensor] = field(default_factory=dict)
    """By layer, float32 (B, R, L): the probability that a row attends to each token, averaged over the heads."""

    def see(self, layer: int, attention: Tensor) -> None:
        """Keep the attention of a layer.

        Raises:
            LastLayerSeen: it was the last one that is asked for.
        """
        if layer in self.layers:
            self.attention[layer] = attention
        if len(self.attention) == len(self.layers):
            raise LastLayerSeen

    def places_in(self, length: int) -> Tensor:
        """Return the columns of the rows among the `length` tokens of a forward, long (B, R)."""
        return self.places


class AnswerRows(TextRows):
    """The row of the last token in each forward of a `generate`, from which a token of the answer is predicted.

    All forwards run to their end. `attention` has a row for each of them, and a column for each token of the prompt.

    Args:
        layers: indices of the layers.
        num_prompts: B, the prompts of the batch.
        length: L, their tokens, padded on the left.
    """

    def __init__(self, layers: Collection[int], num_prompts: int, length: int):
        super().__init__(torch.full((num_prompts, 1), length - 1), layers)
        self.length = length

    def see(self, layer: int, attention: Tensor) -> None:
        """Add the attention of a layer in a forward, float32 (B, 1, Lk) for the Lk last tokens.

        In a layer with a sliding window, the cache may have dropped the tokens before them.
        """
        before = self.attention.get(layer, attention[:, :0, : self.length])
        gone = self.length + before.shape[1] - attention.shape[2]
        row = torch.nn.functional.pad(attention, (gone, 0))[:, :, : self.length]
        self.attention[layer] = torch.cat([before, row], dim=1)

    def places_in(self, length: int) -> Tensor:
        return torch.full_like(self.places, length - 1)


_WATCHED: ContextVar[TextRows | None] = ContextVar("watched", default=None)
"""What this thread wants to see. A forward in another thread runs the stock function alone."""


@contextmanager
def text_rows(model: PreTrainedModel, rows: TextRows) -> Iterator[None]:
    """Compute the attention of some rows in each forward of a model inside a `with` block.

    The forward ends after the last layer that is asked for, and with it the block. Only the implementation of
    attention that the config of the text model names is changed, for the time of the block. One thread at a time can
    be in such a block.

    Args:
        model: a decoder model.
        rows: what to compute. It holds the result.

    Raises:
        ValueError: the model has an implementation of attention beside which rows cannot be computed.
    """
    with _ONE_AT_A_TIME, observed_name(text_configs(model)):
        token = _WATCHED.set(rows)
        try:
            yield
        except LastLayerSeen:
            pass
        finally:
            _WATCHED.reset(token)


@contextmanager
def observed_name(configs: Sequence[Any]) -> Iterator[None]:
    """Let configs name our attention function inside a `with` block, which is known only there."""
    before = [config._attn_implementation for config in configs]
    stock = (before[0] or "eager").removesuffix(SHOWING)
    if stock not in SUPPORTED:
        raise ValueError(
            f"attn_implementation={stock!r}: the attention of a layer can be seen with {' or '.join(SUPPORTED)}: load "
            "the model with attn_implementation='sdpa' for this"
        )
    name = stock + SUFFIX
    AttentionInterface.register(name, beside(own_eager if stock == "eager" else AttentionInterface()[stock]))
    AttentionMaskInterface.register(name, AttentionMaskInterface()[stock])
    try:
        for config in configs:
            config._attn_implementation = name
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation
        for interface in (AttentionInterface, AttentionMaskInterface):
            del interface._global_mapping[name]


def text_configs(model: PreTrainedModel) -> list[Any]:
    """Return the configs from which the text model of a decoder, and its masks, read the name of their attention."""
    found: dict[int, Any] = {}
    text_model: Any = model.get_decoder()
    for config in (text_model.config, model.config.get_text_config(), model.base_model.config.get_text_config()):
        found[id(config)] = config
    return list(found.values())


def own_eager(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call the attention function for `"eager"` of a layer. It stands in the file of its class, in no table."""
    return import_module(type(module).__module__).eager_attention_forward(module, *args, **kwargs)


def beside(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return an attention function that computes the rows which this thread wants, and then calls `stock`."""

    def watched(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> Any:
        rows = _WATCHED.get()
        if rows is not None and module.layer_idx in rows.layers:
            places = rows.places_in(query.shape[2])
            attention = attention_of_rows(module, query, key, attention_mask, places, **kwargs)
            rows.see(module.layer_idx, attention.mean(dim=1))
        return stock(module, query, key, value, attention_mask, **kwargs)

    return watched


def attention_of_rows(
    module: Any,
    query: Tensor,
    key: Tensor,
    attention_mask: Tensor | None,
    places: Tensor,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> Tensor:
    """Return the attention of some rows, float32 (B, H, R, L).

    Args:
        module: the attention layer.
        query: float (B, H, Lq, d), after the position embedding.
        key: float (B, H', L, d), where H is a multiple of H'. The queries are those of the last Lq of the L tokens.
        attention_mask: bool or float (B, 1, Lq, L) as the stock kernel takes it; None if the layer is causal and
            nothing is padded, or if it is not causal at all.
        places: long (B, R) in [0, Lq).
        scaling: what the products are multiplied by; None for one over the square root of d.
        is_causal: whether a row without a mask sees only what stands before it; None for what the layer says.
        softcap: the limit of the scores, which a hyperbolic tangent keeps below it; None for no limit.
        kwargs: other arguments of the kernel, which change nothing here.
    """
    batch, heads, length, width = query.shape
    places = places.to(query.device)
    index = places[:, None, :, None].expand(-1, heads, -1, width)
    chosen = query.gather(2, index).float().unflatten(1, (key.shape[1], -1))
    scores = ops.exact_product(chosen, key.float().transpose(2, 3).unsqueeze(2))
    scores = scores.flatten(1, 2) * (width**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    if attention_mask is not None:
        row_index = places[:, None, :, None].expand(-1, attention_mask.shape[1], -1, attention_mask.shape[3])
        mask = attention_mask.expand(batch, -1, -1, -1).gather(2, row_index)
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.float()
    elif module.is_causal if is_causal is None else is_causal:
        later = torch.arange(key.shape[2], device=query.device) > (places + key.shape[2] - length).unsqueeze(-1)
        scores = scores.masked_fill(later.unsqueeze(1), -torch.inf)
    return scores.softmax(dim=-1).nan_to_num(0.0)  # the row of a padding token may see nothing


def attending_layers(model: PreTrainedModel) -> tuple[int, ...]:
    """Return the indices of the layers of the text model whose tokens attend to each other.

    Those of linear attention do not: they hold a state.
    """
    text_model: nn.Module = model.get_decoder()
    config: Any = text_model.config
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    return tuple(index for index, kind in enumerate(kinds) if kind in ("full_attention", "sliding_attention"))
