"""Draw on a picture which of its patches are kept, which share a token, and which are gone."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont
from PIL.Image import Resampling
from torch import Tensor

MIN_SIDE = 320
"""Pictures are scaled up by a whole number, so that each side has at least so many pixels."""
GONE, HATCH = (246, 246, 248), (134, 134, 146)
"""The colours of a pruned patch and of the lines through it."""
GONE_OPACITY = 0.84
"""A pruned patch shows a little of the picture, so that one sees what was given up."""
HATCH_STEP = 12
"""Pixels between two of these lines."""
HUES = ((255, 140, 0), (30, 136, 255), (228, 50, 180), (0, 170, 100), (150, 90, 255), (0, 175, 200))
"""The colours of outlines. One can see them on black, on white and on pruned patches."""
CASING = (16, 16, 20)
"""The colour of numbers, and of a thin line inside each outline, so that one can see it on a picture of its colour."""
SWATCH = (70, 76, 92)
"""The colour of the patch in a legend."""
THICKNESS = 2
"""Pixels of an outline."""
NUMBER_PART, SMALLEST_NUMBER = 20, 12
"""The width of a picture is so many times the size of a number, which has at least so many pixels."""
NUMBER_IN_CELL = 0.7
"""A number has at most this part of the width of a patch."""


@dataclass(frozen=True)
class Mark:
    """How a token that holds several patches is drawn: as an outline with a number."""

    number: int
    """From 1. The largest token has the lowest."""
    colour: tuple[int, int, int]
    """One of `HUES`."""


Marks = Mapping[int, Mark]
"""The marks of merged tokens, by the index of their first patch."""


def token_marks(maps: Sequence[Tensor]) -> Marks:
    """Give a mark to each token that holds several patches in one of the maps, the largest first.

    The mark belongs to the first patch of a token. So a token keeps it from layer to layer, until an earlier patch is
    merged into it. Tokens that touch have different colours, if there are enough.

    Args:
        maps: long (rows, columns) each, from [`token_map`].
    """
    sizes: Counter[int] = Counter()
    touching: dict[int, set[int]] = defaultdict(set)
    for tokens in maps:
        first_of = dict(merged_tokens(tokens.numpy()))
        for token, first in first_of.items():
            sizes[first] = max(sizes[first], int((tokens == token).sum()))
        for one, other in neighbours(tokens.numpy()):
            if one in first_of and other in first_of:
                touching[first_of[one]].add(first_of[other])
                touching[first_of[other]].add(first_of[one])
    marks: dict[int, Mark] = {}
    used: Counter[tuple[int, int, int]] = Counter()
    for number, first in enumerate(sorted(sizes, key=lambda one: (-sizes[one], one)), start=1):
        beside = {marks[other].colour for other in touching[first] if other in marks}
        colour = min(HUES, key=lambda hue: (hue in beside, used[hue]))
        used[colour] += 1
        marks[first] = Mark(number, colour)
    return marks


def neighbours(grid: np.ndarray) -> set[tuple[int, int]]:
    """Return the pairs of different tokens whose patches have a side in common."""
    sides = ((grid[:, :-1], grid[:, 1:]), (grid[:-1], grid[1:]))
    pairs = {pair for one, other in sides for pair in zip(one.flat, other.flat, strict=True)}
    return {(int(one), int(other)) for one, other in pairs if one != other}


def merged_tokens(grid: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield each token that holds several patches, with the index of its first patch."""
    for token, first, size in zip(*np.unique(grid, return_index=True, return_counts=True), strict=True):
        if token >= 0 and size > 1:
            yield int(token), int(first)


def looks(tokens: Tensor) -> frozenset[str]:
    """Return which looks the patches of a map from [`token_map`] have: `"stays"`, `"shares"` and `"gone"`."""
    merged = {token for token, _ in merged_tokens(tokens.numpy())}
    return frozenset(
        "gone" if token == -1 else "shares" if token in merged else "stays" for token in tokens.unique().tolist()
    )


def enlarged(picture: PILImage.Image) -> PILImage.Image:
    """Scale a picture up if a side has fewer than `MIN_SIDE` pixels. Each pixel becomes a square."""
    factor = -(-MIN_SIDE // min(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Resampling.NEAREST)


def draw_token_map(picture: PILImage.Image, tokens: Tensor, marks: Marks | None = None) -> PILImage.Image:
    """Draw a picture with its pruned patches pale and hatched, and outlines around patches that share a token.

    A patch that is kept with a token of its own is the picture as it was.

    Args:
        picture: the picture that the patches cover.
        tokens: long (rows, columns), from [`token_map`].
        marks: the marks of the merged tokens; default: [`token_marks`] of this map alone.
    """
    grid = tokens.numpy()
    marks = token_marks([tokens]) if marks is None else marks
    marked = {token: marks[first] for token, first in merged_tokens(grid)}
    drawn = enlarged(picture)
    row_of = np.arange(drawn.height) * grid.shape[0] // drawn.height
    column_of = np.arange(drawn.width) * grid.shape[1] // drawn.width
    token_of = grid[np.ix_(row_of, column_of)]  # of each pixel
    pixels = np.array(drawn)
    hatch_gone(pixels, token_of == -1)
    outline(pixels, token_of, marked)
    drawn = PILImage.fromarray(pixels)
    size = min(drawn.width / NUMBER_PART, NUMBER_IN_CELL * drawn.width / grid.shape[1])
    write_numbers(drawn, grid, marked, max(size, SMALLEST_NUMBER))
    return drawn


def hatch_gone(pixels: np.ndarray, gone: np.ndarray) -> None:
    """Make the pixels of pruned patches pale, with slanted lines through them.

    Args:
        pixels: uint8 (height, width, 3), which is changed.
        gone: bool (height, width).
    """
    pale = pixels[gone] + (np.array(GONE) - pixels[gone]) * GONE_OPACITY
    pixels[gone] = pale.round()
    rows, columns = np.indices(gone.shape)
    pixels[gone & ((rows + columns) % HATCH_STEP < 2)] = HATCH


def outline(pixels: np.ndarray, token_of: np.ndarray, marked: Marks) -> None:
    """Draw the outlines of merged tokens, inside their patches.

    Args:
        pixels: uint8 (height, width, 3), which is changed.
        token_of: long (height, width), the token of each pixel.
        marked: the marks by token.
    """
    line, casing = near_border(token_of, THICKNESS), near_border(token_of, THICKNESS + 1)
    for token, mark in marked.items():
        own = token_of == token
        pixels[own & casing] = CASING
        pixels[own & line] = mark.colour


def near_border(token_of: np.ndarray, distance: int) -> np.ndarray:
    """Return which pixels, bool (height, width), are at most `distance` pixels from another token or the edge."""
    height, width = token_of.shape
    padded = np.pad(token_of, distance, constant_values=-2)
    steps = range(0, 2 * distance + 1, distance)
    return np.any([padded[y : y + height, x : x + width] != token_of for y in steps for x in steps], axis=0)


def write_numbers(picture: PILImage.Image, grid: np.ndarray, marked: Marks, size: float) -> None:
    """Write the number of each merged token, in a font of some size, into the first patch of each separate part."""
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    rows, columns = grid.shape
    for row, column in first_patches(grid, marked):
        mark = marked[int(grid[row, column])]
        left, top = column * picture.width // columns, row * picture.height // rows
        box = pen.textbbox((left + THICKNESS + 2, top + THICKNESS + 1), str(mark.number), font=font, anchor="lt")
        pen.rectangle((left, top, box[2] + 2, box[3] + 2), fill=mark.colour)
        pen.text(box[:2], str(mark.number), fill=CASING, font=font, anchor="lt")


def first_patches(grid: np.ndarray, marked: Marks) -> Iterator[tuple[int, int]]:
    """Yield the row and the column of the first patch of each separate part of the marked tokens."""
    seen = np.zeros(grid.shape, dtype=bool)
    for place in np.ndindex(*grid.shape):
        if seen[place] or int(grid[place]) not in marked:
            continue
        yield place
        reached = [place]
        while reached:
            row, column = reached.pop()
            if not seen[row, column]:
                seen[row, column] = True
                beside = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
                inside = [(y, x) for y, x in beside if 0 <= y < grid.shape[0] and 0 <= x < grid.shape[1]]
                reached += [one for one in inside if grid[one] == grid[place]]


def swatch(look: str, side: int) -> PILImage.Image:
    """Draw a patch that has one of the [`looks`], with so many pixels a side."""
    token = -1 if look == "gone" else 0
    pixels = np.full((side, side, 3), SWATCH, dtype=np.uint8)
    token_of = np.full((side, side), token)
    marked = {0: Mark(1, HUES[0])} if look == "shares" else {}
    hatch_gone(pixels, token_of == -1)
    outline(pixels, token_of, marked)
    drawn = PILImage.fromarray(pixels)
    write_numbers(drawn, np.full((1, 1), token), marked, side / 2)
    return drawn
