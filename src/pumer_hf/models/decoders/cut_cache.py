"""`CutLayer`: a layer of a cache that holds the keys of fewer tokens than the model has read.

The layers of a decoder after a cut see fewer tokens than the first ones. Their part of the cache says that it has seen
all of them. So transformers makes masks and positions for the whole prompt.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class CutLayer(DynamicLayer):
    """The keys and values of what is left of the tokens in one layer, and the columns in which they stand.

    Args:
        window: how many tokens back the layer attends; None for all. Keys outside of it are held, and masked.
    """

    def __init__(self, window: int | None = None):
        super().__init__()
        self.window = window
        self.is_sliding = window is not None
        self._columns: Tensor | None = None
        self._steps = 0
        """How many of the last tokens that are held are not in `_columns` yet."""
        self.weight: Tensor | None = None
        """float (B, K), how much each token counts in attention; None if all count the same."""
        self.seen = 0
        """How many columns the model has read."""
        self.of_prompt = 0
        """How many of them had been read after the last cut."""
        self.padded = False
        """Whether `columns` has padding."""

    @classmethod
    def of(cls, layer: DynamicLayer) -> "CutLayer":
        """Make one that goes on where another layer ends, which has cut nothing."""
        new = cls(getattr(layer, "sliding_window", None))
        if layer.get_seq_length():
            assert layer.keys is not None, "it holds tokens"
            new.lazy_initialization(layer.keys, layer.values)
            new.keys, new.values, new.seen = layer.keys, layer.values, layer.get_seq_length()
            held = torch.arange(new.seen - layer.keys.shape[2], new.seen, device=layer.keys.device)
            new.columns = held.expand(len(layer.keys), -1)
        return new

    @property
    def columns(self) -> Tensor | None:
        """The column of each token that is held, long (B, K); -1 for padding. None before the first token."""
        if self._steps and self._columns is not None:
            last = torch.arange(self.seen - self._steps, self.seen, device=self._columns.device)
            self._columns = torch.cat([self._columns, last.expand(len(self._columns), -1)], dim=1)
            self._steps = 0
        return self._columns

    @columns.setter
    def columns(self, columns: Tensor | None) -> None:
        self._columns, self._steps = columns, 0

    def note_step(self, num_read: int) -> bool:
        """Say that the keys of the next `update` have the next columns, if they need no mask.

        A token of an answer costs no operation then.

        Args:
            num_read: how many columns this forward reads.

        Returns:
            Whether it is so. If not, nothing is noted.
        """
        seen = self.seen + num_read
        if self._columns is None or self.padded or self.weight is not None:
            return False
        if self.window is not None and seen > self.window:
            return False
        self.seen, self._steps = seen, self._steps + num_read
        return True

    def note(self, columns: Tensor, num_read: int, weight: Tensor | None = None, padded: bool | None = None) -> None:
        """Say which columns the keys of the next `update` have.

        Args:
            columns: long (B, n), counted from the first column of this forward; -1 for padding.
            num_read: how many columns this forward reads.
            weight: float (B, n), how much they count; None if all count the same.
            padded: whether `columns` has padding, after a cut; None if nothing was cut.
        """
        columns = torch.where(columns < 0, columns, columns + self.seen)
        before = columns[:, :0] if self.columns is None else self.columns
        if weight is not None or self.weight is not None:
            old, new = (
                torch.ones(part.shape, device=columns.device) if known is None else known
                for part, known in ((before, self.weight), (columns, weight))
            )
            self.weight = torch.cat([old, new.detach().float()], dim=1)
        self.columns = torch.cat([before, columns], dim=1)
        self.seen += num_read
        if padded is not None:
            self.padded, self.of_prompt = self.padded or padded, self.seen

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        assert self._columns is not None, "`note` comes first"
        if keys.shape[2] != self._columns.shape[1] + self._steps:
            raise ValueError(
                "past_key_values: its later layers hold fewer tokens than its first ones, because a reduction inside "
                "the decoder made it: go on with it inside `reduced`, or with a model of ours"
            )
        return keys, values

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        offset = 0 if self.window is None else max(self.seen - self.window + 1, 0)
        return self.seen - offset + query_length, offset

    def get_max_length(self) -> int:
        return -1 if self.window is None else self.window

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` columns.

        Raises:
            ValueError: they belong to a prompt that was cut.
        """
        number = -tokens_to_remove
        if number == 0 or self.columns is None:
            return
        if number < 0:
            raise ValueError(f"crop({tokens_to_remove}): give the number of tokens to remove, as a negative number")
        if self.seen - number < self.of_prompt:
            raise ValueError(f"crop({tokens_to_remove}): {self.of_prompt} columns of the cache belong to a cut prompt")
        super().crop(tokens_to_remove)
        self.columns, self.seen = self.columns[:, :-number], self.seen - number
        self.weight = None if self.weight is None else self.weight[:, :-number]

    def reset(self) -> None:
        super().reset()
        self.columns, self.weight, self.seen, self.of_prompt, self.padded = None, None, 0, 0, False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._rows(lambda values: values.index_select(0, beam_idx.to(values.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._rows(lambda values: values.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._rows(lambda values: values[indices.to(values.device)])

    def _rows(self, change: Any) -> None:
        self._columns = None if self._columns is None else change(self._columns)
        self.weight = None if self.weight is None else change(self.weight)


def cut_layer(cache: Any, index: int) -> CutLayer:
    """Return the [`CutLayer`] of a cache. The first time, it takes the place of the layer that the cache has there.

    Args:
        cache: a cache of transformers.
        index: the index of the layer.

    Raises:
        ValueError: the cache is of a kind whose layers cannot hold fewer tokens than others.
    """
    while len(cache.layers) <= index:
        cache.layers.append(cache.layer_class_to_replicate())
    old = cache.layers[index]
    if isinstance(old, CutLayer):
        return old
    check_cache(cache)
    cache.layers[index] = CutLayer.of(old)
    return cache.layers[index]


def check_cache(cache: Any) -> None:
    """Raise `ValueError` if a cache of transformers is of a kind whose layers cannot hold fewer tokens than others."""
    if getattr(cache, "offloading", False):
        raise ValueError(
            f"past_key_values: {type(cache).__name__}(offloading=True): a cache that is offloaded cannot be cut "
            "inside the decoder: use a DynamicCache without offloading"
        )
    for layer in cache.layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer, CutLayer):
            raise ValueError(
                f"past_key_values: {type(cache).__name__} with {type(layer).__name__}: a reduction inside the decoder "
                "needs layers that hold different numbers of tokens: use a DynamicCache"
            )


def cache_of(values: Mapping[str, Any]) -> Any:
    """Return the cache among inputs or outputs, by its name in transformers 5.24 and newer or by the older one."""
    cache = values.get("cache")
    return values.get("past_key_values") if cache is None else cache
