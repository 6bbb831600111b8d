"""Attention of both model families: fused, or with explicit probabilities where somebody reads them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .release import release_softmax


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """Split the states (B, L, D) into heads: float (B, num_heads, L, D / num_heads)."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def key_mask(mask: Tensor, padded: bool) -> Tensor | None:
    """The mask of some tokens (B, L) in the form that attention takes, (B, 1, 1, L).

    None where nothing is masked: `padded` says whether some token may be padding, and a float mask always counts.
    """
    return mask[:, None, None] if padded or mask.is_floating_point() else None


def attend(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, dropout: float, explicit: bool
) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention.

    Args:
        query: float (B, H, Lq, d).
        key: float (B, H, Lk, d).
        value: float (B, H, Lk, d).
        key_mask: bool (B, 1, 1, Lk), False for keys that nobody attends to; None if there are none. Float with
            `semantics="release"`.
        dropout: probability of dropping an attention weight, in [0, 1); 0 outside of training.
        explicit: compute the probabilities, instead of letting a fused kernel do without them.

    Returns:
        The context, float (B, Lq, H * d); and the probabilities before dropout, float (B, H, Lq, Lk), if `explicit`.
    """
    weights = None
    if explicit or (key_mask is not None and key_mask.is_floating_point()):
        weights = attention_weights(query, key, key_mask)
        context = F.dropout(weights, dropout) @ value
    else:
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=key_mask, dropout_p=dropout)
    return context.transpose(1, 2).flatten(2), weights


def attention_weights(query: Tensor, key: Tensor, key_mask: Tensor | None) -> Tensor:
    """Softmax attention probabilities.

    Args:
        query: float (B, H, Lq, d).
        key: float (B, H, Lk, d).
        key_mask: as in [`attend`].

    Returns:
        float (B, H, Lq, Lk) in the dtype of `query`; the softmax is taken in float32.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if key_mask is not None and key_mask.is_floating_point():
        return release_softmax(scores, key_mask).to(query.dtype)
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)


def mean_over_heads(key: Tensor) -> Tensor:
    """The metric of token similarity: keys (B, H, L, d), averaged over the heads, float32 (B, L, d)."""
    # A sum of slices takes a third of the time of `mean` on a CPU.
    first, *others = (head.float() for head in key.unbind(dim=1))
    return sum(others, start=first) / key.shape[1]
