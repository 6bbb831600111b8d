"""Groups of tokens that are alike, for the methods that merge before the first layer.

The groups are grown pair by pair: each step merges the two that are most alike, and a group counts as the mean of its
tokens. This is hierarchical clustering with centroid linkage. A step is a few operations on the whole batch, and the
host never waits for a value. Values that differ by less than [`STEP`] count as equal, and of equal pairs the first one
is merged. So an example gets the same groups in any batch.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import ops
from ..tokens import NUM_PREFIX_TOKENS, Tokens
from .choice import LEAST, RIDGE, STEP
from .tome import merge_in_rounds

EXACT = 256
"""The most tokens that are grouped pair by pair, since the number of steps and the work of each grow with it. Of more
tokens, the most similar ones are merged in rounds first, as ToMe does."""
PADDED = -1e30
"""The cost of a merge with padding, which comes first."""


@dataclass
class _Growing:
    """Groups while they grow. A group has the number of its first token; the numbers of the others are out of use."""

    products: Tensor
    """float (B, P, P): the scalar products of the means of the groups."""
    log_quality: Tensor
    """float (B, P)."""
    size: Tensor
    """float (B, P): the real tokens of each group. A group of padding has 0."""
    used: Tensor
    """bool (B, P): which numbers are those of groups."""
    owner: Tensor
    """long (B, P): the group of each token."""

    def costs(self, products: Tensor, norms: Tensor, log_quality: Tensor, size: Tensor) -> Tensor:
        """Return what it costs to merge a group with each of the others, in units of [`STEP`], rounded.

        Args:
            products: float (B, *, P), the products of its mean with those of the others.
            norms: float (B, *), the squared norm of its mean.
            log_quality: float (B, *).
            size: float (B, *), its real tokens.
        """
        own = self.products.diagonal(dim1=1, dim2=2).unsqueeze(1)
        likeness = products / (norms.unsqueeze(-1) * own).clamp(min=1e-12).sqrt()
        log_cost = (1 - likeness).clamp(min=RIDGE).log() + log_quality.unsqueeze(-1) + self.log_quality.unsqueeze(1)
        real = (size.unsqueeze(-1) > 0) & (self.size.unsqueeze(1) > 0)
        cost = (log_cost / STEP).round().masked_fill(~real, PADDED)
        return cost.masked_fill(~self.used.unsqueeze(1), math.inf)

    def merge(self, cost: Tensor) -> None:
        """Merge the cheapest pair of each example, and bring `cost` up to date.

        Args:
            cost: float (B, P, P), the cost of each pair of two groups, the first one before the second; infinite for
                what is no such pair.
        """
        lowest = cost.amin(dim=2)
        first = first_of(lowest == lowest.amin(dim=1, keepdim=True))
        row = cost.gather(1, first.unsqueeze(2).expand(-1, -1, cost.shape[2])).squeeze(1)
        second = first_of(row == row.amin(dim=1, keepdim=True))
        sizes = self.size.gather(1, first), self.size.gather(1, second)
        parts = [size / (sizes[0] + sizes[1]).clamp(min=1) for size in sizes]
        rows = [
            self.products.gather(1, place.unsqueeze(2).expand_as(cost[:, :1])).squeeze(1) for place in (first, second)
        ]
        mixed = parts[0] * rows[0] + parts[1] * rows[1]
        norm = parts[0] * mixed.gather(1, first) + parts[1] * mixed.gather(1, second)
        mixed = mixed.scatter(1, first, norm)
        put(self.products, first, mixed, mixed)
        quality = torch.maximum(self.log_quality.gather(1, first), self.log_quality.gather(1, second))
        self.log_quality = self.log_quality.scatter(1, first, quality)
        self.size = self.size.scatter(1, first, sizes[0] + sizes[1])
        self.used = self.used.scatter(1, second, False)
        self.owner = torch.where(self.owner == second, first, self.owner)
        new = self.costs(mixed.unsqueeze(1), norm, quality, sizes[0] + sizes[1]).squeeze(1)
        places = torch.arange(cost.shape[1], device=cost.device)
        put(cost, first, new.masked_fill(places <= first, math.inf), new.masked_fill(places >= first, math.inf))
        gone = torch.full_like(new, math.inf)
        put(cost, second, gone, gone)


def group_alike(features: Tensor, quality: Tensor, mask: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Put tokens into groups of tokens that are alike.

    Each step merges the two groups with the lowest product of their qualities and of the cosine distance of their
    means. A group has the highest quality of its tokens. So tokens of high quality stay apart from others for longer.

    Args:
        features: float (B, P, d).
        quality: float (B, P), above 0.
        mask: bool (B, P), True for real tokens. Padding is in a group with real ones if those do not suffice.
        num_groups: groups to make, from 1 to P.

    Returns:
        The group of each token, long (B, P) in [0, num_groups), and for each group the place of the token that is most
        like its mean, long (B, num_groups). The groups are in the order of these places.
    """
    features, log_quality = features.detach().float(), quality.detach().float().log().clamp(min=LEAST)
    rough, means, size = rough_groups(features, mask, num_groups)
    products = ops.exact_product(means, means.transpose(1, 2))
    groups = _Growing(
        products=(products + products.transpose(1, 2)) / 2,
        log_quality=torch.full_like(size, LEAST).scatter_reduce(1, rough, log_quality, "amax"),
        size=size,
        used=torch.ones_like(size, dtype=torch.bool),
        owner=torch.arange(size.shape[1], device=size.device).expand(size.shape),
    )
    norms = groups.products.diagonal(dim1=1, dim2=2)
    cost = groups.costs(groups.products, norms, groups.log_quality, groups.size)
    cost = cost.masked_fill(~torch.ones_like(cost[0], dtype=torch.bool).triu(1), math.inf)
    for _ in range(size.shape[1] - num_groups):
        groups.merge(cost)
    rank = groups.used.long().cumsum(dim=1) - 1
    group = rank.gather(1, groups.owner).gather(1, rough)
    return in_order(group, most_typical(features, group, mask, num_groups))


def rough_groups(features: Tensor, mask: Tensor, num_groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return small groups of similar tokens, if there are more than [`EXACT`] tokens; else a group for each token.

    Returns:
        The group of each token, long (B, P); the mean of each, float (B, G, d), and its number of real tokens, float
        (B, G).
    """
    length = mask.shape[1]
    prefix = (NUM_PREFIX_TOKENS, 0)
    tokens = Tokens.initial(F.pad(features, (0, 0, *prefix)), F.pad(mask, prefix, value=True))
    whole = torch.arange(length, device=mask.device).expand(mask.shape)
    if length <= EXACT:
        return whole, features, mask.float()
    tokens = merge_in_rounds(tokens, length - max(num_groups, EXACT))
    group = tokens.source[:, NUM_PREFIX_TOKENS:] - NUM_PREFIX_TOKENS
    size = tokens.size[:, NUM_PREFIX_TOKENS:].float()
    return with_padding(group, mask, size), tokens.states[:, NUM_PREFIX_TOKENS:], size


def with_padding(group: Tensor, mask: Tensor, size: Tensor) -> Tensor:
    """Return groups, long (B, P), with padding put into those that have no real token, one each, or else anywhere.

    Args:
        group: long (B, P), the group of each real token.
        mask: bool (B, P), True for real tokens.
        size: float (B, G), the real tokens of each group.
    """
    empty_first = (size > 0).long().argsort(dim=1, stable=True)
    last = ((size == 0).sum(dim=1, keepdim=True) - 1).clamp(min=0)
    number = (~mask).long().cumsum(dim=1) - 1
    return torch.where(mask, group, empty_first.gather(1, number.clamp(min=0).minimum(last)))


def most_typical(features: Tensor, group: Tensor, mask: Tensor, num_groups: int) -> Tensor:
    """Return for each group the place of the token that is most like its mean, long (B, num_groups).

    Of equal tokens it is the first one. In a group of padding alone it is the first one too.
    """
    weighted = features * mask.unsqueeze(-1)
    index = group.unsqueeze(-1).expand_as(features)
    sums = features.new_zeros(len(features), num_groups, features.shape[-1]).scatter_add(1, index, weighted)
    likeness = F.cosine_similarity(sums.gather(1, index), features, dim=-1)
    score = (likeness / STEP).round().masked_fill(~mask, -math.inf)
    best = score.new_full((len(score), num_groups), -math.inf).scatter_reduce(1, group, score, "amax")
    places = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    places = places.masked_fill(score < best.gather(1, group), mask.shape[1])
    return places.new_full((len(score), num_groups), mask.shape[1]).scatter_reduce(1, group, places, "amin")


def in_order(group: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return groups, long (B, P), and the place of each, long (B, K), numbered in the order of their places."""
    order = places.argsort(dim=1)
    return order.argsort(dim=1).gather(1, group), places.gather(1, order)


def first_of(wanted: Tensor) -> Tensor:
    """Return the first True of each row, long (B, 1); `argmax` does not say which of several it gives."""
    places = torch.arange(wanted.shape[1], device=wanted.device, dtype=torch.float32)
    return torch.where(wanted, places, math.inf).amin(dim=1, keepdim=True).long()


def put(matrix: Tensor, place: Tensor, row: Tensor, column: Tensor) -> None:
    """Replace a row and a column of each matrix (B, P, P), in place. `place` is long (B, 1), the values (B, P)."""
    matrix.scatter_(1, place.unsqueeze(2).expand_as(matrix[:, :1]), row.unsqueeze(1))
    matrix.scatter_(2, place.unsqueeze(1).expand_as(matrix[:, :, :1]), column.unsqueeze(2))
