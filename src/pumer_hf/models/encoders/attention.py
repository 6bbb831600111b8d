"""Attention of both model families: fused, or with explicit probabilities where somebody reads them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .release import release_softmax


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """Split the states (B, L, D) into heads: float (B, num_heads, L, D / num_heads)."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def key_mask(mask: Tensor, padded: bool) -> Tensor | None:
    """The mask of some tokens (B, L), bool or float, in the form that attention takes, (B, 1, 1, L).

    None where nothing is masked: `padded` says whether some token may be padding, and a float mask always counts.
    """
    return mask[:, None, None] if padded or mask.is_floating_point() else None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    dropout: float,
    explicit: bool,
    release: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention.

    Args:
        query: float (B, H, Lq, d).
        key: float (B, H, Lk, d).
        value: float (B, H, Lk, d).
        key_mask: bool (B, 1, 1, Lk), False for keys that nobody attends to; None if there are none. Or float, what
            `exp(score)` of each key is multiplied with.
        dropout: probability of dropping an attention weight, in [0, 1); 0 outside of training.
        explicit: compute the probabilities, instead of letting a fused kernel do without them.
        release: as `semantics="release"` does it; only with a float mask.

    Returns:
        The context, float (B, Lq, H * d); and the probabilities before dropout, float (B, H, Lq, Lk), if `explicit`.
    """
    weights = None
    # A mask that learns must be a factor: its logarithm, which the fused kernel adds, has infinite gradients at 0.
    if explicit or release or (key_mask is not None and key_mask.requires_grad):
        weights = attention_weights(query, key, key_mask, release)
        context = F.dropout(weights, dropout) @ value
    else:
        if key_mask is not None and key_mask.is_floating_point():
            key_mask = key_mask.log().clamp(min=torch.finfo(query.dtype).min).to(query.dtype)
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=key_mask, dropout_p=dropout)
    return context.transpose(1, 2).flatten(2), weights


def attention_weights(query: Tensor, key: Tensor, key_mask: Tensor | None, release: bool = False) -> Tensor:
    """Softmax attention probabilities.

    Args:
        query: float (B, H, Lq, d).
        key: float (B, H, Lk, d).
        key_mask: as in [`attend`].
        release: as in [`attend`].

    Returns:
        float (B, H, Lq, Lk) in the dtype of `query`; the softmax is taken in float32.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if key_mask is not None and key_mask.is_floating_point():
        softmax = release_softmax if release else weighted_softmax
        return softmax(scores, key_mask).to(query.dtype)
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)


def weighted_softmax(scores: Tensor, weight: Tensor) -> Tensor:
    """A softmax in which `exp(score)` of each key is multiplied with its weight.

    Gradients are finite also at weight 0, where they say what it would bring to let the key in.

    Args:
        scores: float (B, H, Lq, Lk).
        weight: float (B, 1, 1, Lk) of at least 0, for some key above 0.

    Returns:
        float32 (B, H, Lq, Lk); each row sums to 1.
    """
    scores = scores.float()
    highest = scores.masked_fill(weight <= 0, -torch.inf).amax(dim=-1, keepdim=True).detach()
    exponentials = (scores - highest).clamp(max=0).exp() * weight  # above the highest are keys of weight 0
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def mean_over_heads(key: Tensor) -> Tensor:
    """The metric of token similarity: keys (B, H, L, d), averaged over the heads, float32 (B, L, d)."""
    # A sum of slices takes a third of the time of `mean` on a CPU.
    first, *others = (head.float() for head in key.unbind(dim=1))
    return sum(others, start=first) / key.shape[1]
