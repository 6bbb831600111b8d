"""`cut_mask`: the mask of attention for a part of the tokens, from that for all of them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Held:
    """The keys that a layer sees in a forward."""

    columns: Tensor
    """long (B, k): their columns, counted from the first of all; -1 for padding."""
    offset: int
    """The first column that a query of this forward may attend to."""
    masked: bool
    """Whether some of the keys are padding or stand before `offset`."""
    weight: Tensor | None = None
    """float (B, k): what `exp(score)` of each key is multiplied by. None if all count the same."""


def cut_mask(mask: Tensor | None, queries: Tensor, held: Held, causal: bool) -> Tensor | None:
    """Return the mask of attention for a part of the tokens.

    Args:
        mask: bool or float (B or 1, 1, Lq, Lk) for all tokens of a forward as queries, and as keys for all columns
            from `held.offset` on; None if a kernel needs none for them.
        queries: long (B, q), the columns of the queries, counted from the first of the forward; -1 for padding.
        held: the keys. Those of the queries are the last ones.
        causal: whether a layer without a mask sees only what stands before a query.

    Returns:
        bool or float (B, 1, q, k); None if no mask is needed. With weights it is float32, if `mask` was not float.
    """
    if mask is None and not held.masked and held.weight is None:
        return None
    if mask is None:
        visible = all_visible(len(queries), queries.shape[1], held.columns.shape[1], causal, queries.device)
    else:
        visible = _gathered(mask, queries, held)
    hidden = (held.columns < held.offset)[:, None, None, :]  # padding too
    if held.weight is None and visible.dtype == torch.bool:
        return visible & ~hidden
    if visible.dtype == torch.bool:
        lowest = torch.finfo(torch.float32).min
        visible = torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, lowest)
    lowest = torch.finfo(visible.dtype).min
    if held.weight is not None:
        visible = visible + held.weight.log().to(visible.dtype)[:, None, None, :]
    return visible.masked_fill(hidden, lowest).clamp(min=lowest)


def all_visible(batch: int, num_queries: int, num_keys: int, causal: bool, device: torch.device) -> Tensor:
    """Return a mask bool (batch, 1, num_queries, num_keys) without padding. The queries are the last tokens.

    Args:
        batch: B.
        num_queries: q.
        num_keys: k, at least q.
        causal: whether a query sees only what stands before it, and itself.
        device: where the mask is made.
    """
    visible = torch.ones(batch, 1, num_queries, num_keys, dtype=torch.bool, device=device)
    return visible.tril(num_keys - num_queries) if causal else visible


def _gathered(mask: Tensor, queries: Tensor, held: Held) -> Tensor:
    rows = torch.where(queries < 0, mask.shape[2] - 1, queries)  # padding sees what the last token sees
    rows = rows[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3])
    visible = mask.expand(len(queries), -1, -1, -1).gather(2, rows)
    columns = (held.columns - held.offset).clamp(min=0)[:, None, None, :]
    return visible.gather(3, columns.expand(-1, *visible.shape[1:3], -1))
