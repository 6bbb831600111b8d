"""Batches to measure a model on, of digit scenes or of VQA-HAT. Each example has the region that its text is about."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional
from transformers import ProcessorMixin

from ..data.scenes.digits import CELL_SIZE
from ..data.vqa import VqaCollator, VqaDataArguments, drop_unknown, scene_questions
from ..inputs import Encoder, seen_part
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.families import patch_size
from .alignment import region_from_attention, region_from_cells
from .measuring import MeasuredBatch
from .vqa_hat import read_map

BATCH_SIZE = 32


def scene_batches(
    model: PuMerPreTrainedModel, processor: ProcessorMixin, num_scenes: int = 200, batch_size: int = BATCH_SIZE
) -> Iterator[MeasuredBatch]:
    """Make batches of questions about digit scenes of the test split. The regions are their `cells`.

    The scenes are as large as the model's images.

    Args:
        model: a model that answers questions about digit scenes.
        processor: the processor of the checkpoint.
        num_scenes: how many pictures, with four questions each.
        batch_size: questions per batch.

    Raises:
        ValueError: the images of the model cannot be divided into cells, or the model knows none of the answers.
    """
    side = model.config.image_size
    if side % CELL_SIZE:
        raise ValueError(f"config.image_size={side}: digit scenes need a multiple of {CELL_SIZE}, pixels per cell")
    grid_size = side // CELL_SIZE
    rows = scene_questions(VqaDataArguments(grid_size=grid_size), "test", num_scenes)

    def region(row: dict[str, Any], image_size: tuple[int, int], patch: tuple[int, int]) -> Tensor:
        grid = (image_size[0] // patch[0], image_size[1] // patch[1])
        return region_from_cells(row["cells"], grid_size, grid).unsqueeze(0)

    return measured_batches(model, processor, rows, region, batch_size)


def vqa_hat_batches(
    model: PuMerPreTrainedModel, processor: ProcessorMixin, rows: Dataset, batch_size: int = BATCH_SIZE
) -> Iterator[MeasuredBatch]:
    """Make batches of questions with the attention maps of each annotator.

    Args:
        model: a model that answers questions.
        processor: the processor of the checkpoint.
        rows: the rows from [`read_vqa_hat`]. Without the column `answers`, the batches have no labels.
        batch_size: questions per batch.

    Raises:
        ValueError: the model knows none of the answers. While iterating: an image or a map cannot be read.
    """

    def regions(row: dict[str, Any], image_size: tuple[int, int], patch: tuple[int, int]) -> Tensor:
        maps = [read_map(path) for path in row["maps"]]
        parts = [seen_part((attention.shape[1], attention.shape[0]), processor) for attention in maps]
        return torch.stack(
            [
                region_from_attention(attention, image_size, patch, part=part)
                for attention, part in zip(maps, parts, strict=True)
            ]
        )

    return measured_batches(model, processor, rows, regions, batch_size)


def measured_batches(
    model: PuMerPreTrainedModel,
    processor: ProcessorMixin,
    rows: Dataset,
    regions_of: Callable[[dict[str, Any], tuple[int, int], tuple[int, int]], Tensor],
    batch_size: int,
) -> Iterator[MeasuredBatch]:
    """Make batches of VQA rows, encoded as in the training of the model.

    Args:
        model: a model that answers questions.
        processor: the processor of the checkpoint.
        rows: rows with the columns `image` (undecoded), `question`, `origin` and perhaps `answers`.
        regions_of: returns the regions of a row, bool (A, rows, columns). It takes the row, and the sizes (height,
            width) in pixels of the model's image and of a patch.
        batch_size: rows per batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    if "answers" in rows.column_names:
        rows = drop_unknown(rows, labels, "ignore", drop=False)  # such rows count as wrong
    collator = VqaCollator(Encoder.of(model, processor), labels, image_saliency=model.token_reduction.uses_prior)
    patch = patch_size(model.config)

    def batches() -> Iterator[MeasuredBatch]:
        for start in range(0, len(rows), batch_size):
            part = list(rows.select(range(start, min(start + batch_size, len(rows)))))
            inputs = collator(part)
            regions = padded_regions(
                [regions_of(row, size, patch) for row, size in zip(part, image_sizes(inputs), strict=True)]
            )
            targets = inputs.pop("labels", None)
            yield MeasuredBatch(inputs, regions, targets)

    return batches()


def image_sizes(inputs: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Return the height and the width in pixels of each image of a batch, without its padding."""
    pixels = inputs["pixel_values"]
    if "pixel_mask" not in inputs:
        return [(pixels.shape[-2], pixels.shape[-1])] * len(pixels)
    return [(int(mask.any(dim=1).sum()), int(mask.any(dim=0).sum())) for mask in inputs["pixel_mask"]]


def padded_regions(regions: Sequence[Tensor]) -> Tensor:
    """Stack the regions of several images, each bool (A, rows, columns), in one tensor (B, A, rows, columns).

    Smaller regions are padded with False on the right and below.
    """
    rows, columns = (max(region.shape[dim] for region in regions) for dim in (1, 2))
    return torch.stack(
        [functional.pad(region, (0, columns - region.shape[2], 0, rows - region.shape[1])) for region in regions]
    )
