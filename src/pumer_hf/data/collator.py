"""From rows to batches: what the collators of all tasks share."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..grounding import saliency_from_boxes
from ..inputs import Encoder, Images, Texts
from .augment import rand_augment


@dataclass
class Collator:
    """Rows -> model inputs. A task says which texts and images a row has, and what its label is.

    Returns what [`Encoder`] makes of images and texts; `labels` if the rows have them; and `teacher_logits` float
    (B, C) if they have them.
    """

    texts_match: ClassVar[bool] = True
    """Whether each text is about its image; not so if most texts are wrong candidates."""

    encoder: Encoder
    labels: Sequence[str] = ()
    """The classes, in the order of the logits."""
    rand_augment: bool = False
    """Change the images at random; for training only."""
    image_saliency: bool = False
    """Also give `image_saliency` float (B, rows, columns), from `boxes` in the rows: what each text is about."""
    draws_of: str | None = None
    """Names the seed and the epoch that random draws are of: then a batch depends on them and on its rows alone, and a
    resumed run draws what a whole one does. None: torch's generator goes on."""

    def for_benchmark(self) -> "Collator":
        """The collator for measuring speed: one text and the images that it is about per row."""
        return self

    @property
    def is_random(self) -> bool:
        """Whether the same rows give other inputs each time."""
        return self.rand_augment

    def texts(self, row: dict[str, Any]) -> Texts:
        """The text of a row, or several; all rows of a task have as many."""
        raise NotImplementedError

    def images(self, row: dict[str, Any]) -> Images:
        """The undecoded image of a row, or several; all rows of a task have as many."""
        return row["image"]

    def labels_of(self, rows: Sequence[dict[str, Any]]) -> Tensor | None:
        """What the head takes as `labels`; None if the rows have none."""
        raise NotImplementedError

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        if self.draws_of is None or not self.is_random:
            return self._batch(rows)
        own = "\n".join([self.draws_of, *(row["origin"] for row in rows)])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(zlib.crc32(own.encode()))  # of the CPU alone
            return self._batch(rows)

    def _batch(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        # The texts come first: they draw from the same generator as what augments the images.
        texts, images = [self.texts(row) for row in rows], [self.images(row) for row in rows]
        origins = [row["origin"] for row in rows]
        batch = self.encoder(images, texts, origins, augment=rand_augment if self.rand_augment else None)
        labels = self.labels_of(rows)
        if labels is not None:
            batch["labels"] = labels
        if self.image_saliency:
            batch["image_saliency"] = torch.stack([saliency_from_boxes(row_boxes(row)) for row in rows])
        if "teacher_logits" in rows[0]:
            batch["teacher_logits"] = torch.tensor([row["teacher_logits"] for row in rows])
        return batch


def row_boxes(row: dict[str, Any]) -> list[list[float]]:
    """What a row's text is about, as parts of the image; raises `ValueError` if the row does not say."""
    if "boxes" not in row:
        raise ValueError(f"{row['origin']}: data.image_saliency needs the column `boxes`, which digit scenes have")
    return row["boxes"]


@dataclass
class ClassCollator(Collator):
    """Rows with a `label`, one of the names in `labels`; `labels` of the batch are long (B,)."""

    def labels_of(self, rows: Sequence[dict[str, Any]]) -> Tensor | None:
        if "label" not in rows[0]:
            return None
        return torch.tensor([self.label_index(row) for row in rows])

    def label_index(self, row: dict[str, Any]) -> int:
        """Index of a row's label, whatever its case."""
        names = [label.lower() for label in self.labels]
        if row["label"].lower() not in names:
            raise ValueError(f"{row['origin']}: the label {row['label']!r} is not one of {list(self.labels)}")
        return names.index(row["label"].lower())
