"""From rows to batches: what the collators of all tasks share."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from transformers import ProcessorMixin

from ..grounding import saliency_from_boxes
from ..inputs import Encoder, Images, Texts
from .augment import rand_augment

if TYPE_CHECKING:
    from .arguments import DataArguments
    from .task import TaskData


@dataclass
class Collator:
    """Makes model inputs from rows. A task says which texts and images a row has, and what its label is.

    A batch has what [`Encoder`] makes from images and texts. If the rows have them, it also has `labels`, and
    `teacher_logits` float (B, C).
    """

    texts_match: ClassVar[bool] = True
    """Whether each text is about its image. In retrieval, most texts are wrong candidates."""

    encoder: Encoder
    labels: Sequence[str] = ()
    """The classes, in the order of the logits."""
    rand_augment: bool = False
    """Whether to change the images at random; for training only."""
    image_saliency: bool = False
    """Whether to add `image_saliency` float (B, rows, columns), from the column `boxes`: where the image shows
    what the text is about."""
    draws_of: str | None = None
    """A text that names the seed and the epoch. Random draws then depend only on this text and the rows of the batch,
    so a resumed run draws the same as an uninterrupted one. None: torch's global generator draws."""

    @classmethod
    def of(cls, processor: ProcessorMixin, data: "TaskData", args: "DataArguments", training: bool) -> "Collator":
        """Make the collator of a task that has no options of its own. Arguments: see [`Task.collator`]."""
        return cls(args.encoder(processor), data.labels, args.rand_augment and training)

    def for_benchmark(self) -> "Collator":
        """Return the collator for measuring speed: each row gives one text, and the images that the text is about."""
        return self

    @property
    def processor(self) -> ProcessorMixin:
        """The processor of the encoder."""
        return self.encoder.processor

    @property
    def is_random(self) -> bool:
        """Whether the same rows give different inputs each time."""
        return self.rand_augment

    def texts(self, row: dict[str, Any]) -> Texts:
        """The text of a row, or a list of texts. All rows of a task have the same number."""
        raise NotImplementedError

    def images(self, row: dict[str, Any]) -> Images:
        """The undecoded image of a row, or a list of images. All rows of a task have the same number."""
        return row["image"]

    def labels_of(self, rows: Sequence[dict[str, Any]]) -> Tensor | None:
        """The `labels` of a batch; None if the rows have none."""
        raise NotImplementedError

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        if self.draws_of is None or not self.is_random:
            return self._batch(rows)
        seed_text = "\n".join([self.draws_of, *(row["origin"] for row in rows)])
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(zlib.crc32(seed_text.encode()))  # only that of the CPU
            return self._batch(rows)

    def _batch(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        # Texts come first. They and the augmentation draw from one generator, so another order gives other draws.
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
    """The boxes of what a row's text is about, as fractions of the image. Raises `ValueError` if there are none."""
    if "boxes" not in row:
        raise ValueError(f"{row['origin']}: data.image_saliency needs the column `boxes`, which digit scenes have")
    return row["boxes"]


@dataclass
class ClassCollator(Collator):
    """The collator of rows with a `label`, one of the names in `labels`. The `labels` of a batch are long (B,)."""

    def labels_of(self, rows: Sequence[dict[str, Any]]) -> Tensor | None:
        if "label" not in rows[0]:
            return None
        return torch.tensor([self.label_index(row) for row in rows])

    def label_index(self, row: dict[str, Any]) -> int:
        """Index of a row's label. Case does not matter."""
        names = [label.lower() for label in self.labels]
        if row["label"].lower() not in names:
            raise ValueError(f"{row['origin']}: the label {row['label']!r} is not one of {list(self.labels)}")
        return names.index(row["label"].lower())
