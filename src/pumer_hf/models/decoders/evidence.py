"""The attention function of a decoder that reduces inside. It also shows queries and keys to the plan of a forward.

The text model of a decoder calls an attention function that its config names, and makes masks for it by the same name.
[`show_evidence`] lets the config name one of ours, which calls the stock function. Without a plan among its arguments
it does nothing else.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from ... import ops
from .cut_masks import all_visible
from .text_rows import SHOWING, SUPPORTED, own_eager, text_configs

PLAN = "layer_plan"
"""The argument that carries the [`LayerPlan`] of a forward through the layers."""
KEY_WEIGHT = "layer_key_weight"
"""The argument with the weights of the keys, float (B, k), if these learn."""


def show_evidence(model: PreTrainedModel) -> None:
    """Let the config of a text model name our attention function from now on.

    Raises:
        ValueError: the model has an implementation of attention beside which nothing can be seen.
    """
    for config in text_configs(model):
        name = config._attn_implementation or "eager"
        if name.removesuffix(SHOWING) not in SUPPORTED:
            raise ValueError(
                f"attn_implementation={name!r}: image tokens can be reduced inside a decoder with "
                f"{' or '.join(SUPPORTED)}: load the model with attn_implementation='sdpa'"
            )
        if not name.endswith(SHOWING):
            config._attn_implementation = name + SHOWING


def is_showing(model: PreTrainedModel) -> bool:
    """Return whether the config of a text model names our attention function."""
    return all((config._attn_implementation or "").endswith(SHOWING) for config in text_configs(model))


def hide_evidence(model: PreTrainedModel) -> None:
    """Let the config of a text model name the stock attention function again."""
    for config in text_configs(model):
        if (config._attn_implementation or "").endswith(SHOWING):
            config._attn_implementation = config._attn_implementation.removesuffix(SHOWING)


def _showing(name: str) -> Any:
    stock = own_eager if name == "eager" else AttentionInterface()[name]

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> Any:
        plan, weight = kwargs.pop(PLAN, None), kwargs.pop(KEY_WEIGHT, None)
        if plan is not None:
            plan.see(module, query, key, attention_mask, **kwargs)
        if attention_mask is not None and attention_mask.dtype not in (torch.bool, query.dtype):  # with autocast
            attention_mask = attention_mask.to(query.dtype).clamp(min=torch.finfo(query.dtype).min)
        if weight is not None:
            return weighted_attention(module, query, key, value, attention_mask, weight, **kwargs)
        return stock(module, query, key, value, attention_mask, **kwargs)

    return attention


def weighted_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    weight: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Compute attention in which `exp(score)` of each key is multiplied by a weight that learns.

    A fused kernel adds the logarithm of a weight, whose gradient at 0 is infinite. A token of weight 0 attends to
    itself, because before it there may be no other.

    Args:
        module: the attention layer.
        query: float (B, H, q, d).
        key: float (B, H', k, d), where H is a multiple of H'. The queries are those of the last q of the k tokens.
        value: float (B, H', k, d).
        attention_mask: bool or float (B, 1, q, k); None if the layer is causal and nothing is padded, or if it is not
            causal at all.
        weight: float (B, k), at least 0.
        scaling: what the products are multiplied by; None for one over the square root of d.
        dropout: probability of dropping an attention weight.
        softcap: the limit of the scores, which a hyperbolic tangent keeps below it; None for no limit.
        kwargs: other arguments of the kernel, which change nothing here.

    Returns:
        float (B, q, H, d), and the probabilities float (B, H, q, k).

    Raises:
        ValueError: the gradients of the layer are switched off.
    """
    if not torch.is_grad_enabled():
        raise ValueError(
            "gradient_checkpointing_kwargs={'use_reentrant': True}: a method learns through the attention of the "
            "layers, and its gradients would be lost: set use_reentrant=False"
        )
    repeats, (num_queries, num_keys) = query.shape[1] // key.shape[1], (query.shape[2], key.shape[2])
    key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
    scores = (query @ key.transpose(2, 3)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    if attention_mask is None:
        visible = all_visible(len(query), num_queries, num_keys, module.is_causal, query.device)
    else:
        visible = attention_mask if attention_mask.dtype == torch.bool else attention_mask >= 0
    itself = torch.eye(num_queries, num_keys, dtype=torch.bool, device=query.device).roll(num_keys - num_queries, 1)
    weights = torch.where(itself & (weight == 0)[:, None, None, :], 1.0, weight[:, None, None, :])
    probabilities = ops.weighted_softmax(scores, weights * (visible | itself)).to(query.dtype)
    context = F.dropout(probabilities, dropout, training=module.training) @ value
    return context.transpose(1, 2).contiguous(), probabilities


for _name in SUPPORTED:
    AttentionInterface.register(_name + SHOWING, _showing(_name))
    AttentionMaskInterface.register(_name + SHOWING, AttentionMaskInterface()[_name])
