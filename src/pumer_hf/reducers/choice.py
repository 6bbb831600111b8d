"""Greedy choices of tokens that differ from each other, for the methods that choose before the first layer.

Both functions take one step per chosen token. A step is a few operations on the whole batch, and the host never waits
for a value. So the loops compile with `torch.compile(fullgraph=True)`, and export. Values that differ by less than
[`STEP`] count as equal, and of equal tokens the first one is chosen. So an example gets the same tokens in any batch.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

STEP = 2.0**-12
"""Gains are rounded to multiples of this number, so that the rounding errors of matrix products change no choice."""
RIDGE = 1e-3
"""The least distance that counts. [`choose_dpp`] adds it to the diagonal of the similarity matrix. So the choice goes
on by quality when the chosen tokens already span the features."""


Pick = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes the token of a step, long (B, 1). Arguments: the gain of each token, float (B, L); which tokens are real, and
which are still free, bool (B, L)."""


def first_highest(gain: Tensor, mask: Tensor, free: Tensor) -> Tensor:
    """Take the first token with the highest gain. Padding comes last. The arguments are those of [`Pick`]."""
    gain = (gain / STEP).round()
    lowest = torch.finfo(gain.dtype).min
    gain = gain.masked_fill(~mask, lowest / 2).masked_fill(~free, lowest)
    highest = gain.amax(dim=1, keepdim=True)
    places = torch.arange(gain.shape[1], device=gain.device, dtype=torch.float32)
    # float, because MPS has no "amin" for integers; `argmax` does not say which of several it gives
    return torch.where(gain == highest, places, math.inf).amin(dim=1, keepdim=True).long()


class Draw:
    """A [`Pick`] that draws each token at random, with a probability in proportion to the exponential of its gain.

    It adds up the log of the probabilities of what it has drawn, with a gradient. So a new one is made for each
    choice. It is for training, where a choice must be explored.
    """

    def __init__(self) -> None:
        self.log_probability: Tensor | float = 0.0
        """float32 (B,): the log of the probability of all tokens that were drawn."""

    def __call__(self, gain: Tensor, mask: Tensor, free: Tensor) -> Tensor:
        log_probabilities = gain.masked_fill(~mask, -1e6).masked_fill(~free, -1e9).log_softmax(dim=1)
        noise = -torch.empty_like(gain).exponential_().log()
        drawn = (log_probabilities.detach() + noise).argmax(dim=1, keepdim=True)
        self.log_probability = self.log_probability + log_probabilities.gather(1, drawn).squeeze(1)
        return drawn


def choose_best(features: Tensor, quality: Tensor, mask: Tensor, num_keep: int, pick: Pick = first_highest) -> Tensor:
    """Choose the tokens of highest quality. Arguments and result are those of [`choose_dpp`]; `features` has no
    influence.
    """
    gain, free, chosen = quality.float().log(), torch.ones_like(mask), []
    for _ in range(num_keep):
        chosen.append(pick(gain, mask, free))
        free = free.scatter(1, chosen[-1], False)
    return torch.cat(chosen, dim=1)


def choose_dpp(features: Tensor, quality: Tensor, mask: Tensor, num_keep: int, pick: Pick = first_highest) -> Tensor:
    """Choose tokens that are of high quality and unlike each other, by a determinantal point process (DPP).

    The kernel is `diag(quality) S diag(quality)` with the cosine similarity S of the features. Each step takes the
    token that increases the determinant of the chosen part most. This is the fast greedy algorithm of
    https://arxiv.org/abs/1709.05135 (Algorithm 1).

    Args:
        features: float (B, L, d).
        quality: float (B, L), above 0.
        mask: bool (B, L), True for real tokens. Padding is chosen only when nothing else is left.
        num_keep: tokens to choose, from 1 to L.
        pick: what takes the token of each step, by its gain.

    Returns:
        long (B, num_keep): positions of the chosen tokens, in the order of the choice.
    """
    features, log_quality = F.normalize(features.float(), dim=-1), quality.float().log()
    batch, length = mask.shape
    # What is left of the squared norm of each feature beside the chosen ones; the quality is a factor of the gain.
    left = torch.full((batch, length), 1.0 + RIDGE, device=features.device)
    factors = features.new_zeros(batch, length, num_keep)
    free = torch.ones_like(mask)
    chosen = []
    for step in range(num_keep):
        best = pick(left.log() + 2 * log_quality, mask, free)
        chosen.append(best)
        free = free.scatter(1, best, False)
        at = best.unsqueeze(-1)
        row = features @ features.gather(1, at.expand(-1, -1, features.shape[-1])).transpose(1, 2)
        known = factors @ factors.gather(1, at.expand(-1, -1, num_keep)).transpose(1, 2)
        factor = (row - known).squeeze(-1) / left.gather(1, best).sqrt()
        factors[:, :, step] = factor
        left = (left - factor.square()).clamp(min=RIDGE)
    return torch.cat(chosen, dim=1)


def choose_max_min(
    features: Tensor, quality: Tensor, mask: Tensor, num_keep: int, pick: Pick = first_highest
) -> Tensor:
    """Choose tokens that are of high quality and far from each other, each by its distance to the nearest chosen one.

    Each step takes the token with the highest product of its quality and its cosine distance to the nearest chosen
    token. For the first token, the distance is that to the nearest other token. With equal qualities this is DivPrune
    (https://arxiv.org/abs/2503.02175, Algorithm 1).

    Args:
        features: float (B, L, d).
        quality: float (B, L), above 0.
        mask: bool (B, L), True for real tokens. Padding is chosen only when nothing else is left.
        num_keep: tokens to choose, from 1 to L.
        pick: what takes the token of each step, by its gain.

    Returns:
        long (B, num_keep): positions of the chosen tokens, in the order of the choice.
    """
    features, quality = F.normalize(features.float(), dim=-1), quality.float()
    similarity = features @ features.transpose(1, 2)
    pairs = mask.unsqueeze(1) & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    distance = (1 - similarity).masked_fill(~pairs, 2.0).amin(dim=-1)  # 2 is the largest cosine distance
    free = torch.ones_like(mask)
    chosen = []
    for step in range(num_keep):
        best = pick(distance.clamp(min=RIDGE).log() + quality.log(), mask, free)
        chosen.append(best)
        free = free.scatter(1, best, False)
        to_best = 1 - similarity.gather(1, best.unsqueeze(-1).expand(-1, -1, mask.shape[1])).squeeze(1)
        distance = torch.minimum(distance, to_best) if step else to_best
    return torch.cat(chosen, dim=1)
