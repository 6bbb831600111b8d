"""Greedy choices of tokens that differ from each other, for the methods that choose before the first layer.

The functions take one step per chosen token. A step is a few operations on the whole batch, and the host never waits
for a value. So the loops compile with `torch.compile(fullgraph=True)`, and export. Values that differ by less than
[`STEP`] count as equal, and of equal tokens the first one is chosen. So an example gets the same tokens in any batch.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import ops

STEP = 2.0**-12
"""Gains are rounded to multiples of this number, so that the rounding errors of matrix products change no choice."""
RIDGE = 1e-3
"""The least distance that counts. [`choose_dpp`] adds it to the diagonal of the similarity matrix. So the choice goes
on by quality when the chosen tokens already span the features."""

LEAST = -100.0
"""The least logarithm of a quality."""
PADDING, CHOSEN = -1e30, -2e30
"""The preference for padding, and for a token that is chosen already. Gains are too small to change it."""

Pick = Callable[[Tensor, Tensor], Tensor]
"""Takes the token of a step, long (B, 1). Its arguments are those of [`first_highest`]."""


class Draw:
    """A [`Pick`] that draws each token at random, with a probability in proportion to its gain.

    It adds up the log of the probabilities of what it has drawn, with a gradient. So a new one is made for each
    choice. It is for training, where choices must be explored.
    """

    def __init__(self) -> None:
        self.log_probability: Tensor | float = 0.0
        """float32 (B,): the log of the probability of all tokens that were drawn."""

    def __call__(self, log_gain: Tensor, preference: Tensor) -> Tensor:
        log_probabilities = torch.add(log_gain, preference, alpha=STEP).log_softmax(dim=1)
        noise = -torch.empty_like(log_gain).exponential_().log()
        drawn = (log_probabilities.detach() + noise).argmax(dim=1, keepdim=True)
        self.log_probability = self.log_probability + log_probabilities.gather(1, drawn).squeeze(1)
        return drawn


def first_highest(log_gain: Tensor, preference: Tensor) -> Tensor:
    """Return the first token with the highest gain, long (B, 1).

    Args:
        log_gain: float (B, L), the logarithm of the gain without the quality.
        preference: float (B, L), from [`log_preference`], with [`CHOSEN`] for tokens that are taken.
    """
    gain = torch.add(preference, log_gain, alpha=1 / STEP).round()
    places = torch.arange(gain.shape[1], device=gain.device, dtype=torch.float32)
    # float, because MPS has no "amin" for integers; `argmax` does not say which of several it gives
    first = torch.where(gain == gain.amax(dim=1, keepdim=True), places, math.inf).amin(dim=1, keepdim=True)
    return first.long()


def choose_best(features: Tensor, quality: Tensor, mask: Tensor, num_keep: int, pick: Pick = first_highest) -> Tensor:
    """Choose the tokens of highest quality. Arguments and result are those of [`choose_dpp`].

    The features have no influence.
    """
    preference = log_preference(quality.float().log(), mask)
    same, chosen = torch.zeros_like(preference), []
    for _ in range(num_keep):
        chosen.append(pick(same, preference))
        preference = preference.scatter(1, chosen[-1], CHOSEN)
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
        pick: what takes the token of each step.

    Returns:
        long (B, num_keep): positions of the chosen tokens, in the order of the choice.
    """
    similarity = cosines(features)
    batch, length = mask.shape
    preference = log_preference(2 * quality.float().log(), mask)
    # What is left of the squared norm of each feature beside the chosen ones; the quality is a factor of the gain.
    left = torch.full((batch, length), 1.0 + RIDGE, device=mask.device)
    factors = similarity.new_zeros(batch, num_keep, length)  # rows of the Cholesky factor
    chosen = []
    for step in range(num_keep):
        best = pick(left.log(), preference)
        chosen.append(best)
        preference = preference.scatter(1, best, CHOSEN)
        factor = rows_of(similarity, best)
        if step:
            known = factors[:, :step]
            at_best = known.gather(2, best.unsqueeze(1).expand(-1, step, -1))
            factor = factor - ops.exact_product(at_best.transpose(1, 2), known).squeeze(1)
        factor = factor / left.gather(1, best).sqrt()
        factors[:, step] = factor
        left = (left - factor.square()).clamp(min=RIDGE)
    return torch.cat(chosen, dim=1)


def choose_max_min(
    features: Tensor, quality: Tensor, mask: Tensor, num_keep: int, pick: Pick = first_highest
) -> Tensor:
    """Choose tokens that are of high quality and far from each other, each by its distance to the nearest chosen one.

    Each step takes the token with the highest product of its quality and its cosine distance to the nearest chosen
    token. For the first token, the distance is that to the nearest other token. With equal qualities this is DivPrune
    (https://arxiv.org/abs/2503.02175, Algorithm 1).

    Arguments and result are those of [`choose_dpp`].
    """
    similarity = cosines(features)
    preference = log_preference(quality.float().log(), mask)
    pairs = mask.unsqueeze(1) & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    distance = (1 - similarity).masked_fill(~pairs, 2.0).amin(dim=-1)  # 2 is the largest cosine distance
    chosen = []
    for step in range(num_keep):
        best = pick(distance.clamp(min=RIDGE).log(), preference)
        chosen.append(best)
        preference = preference.scatter(1, best, CHOSEN)
        to_best = 1 - rows_of(similarity, best)
        distance = torch.minimum(distance, to_best) if step else to_best
    return torch.cat(chosen, dim=1)


def choose_coverage(
    features: Tensor, quality: Tensor, mask: Tensor, num_keep: int, pick: Pick = first_highest
) -> Tensor:
    """Choose tokens of high quality that cover all others: each token should be like one that is chosen.

    The coverage of a token is its highest cosine similarity to a chosen one. Each step takes the token with the
    highest product of its quality and what it adds to the coverage of all real tokens, as in MMTok
    (https://arxiv.org/abs/2508.18264).

    Arguments and result are those of [`choose_dpp`].
    """
    similarity = cosines(features)
    preference = log_preference(quality.float().log(), mask)
    covered = torch.full_like(preference, -1.0)  # the least cosine similarity
    num_real = mask.sum(dim=1, keepdim=True).clamp(min=1)
    chosen = []
    for _ in range(num_keep):
        added = (similarity - covered.unsqueeze(1)).clamp(min=0) * mask.unsqueeze(1)
        gain = added.sum(dim=-1) / num_real
        best = pick(gain.clamp(min=RIDGE / 10).log(), preference)
        chosen.append(best)
        preference = preference.scatter(1, best, CHOSEN)
        covered = torch.maximum(covered, rows_of(similarity, best))
    return torch.cat(chosen, dim=1)


def cosines(features: Tensor) -> Tensor:
    """Return the cosine similarity of all tokens, float32 (B, L, L)."""
    features = F.normalize(features.float(), dim=-1)
    return ops.exact_product(features, features.transpose(1, 2))


def rows_of(similarity: Tensor, best: Tensor) -> Tensor:
    """Return the similarity of all tokens to one token of each example, (B, L); `best` is long (B, 1)."""
    return similarity.gather(1, best.unsqueeze(-1).expand(-1, -1, similarity.shape[-1])).squeeze(1)


def log_preference(log_quality: Tensor, mask: Tensor) -> Tensor:
    """Return what is added to the gains, in units of [`STEP`]: the quality of real tokens, and `PADDING`."""
    return (log_quality.clamp(min=LEAST) / STEP).masked_fill(~mask, PADDING)
