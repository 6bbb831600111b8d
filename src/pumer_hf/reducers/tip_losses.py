"""The losses of TiP, as pure functions. Their sum with the losses of task and distillation is Eq. 3."""

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

from .pruning import masked_mean


def sparsity_loss(probabilities: Tensor, mask: Tensor, kept: float | Tensor) -> Tensor:
    """Return the sparsity loss (TiP, Eq. 6): the mean squared distance of the keep probabilities to the wanted part.

    Args:
        probabilities: float (B, L), in [0, 1].
        mask: bool (B, L), True for the tokens that count: those that came into the layer. In Eq. 6 all tokens count.
        kept: part of the tokens to keep, in (0, 1]: one number, or float (B, 1) for one per example.

    Returns:
        Scalar, at least 0.
    """
    return masked_mean((probabilities - kept) ** 2, mask)


def contrastive_loss(text: Tensor, image: Tensor, temperature: Tensor) -> Tensor:
    """Return the text-informed contrastive loss (TiP, Eq. 2): which text of the batch belongs to each image?

    The batch contains the examples of all processes.

    Args:
        text: float (B, d), projected and normalised.
        image: float (B, d), projected and normalised. Image i belongs to text i.
        temperature: scalar above 0.

    Returns:
        Scalar, at least 0.
    """
    rank, texts = 0, text
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank, texts = torch.distributed.get_rank(), torch.cat(list(all_gather(text)))
    similarity = image @ texts.T / temperature
    return F.cross_entropy(similarity, torch.arange(len(text), device=text.device) + rank * len(text))


def continuity_loss(probabilities: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the continuity loss (TiP, Eq. 7).

    It compares the keep probability of each patch with those of its 8 neighbours, by squared differences.

    Args:
        probabilities: float (B, rows * columns), in [0, 1], in raster order.
        mask: bool (B, rows * columns), True for the patches that count.
        grid: rows and columns.

    Returns:
        Scalar, at least 0: the mean over all neighbours that both count.
    """
    values, real = probabilities.unflatten(1, grid), mask.unflatten(1, grid)
    differences, counted = [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):  # each two neighbours once
        here, there = neighbours(values, down, right)
        both = neighbours(real, down, right)
        differences.append((here - there).flatten(1))
        counted.append((both[0] & both[1]).flatten(1))
    return masked_mean(torch.cat(differences, dim=1) ** 2, torch.cat(counted, dim=1))


def neighbours(values: Tensor, down: int, right: int) -> tuple[Tensor, Tensor]:
    """Return the `values` (B, rows, columns) that have a neighbour so many steps away, and these neighbours."""
    rows, columns = values.shape[1:]
    first, last = max(-right, 0), columns - max(right, 0)
    return values[:, : rows - down, first:last], values[:, down:, first + right : last + right]
