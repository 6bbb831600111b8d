"""Where the images are in a batch of prompts, and what is left of the prompts when some image tokens are cut.

A *placeholder* is a token of the prompt that stands for one image token. Its *column* is its place in the prompt.
Shapes use B prompts, L tokens per prompt with padding, and N image tokens in the whole batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..offload import execution_device

IGNORED = -100
"""The label that no loss counts."""


@dataclass(frozen=True)
class Placeholders:
    """The placeholders of a batch of prompts, row by row and from left to right. They are the N image tokens."""

    rows: Tensor
    """long (N,): the prompt of each."""
    columns: Tensor
    """long (N,): its place there."""
    images: Tensor
    """long (N,): the image of each, counted in the whole batch. If a model cuts images into tiles that other tokens
    separate, each tile counts as an image."""

    @classmethod
    def find(cls, input_ids: Tensor, image_token_id: int, lengths: Sequence[int]) -> "Placeholders":
        """Find the placeholders.

        Args:
            input_ids: long (B, L).
            image_token_id: the token that they are.
            lengths: how many tokens each item of the image features has, in the order of the prompts.

        Raises:
            ValueError: the prompts do not have as many placeholders as there are image tokens.
        """
        rows, columns = (input_ids == image_token_id).nonzero(as_tuple=True)
        if len(rows) != sum(lengths):
            raise ValueError(
                f"input_ids: {len(rows)} image placeholders (token {image_token_id}), but the images have "
                f"{sum(lengths)} tokens: make the inputs with the processor of the model"
            )
        item = torch.repeat_interleave(torch.tensor(lengths, dtype=torch.long)).to(rows.device)
        return cls._split(rows, columns, item)

    @classmethod
    def in_runs(cls, is_image: Tensor) -> "Placeholders":
        """Find the placeholders of prompts of which no more is known. Those that stand together are an image.

        Args:
            is_image: bool (B, L), True for a placeholder.
        """
        rows, columns = is_image.nonzero(as_tuple=True)
        return cls._split(rows, columns, torch.zeros_like(rows))

    @classmethod
    def _split(cls, rows: Tensor, columns: Tensor, item: Tensor) -> "Placeholders":
        begins = torch.ones_like(rows, dtype=torch.bool)
        begins[1:] = (rows.diff() != 0) | (columns.diff() != 1) | (item.diff() != 0)
        return cls(rows, columns, begins.cumsum(0) - 1)


@dataclass(frozen=True)
class Cut:
    """Which columns of the prompts stay."""

    index: Tensor
    """long (B, L'): the column of each token that stays; -1 for padding."""
    length: int
    """L, the columns before the cut."""

    @classmethod
    def of(cls, keep: Tensor, pad_left: bool) -> "Cut":
        """Make a cut.

        Args:
            keep: bool (B, L), True for what stays. Padding does not stay.
            pad_left: whether the padding of prompts that become shorter than others stands on the left.
        """
        counts = keep.sum(dim=1, keepdim=True)
        longest = int(counts.max())
        # stable, so that what stays keeps its order; what goes is behind it, and becomes padding
        order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
        places = torch.arange(longest, device=keep.device).unsqueeze(0)
        index = order.masked_fill(places >= counts, -1)
        if pad_left:
            index = index.gather(1, (places - (longest - counts)) % max(longest, 1))
        return cls(index, keep.shape[1])

    @property
    def mask(self) -> Tensor:
        """Long (B, L'): 1 for a token, 0 for padding."""
        return (self.index >= 0).long()

    def take(self, values: Tensor, fill: int = 0) -> Tensor:
        """Return what stays of `values` (..., B, L), with `fill` for padding: (..., B, L')."""
        index = self.index.to(values.device).expand(*values.shape[:-1], -1)
        return values.gather(-1, index.clamp(min=0)).masked_fill(index < 0, fill)

    def extended(self, length: int) -> "Cut":
        """Return the cut of prompts that have grown to `length` columns. All that was added stays."""
        added = torch.arange(self.length, length, device=self.index.device).expand(len(self.index), -1)
        return Cut(torch.cat([self.index, added], dim=1), length)

    def repeated(self, times: int) -> "Cut":
        """Return the cut of a batch in which each prompt stands `times` times."""
        return Cut(self.index.repeat_interleave(times, dim=0), self.length)


def pads_left(attention_mask: Tensor | None, default: bool) -> bool:
    """Return whether prompts are padded on the left. Without padding it is `default`.

    Args:
        attention_mask: long (B, L), 0 for padding; None without padding.
        default: the answer if there is no padding.
    """
    if attention_mask is None or bool(attention_mask.bool().all()):
        return default
    return not bool(attention_mask[:, 0].all())


def contiguous_positions(mask: Tensor) -> Tensor:
    """Return the positions of the tokens, long (B, L), which count the real ones from 0. `mask` is long (B, L)."""
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)


def on_device(inputs: Mapping[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
    """Return inputs on the device of a model. Floats get its dtype."""
    device = input_device(model)
    return {
        name: value.to(device=device, dtype=model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


def input_device(model: PreTrainedModel) -> torch.device:
    """Return the device for the inputs of a model: that of its weights, or the one to which they are loaded."""
    return execution_device(model) if model.device.type == "meta" else model.device
