"""Feed-forward parts that take a limited number of tokens at once.

So the widest tensor of a feed-forward part is no larger before the reduction than after it, and the layers before the
reduction do not set the peak of the memory.
"""

from collections.abc import Callable

from torch import Tensor

MIN_CHUNK = 512
"""The fewest tokens at once. Matrix products with fewer rows are slow."""


def tokenwise(function: Callable[[Tensor], Tensor], states: Tensor, chunk: int | None) -> Tensor:
    """Apply a function that works on each token by itself.

    Args:
        function: from float (N, D) or (B, L, D) to the same shape.
        states: float (B, L, D), contiguous. They are overwritten if there are more than `chunk` tokens, so no other
            code may need them.
        chunk: how many tokens at once; None for all.

    Returns:
        float (B, L, D).
    """
    if chunk is None or chunk >= states.shape[0] * states.shape[1]:
        return function(states)
    for part in states.view(-1, states.shape[-1]).split(chunk):
        part.copy_(function(part))
    return states
