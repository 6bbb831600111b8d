"""Where the tokens of an image lie on it, for pictures of what a reduction kept.

A family whose tokens lie in rows names one of the functions here in its row. The others cannot be drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class TokenGrid:
    """The tokens of an image, or of one tile of it, from left to right and from top to bottom.

    Each token stands for an equal part of the picture that the image encoder gets.
    """

    rows: int
    columns: int
    height: int
    """Pixels of the picture."""
    width: int
    """Pixels of the picture."""
    pixels: Tensor | None = None
    """float (3, height, width): the picture as the processor normalised it. None if the encoder gets the patches of
    the whole image one by one: the picture is then the image, stretched to this size."""


TokenGrids = Callable[[Any, Mapping[str, Tensor], Sequence[int]], list[TokenGrid]]
"""A function of a config, the inputs of one prompt with one image, and the number of tokens of each of its tiles."""


def even_grids(config: Any, inputs: Mapping[str, Tensor], lengths: Sequence[int]) -> list[TokenGrid]:
    """Return the grids of pictures, or tiles, that are encoded whole: their tokens stand for squares of equal size.

    Args:
        config: the config of the model, which is not read.
        inputs: what the processor made, with `pixel_values`, float (..., 3, height, width).
        lengths: how many tokens each picture has.

    Raises:
        ValueError: squares do not cover a picture.
    """
    pixels = inputs["pixel_values"]
    pictures = pixels.reshape(-1, *pixels.shape[-3:])
    if len(pictures) != len(lengths):
        raise ValueError(f"pixel_values: {len(pictures)} pictures, but {len(lengths)} groups of image tokens")
    height, width = pictures.shape[-2:]
    grids = []
    for length, picture in zip(lengths, pictures, strict=True):
        rows = round(sqrt(length * height / width))
        if rows * rows * width != length * height:
            raise ValueError(
                f"pixel_values: {length} image tokens do not lie in rows on {height} x {width} pixels, so they cannot "
                "be drawn"
            )
        grids.append(TokenGrid(rows, length // rows, height, width, picture))
    return grids


def merged_grids(config: Any, inputs: Mapping[str, Tensor], lengths: Sequence[int]) -> list[TokenGrid]:
    """Return the grids of images whose encoder gets patches one by one and merges squares of them (Qwen-VL).

    Args:
        config: the config of the model.
        inputs: what the processor made, with `image_grid_thw`, long (N, 3): 1, rows and columns of the patches.
        lengths: how many tokens each image has.
    """
    side = config.vision_config.spatial_merge_size
    cell = side * config.vision_config.patch_size
    return [
        checked(TokenGrid(rows // side, columns // side, rows // side * cell, columns // side * cell), length)
        for (_, rows, columns), length in zip(inputs["image_grid_thw"].tolist(), lengths, strict=True)
    ]


def pooled_grids(config: Any, inputs: Mapping[str, Tensor], lengths: Sequence[int]) -> list[TokenGrid]:
    """Return the grids of images whose encoder gets patches one by one and pools squares of them (Gemma-4).

    Args:
        config: the config of the model.
        inputs: what the processor made, with `image_position_ids`, long (N, P, 2): column and row of each patch; -1
            for padding.
        lengths: how many tokens each image has.
    """
    side = config.vision_config.pooling_kernel_size
    cell = side * config.vision_config.patch_size
    grids = []
    for places, length in zip(inputs["image_position_ids"], lengths, strict=True):
        columns, rows = ((places.amax(dim=0) + 1) // side).tolist()
        grids.append(checked(TokenGrid(rows, columns, rows * cell, columns * cell), length))
    return grids


def checked(grid: TokenGrid, length: int) -> TokenGrid:
    """Return a grid if it has as many places as there are tokens; else raise `ValueError`."""
    if grid.rows * grid.columns != length:
        raise ValueError(
            f"{length} image tokens do not fill {grid.rows} rows and {grid.columns} columns: make the inputs with the "
            "processor of the model"
        )
    return grid
