"""Parts of a layer: feed-forward in pieces, so that the layers before the reduction do not set the peak of the memory;
and the reduction, by name, for profilers.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

REDUCTION_REGION = "pumer_hf::reduction"
"""What profilers call the work that reducing tokens adds to a layer: collecting the evidence, deciding, moving."""

MIN_ROWS = 512
"""Matrix products of fewer rows than this are slow."""


def tokenwise(function: Callable[[Tensor], Tensor], states: Tensor, rows: int | None) -> Tensor:
    """Apply a function that works on each token by itself.

    Args:
        function: from float (N, D) or (B, L, D) to the same shape.
        states: float (B, L, D), contiguous; with `rows`, it is overwritten, so nobody else may need it.
        rows: tokens at once; None for all.

    Returns:
        float (B, L, D).
    """
    if rows is None or rows >= states.shape[0] * states.shape[1]:
        return function(states)
    for part in states.view(-1, states.shape[-1]).split(rows):
        part.copy_(function(part))
    return states


def reduction_region() -> AbstractContextManager[Any]:
    """Names what runs in it `REDUCTION_REGION` in profiles; in compiled code it does nothing."""
    return nullcontext() if torch.compiler.is_compiling() else record_function(REDUCTION_REGION)
