"""The attention of all model families. It is fused, or computes explicit probabilities if these are needed."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ... import ops
from ...tokens import KeyMask, TokenPair


class Heads(NamedTuple):
    """Queries, keys and values of an attention with H heads of width d."""

    query: Tensor
    """float (B, H, Lq, d)."""
    key: Tensor
    """float (B, H, Lk, d)."""
    value: Tensor
    """float (B, H, Lk, d)."""


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """Split the states (B, L, D) into heads: float (B, num_heads, L, D / num_heads)."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


class AttentionKernel:
    """How attention computes its probabilities, and which weights the tokens begin with.

    A model makes one, and all its attention layers use it. It holds no parameters and no state.
    """

    fused: bool = True
    """Whether a fused kernel computes the same as `softmax`."""

    def begin(self, pair: TokenPair) -> TokenPair:
        """Give the tokens that come into the first layer their weights. Here all real tokens count the same."""
        return pair

    def softmax(self, scores: Tensor, key_mask: KeyMask) -> Tensor:
        """Return the probabilities, float32 (B, H, Lq, Lk), of scores of the same shape. Each row sums to 1."""
        if key_mask.weight is not None:
            return ops.weighted_softmax(scores, key_mask.weight)
        if key_mask.real is not None:
            scores = scores.masked_fill(~key_mask.real, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1, dtype=torch.float32)

    def probabilities(self, query: Tensor, key: Tensor, key_mask: KeyMask) -> Tensor:
        """Return the probability that each query attends to each key.

        Args:
            query: float (B, H, Lq, d).
            key: float (B, H, Lk, d).
            key_mask: the mask of the keys.

        Returns:
            float (B, H, Lq, Lk) in the dtype of `query`. The softmax is computed in float32.
        """
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return self.softmax(scores, key_mask).to(query.dtype)

    def attend(self, heads: Heads, key_mask: KeyMask, dropout: float, explicit: bool) -> tuple[Tensor, Tensor | None]:
        """Compute multi-head attention.

        Args:
            heads: queries, keys and values.
            key_mask: the mask of the keys.
            dropout: probability of dropping an attention weight, in [0, 1); 0 outside of training.
            explicit: whether to compute the probabilities. A fused kernel does not.

        Returns:
            The context, float (B, Lq, H * d); and the probabilities before dropout, float (B, H, Lq, Lk), or None if
            they were not computed.
        """
        query, key, value = heads
        probabilities = None
        # A weight that learns must be a factor. The fused kernel adds its logarithm, whose gradient at 0 is infinite.
        learns = key_mask.weight is not None and key_mask.weight.requires_grad
        if explicit or learns or not self.fused:
            probabilities = self.probabilities(query, key, key_mask)
            context = F.dropout(probabilities, dropout) @ value
        else:
            mask = fused_mask(key_mask, query.dtype)
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return context.transpose(1, 2).flatten(2), probabilities


def fused_mask(key_mask: KeyMask, dtype: torch.dtype) -> Tensor | None:
    """Return the mask (B, 1, 1, Lk) for `scaled_dot_product_attention`: bool, or float of `dtype` to add."""
    if key_mask.weight is None:
        return key_mask.real
    return key_mask.weight.log().to(dtype).clamp(min=torch.finfo(dtype).min)
