"""Attention with `semantics="release"`: what the code released with PuMer computes where the paper's is a softmax."""

from dataclasses import replace

import torch
from torch import Tensor

from ...tokens import TokenPair

EPSILON = 1e-6


def with_float_masks(pair: TokenPair) -> TokenPair:
    """The tokens with float masks, which is what makes attention and reducers follow the release."""
    text, image = pair.text, pair.image
    return TokenPair(replace(text, mask=text.mask.float()), replace(image, mask=image.mask.float()))


def release_softmax(scores: Tensor, key_mask: Tensor) -> Tensor:
    """A softmax in which the masks are weights of `exp(score)`, as in DynamicViT (https://arxiv.org/abs/2106.02034).

    A masked key keeps a weight of about 1e-6 / Lk, and the maximum is taken over masked keys too. Query i may attend
    to key i even if that is masked, in cross-attention as well, where the two have nothing to do with each other.

    Args:
        scores: float (B, H, Lq, Lk).
        key_mask: float (B, 1, 1, Lk) in [0, 1].

    Returns:
        float32 (B, H, Lq, Lk); each row sums to 1.
    """
    num_queries, num_keys = scores.shape[-2:]
    own = torch.eye(num_queries, num_keys, device=scores.device)
    weights = key_mask + (1 - key_mask) * own
    scores = scores.float()
    exponentials = (scores - scores.amax(dim=-1, keepdim=True)).exp() * weights
    return (exponentials + EPSILON / num_keys) / (exponentials.sum(dim=-1, keepdim=True) + EPSILON)
