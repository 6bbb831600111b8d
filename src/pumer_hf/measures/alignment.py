"""Measures whether a layer still holds the patches in the region that a text asks about (alignment).

The alignment precision is TiP's (Section 5.2): the part of the held patches that lies in the region. The recall is the
part of the region's patches that is held. A layer holds a patch if a token of it contains the patch, alone or merged.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..explain.maps import token_map
from ..tokens import LayerTrace

ATTENTION_THRESHOLD = 0.2
"""Human attention below this part of its maximum counts as 0 (TiP, Appendix A.3)."""


class Alignment(NamedTuple):
    """How well the patches that a layer holds match a region: float64 (B,) in [0, 1], NaN where the region is empty.

    The random values are for a layer that holds as many patches, drawn uniformly. They are the exact expectations, not
    the values of a sample.
    """

    precision: Tensor
    """The part of the held patches that lies in the region; 0 where no patch is held."""
    recall: Tensor
    """The part of the region's patches that is held."""
    random_precision: Tensor
    """The part of the image's patches that lies in the region; 0 where no patch is held."""
    random_recall: Tensor
    """The part of the image's patches that is held."""


def held_patches(trace: LayerTrace, grid: tuple[int, int]) -> Tensor:
    """Return which patches some token holds after the layer, bool (B, rows, columns); arguments of [`token_map`]."""
    return torch.stack([token_map(trace, grid, example) for example in range(len(trace.image_source))]) >= 0


def alignment(trace: LayerTrace, region: Tensor, real: Tensor | None = None) -> Alignment:
    """Return the precision and the recall of what a layer holds, and those of random patches (TiP, Section 5.2).

    Args:
        trace: one of the traces in `outputs.reduction`.
        region: bool (B, rows, columns), the patches that the text is about.
        real: bool (B, rows, columns), False for patches that are padding ([`real_patches`]); default: all are real.

    Raises:
        ValueError: the region has another number of examples or patches than the trace.
    """
    if region.ndim != 3 or len(region) != len(trace.image_source):
        raise ValueError(
            f"region has shape {tuple(region.shape)}: expected ({len(trace.image_source)}, rows, columns), a map per "
            "example of the trace"
        )
    region = region.cpu()
    real = torch.ones_like(region) if real is None else real.cpu()
    region = region & real
    held = held_patches(trace, (region.shape[1], region.shape[2]))
    in_image, in_region, num_held, hits = (_count(patches) for patches in (real, region, held, held & region))
    precision = hits / num_held.clamp(min=1)
    random_precision = torch.where(num_held > 0, in_region / in_image, 0.0)
    values = (precision, hits / in_region, random_precision, num_held / in_image)
    return Alignment(*(value.masked_fill(in_region == 0, torch.nan) for value in values))


def _count(patches: Tensor) -> Tensor:
    """Count how many patches are True in each example, float64 (B,)."""
    return patches.flatten(1).sum(dim=1).double()


def region_from_boxes(
    boxes: Sequence[Sequence[float]], image_size: tuple[float, float], grid: tuple[int, int]
) -> Tensor:
    """Return the patches that overlap one of several boxes, for patches that cover the whole image.

    Args:
        boxes: (x0, y0, x1, y1) in pixels of the original image, with `0 <= x0 < x1 <= width`, and the same for y.
            There may be no box.
        image_size: width and height of the original image in pixels.
        grid: rows and columns of patches.

    Returns:
        bool (rows, columns). A patch that only touches a box does not overlap it.
    """
    width, height = image_size
    for box in boxes:
        if len(box) != 4 or not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
            raise ValueError(
                f"boxes: {tuple(box)} must be (x0, y0, x1, y1) within an image of {width} x {height} pixels"
            )
    x0, y0, x1, y1 = torch.tensor([list(box) for box in boxes], dtype=torch.float64).view(-1, 4).unbind(dim=1)
    in_rows, in_columns = _overlaps(y0, y1, height, grid[0]), _overlaps(x0, x1, width, grid[1])
    return (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).any(dim=0)


def _overlaps(start: Tensor, end: Tensor, length: float, parts: int) -> Tensor:
    """Return which of the equal parts of [0, length] each interval overlaps, bool (N, parts).

    Args:
        start: the starts of the intervals, (N,).
        end: their ends, (N,).
        length: the length that is divided.
        parts: the number of parts.
    """
    index = torch.arange(parts)
    # Both sides are multiplied by `parts`, so that whole pixels are compared without rounding.
    return (start.unsqueeze(1) * parts < (index + 1) * length) & (end.unsqueeze(1) * parts > index * length)


def region_from_cells(cells: Sequence[int], grid_size: int, grid: tuple[int, int]) -> Tensor:
    """Return the patches that some cells of a digit scene overlap.

    Args:
        cells: indices into the scene's grid, row by row, such as the column `cells` of [`digit_scenes`]. There may be
            no cell.
        grid_size: cells along each side of the scene.
        grid: rows and columns of patches. With as many patches as cells, cell c is patch c.

    Returns:
        bool (rows, columns).
    """
    if not all(0 <= cell < grid_size**2 for cell in cells):
        raise ValueError(f"cells={list(cells)}: must be in [0, {grid_size**2 - 1}] with grid_size={grid_size}")
    places = [divmod(cell, grid_size) for cell in cells]
    boxes = [(column, row, column + 1, row + 1) for row, column in places]
    return region_from_boxes(boxes, (grid_size, grid_size), grid)


def region_from_attention(
    attention: Tensor,
    image_size: tuple[int, int],
    patch_size: tuple[int, int],
    threshold: float = ATTENTION_THRESHOLD,
    part: tuple[float, float, float, float] | None = None,
) -> Tensor:
    """Return the patches that a human looked at (TiP, Appendix A.3).

    The map is divided by its maximum. Values below `threshold` count as 0. The map is then resized to the image that
    the model sees, with the nearest pixel, so that the region does not grow. A patch is in the region if any pixel of
    it is above 0.

    Args:
        attention: grey values (h, w) of any size and number type, at least 0. If all are 0, the region is empty.
        image_size: height and width of the model's image in pixels.
        patch_size: height and width of a patch in pixels.
        threshold: in (0, 1].
        part: the part of the map that the model sees ([`seen_part`]): its left, top, right and bottom edge in pixels
            of the map. Default: the whole map.

    Returns:
        bool (rows, columns).
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold}: must be in (0, 1]")
    if attention.ndim != 2 or not attention.numel() or attention.min() < 0:
        raise ValueError(f"attention of shape {tuple(attention.shape)}: must be (h, w), with no value below 0")
    values = attention.double()
    attended = (values > 0) & (values >= threshold * values.max())
    if part is not None:
        left, top, right, bottom = (round(edge) for edge in part)
        height, width = attended.shape
        attended = F.pad(attended, (-left, right - width, -top, bottom - height))  # a negative number cuts
    pixels = F.interpolate(attended.float()[None, None], size=image_size, mode="nearest-exact")
    return F.max_pool2d(pixels, patch_size)[0, 0] > 0
