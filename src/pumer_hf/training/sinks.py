"""Targets without sinks: what a patch gets whatever is asked is taken out of the attention that a scorer predicts.

For this, a batch has several texts of each image. The mean attention to the other texts of an image is what does not
depend on the text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from ..data.several_questions import GroupedRows

SINKS = ("keep", "remove")
"""What is done with them."""
TEXTS_PER_IMAGE = 4
"""The most texts of one image in a batch."""
IMAGE_GROUP = "image_group"
"""Under this name a batch has the number of the image of each example. Examples of the same images have the same."""
Collator = Callable[[list[Any]], dict[str, Tensor]]


def without_sinks(attention: Tensor, image: Tensor) -> Tensor:
    """Return attention from which what does not depend on the text is taken out, float (B, P). It sums to 1.

    What a patch gets above the mean of the other texts of its image is left. If an image has one text, or its texts
    attend alike, nothing is taken out.

    Args:
        attention: float (B, P), at least 0. It sums to 1.
        image: long (B,), a number for the image of each text.
    """
    same = image.unsqueeze(1) == image
    others = (same & ~torch.eye(len(image), dtype=torch.bool, device=image.device)).to(attention)
    number = others.sum(dim=1, keepdim=True)
    above = (attention - others @ attention / number.clamp(min=1)).clamp(min=0)
    total = above.sum(dim=1, keepdim=True)
    depends = (number > 0) & (total > torch.finfo(attention.dtype).eps)
    return torch.where(depends, above / total.clamp(min=torch.finfo(attention.dtype).tiny), attention)


def numbers_of_images(examples: Tensor, groups: Tensor) -> Tensor:
    """Return a number for each observed image, long (G,). Texts about the same image have the same.

    Args:
        examples: long (G,), the example of each image, ascending. Examples of one group have the same images.
        groups: long (B,), the group of each example.
    """
    place = torch.arange(len(examples), device=examples.device) - torch.searchsorted(examples, examples)
    return groups.to(examples.device)[examples] * len(examples) + place


@dataclass(frozen=True)
class SameImageCollator:
    """Makes batches from groups of rows that have the same images ([`GroupedRows`]), with [`IMAGE_GROUP`]."""

    collator: Collator
    """The collator of rows."""

    def __call__(self, groups: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
        """Return the batch of the rows of all groups."""
        batch = self.collator([row for rows in groups for row in rows])
        numbers = [number for number, rows in enumerate(groups) for _ in rows]
        return {**batch, IMAGE_GROUP: torch.tensor(numbers)}


def grouped(rows: Dataset, collator: Collator, batch_size: int) -> tuple[GroupedRows, SameImageCollator, int]:
    """Return data whose items are the rows of one image, their collator, and the number of items of a batch.

    Args:
        rows: rows with `image` or `images`. Those of one image follow each other.
        collator: the collator of rows.
        batch_size: rows of a batch, about.

    Raises:
        ValueError: each image has one row.
    """
    found = GroupedRows(rows, TEXTS_PER_IMAGE)
    if len(found) == len(rows):
        raise ValueError(
            "sinks='remove': no image of the data has several texts in rows that follow each other: give such data, "
            "or leave sinks at 'keep'"
        )
    return found, SameImageCollator(collator), max(round(batch_size * len(found) / len(rows)), 1)
