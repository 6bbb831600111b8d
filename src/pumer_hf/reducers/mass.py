"""How many patches an example needs, by the attention that they hold together."""

from collections.abc import Iterable

import torch
from torch import Tensor

from .base import ReductionConfig

TOLERANCE = 1e-5
"""By how much the attention of the kept patches may miss the wanted part, so that rounding errors change no number."""


def numbers_by_mass(
    attention: Tensor, mask: Tensor, keep_mass: float, min_keep: int = 1, max_keep: int | None = None
) -> Tensor:
    """Return how many of its patches each example keeps, so that those of highest attention hold a part of it.

    Args:
        attention: float (B, P), at least 0. That of the real patches of an example sums to 1.
        mask: bool (B, P), True for real patches. An example has at least one.
        keep_mass: the part of the attention, in (0, 1]. At 1, all real patches stay.
        min_keep: the fewest patches, at least 1.
        max_keep: the most patches; None: all.

    Returns:
        long (B,), from 1 to the number of real patches.
    """
    num_real = mask.sum(dim=1)
    if keep_mass == 1:
        numbers = num_real
    else:
        ranked = attention.masked_fill(~mask, 0.0).sort(dim=1, descending=True).values
        before = ranked.cumsum(dim=1) - ranked  # what the patches of higher attention hold
        numbers = (before < keep_mass - TOLERANCE).sum(dim=1)
    return torch.minimum(numbers.clamp(min=min_keep, max=max_keep), num_real)


def check_fixed_lengths(parts: Iterable[ReductionConfig], use: str) -> None:
    """Raise `ValueError` if it depends on the data how many tokens a part of a schedule keeps.

    Args:
        parts: the parts.
        use: what needs fixed lengths, as the middle of the error: "a compiled model has fixed shapes".
    """
    for part in parts:
        if part.varies:
            raise ValueError(
                f"reduction.keep_mass={getattr(part, 'keep_mass', None)}: {use}, but how many tokens stay depends on "
                "the data: give keep_ratio or num_keep"
            )
