"""Attention with `semantics="release"`, as the code released with PuMer computes it."""

from dataclasses import replace

import torch
from torch import Tensor

from ...tokens import KeyMask, TokenPair, Tokens
from .attention import AttentionKernel

EPSILON = 1e-6


class ReleaseKernel(AttentionKernel):
    """The attention of the released code. All tokens have a weight in place of the mask, and reducers change it."""

    fused = False

    def begin(self, pair: TokenPair) -> TokenPair:
        """Give the tokens that come into the first layer their weights: 1 for a real token and 0 for padding."""
        return TokenPair(*(with_weight(tokens) for tokens in (pair.text, pair.image)))

    def softmax(self, scores: Tensor, key_mask: KeyMask) -> Tensor:
        assert key_mask.weight is not None, "`begin` gives all tokens a weight"
        return release_softmax(scores, key_mask.weight)


def with_weight(tokens: Tokens) -> Tokens:
    """Return the same tokens with a `weight`."""
    return replace(tokens, weight=tokens.attention_weight)


def release_softmax(scores: Tensor, weight: Tensor) -> Tensor:
    """Compute a softmax with weights of `exp(score)`, as in DynamicViT (https://arxiv.org/abs/2106.02034).

    A key of weight 0 keeps a probability of about 1e-6 / Lk, and the maximum is taken over such keys too. Query i may
    attend to key i even if this key has weight 0. In the released code this holds for cross-attention as well, where
    query i and key i are not the same token.

    Args:
        scores: float (B, H, Lq, Lk).
        weight: float (B, 1, 1, Lk) in [0, 1].

    Returns:
        float32 (B, H, Lq, Lk); each row sums to 1.
    """
    num_queries, num_keys = scores.shape[-2:]
    same_index = torch.eye(num_queries, num_keys, device=scores.device)
    weights = weight + (1 - weight) * same_index
    scores = scores.float()
    exponentials = (scores - scores.amax(dim=-1, keepdim=True)).exp() * weights
    return (exponentials + EPSILON / num_keys) / (exponentials.sum(dim=-1, keepdim=True) + EPSILON)


KERNELS: dict[str, type[AttentionKernel]] = {"paper": AttentionKernel, "release": ReleaseKernel}
"""The attention for each value of `config.semantics`."""
