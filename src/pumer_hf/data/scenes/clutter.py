"""The setting `cluttered` of digit scenes: a photograph behind the digits, and shapes that nobody asks about.

The photographs are the two that scikit-learn ships. Each split takes its pieces from strips of its own, so a test
scene shows no pixel of a photograph that a training scene shows.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.random import Generator
from PIL import Image as PILImage

from ...release import extra_command

STRIPS = ("train", "test", "train", "validation", "train")
"""The split of each vertical strip of a photograph, from the left. All strips are equally wide."""
PIECE_SIDES = (24, 96)
"""The smallest and the largest side of a piece, in pixels of the photograph. It is then scaled to the picture."""
BRIGHTNESS = (0.2, 0.6)
"""The range of the factor that dims a piece."""
SHAPE_COLOURS = ((255, 255, 255), (160, 160, 160), (255, 140, 26))
"""The colours of distractors: white, grey and orange. No digit has them, and no question names them."""
NUM_TRIES = 3
BILINEAR = PILImage.Resampling.BILINEAR
DENSITIES = ("sparse", "dense")


@dataclass(frozen=True)
class Clutter:
    """How cluttered the scenes are.

    A *sparse* scene has the number of digits that is asked for, and no distractors. A *dense* scene has a digit of
    each colour, and distractors. A distractor is a white, grey or orange shape in a cell of its own: a ring, a cross,
    a bar, a corner or a dot.

    Raises `ValueError` if a value is out of range.
    """

    dense_part: float = 0.5
    """The part of the scenes that are dense, in [0, 1]."""
    num_distractors: int = 8
    """Distractors in a dense scene, at least 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.dense_part <= 1:
            raise ValueError(f"dense_part={self.dense_part}: must be in [0, 1]")
        if self.num_distractors < 0:
            raise ValueError(f"num_distractors={self.num_distractors}: must be at least 0")


@cache
def photographs(split: str) -> tuple[PILImage.Image, ...]:
    """Return the strips of both photographs that belong to a split, an entry of `STRIPS`."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise ImportError(f"cluttered digit scenes need scikit-learn: {extra_command('digits')}") from error

    strips = [part for pixels in load_sample_images().images for part in np.array_split(pixels, len(STRIPS), axis=1)]
    return tuple(PILImage.fromarray(strips[i]) for i in range(len(strips)) if STRIPS[i % len(STRIPS)] == split)


def background(split: str, side: int, rng: Generator) -> np.ndarray:
    """Return four pieces of photographs side by side, float (side, side, 3) in [0, 255]."""
    middle = side // 2
    canvas = np.empty((side, side, 3))
    for rows in (slice(0, middle), slice(middle, side)):
        for columns in (slice(0, middle), slice(middle, side)):
            shape = canvas[rows, columns].shape
            canvas[rows, columns] = piece(split, shape[1], shape[0], rng)
    return canvas


def piece(split: str, width: int, height: int, rng: Generator) -> np.ndarray:
    """Return a random piece of a photograph, float (height, width, 3) in [0, 255].

    Of `NUM_TRIES` random places, the one with the highest contrast is taken, since much of the photographs is sky. One
    of two pieces is mirrored, and each is dimmed.
    """
    size = int(rng.integers(PIECE_SIDES[0], PIECE_SIDES[1] + 1))
    places = []
    for _ in range(NUM_TRIES):
        strip = photographs(split)[rng.integers(len(photographs(split)))]
        left, top = (int(rng.integers(length - size + 1)) for length in strip.size)
        places.append(strip.resize((width, height), BILINEAR, box=(left, top, left + size, top + size)))
    pixels = np.asarray(max(places, key=lambda place: np.asarray(place).std())) * rng.uniform(*BRIGHTNESS)
    return pixels[:, ::-1] if rng.integers(2) else pixels


@cache
def shapes(side: int) -> np.ndarray:
    """Return the ink of the distractors, float (num_shapes, side, side) in [0, 1]. The order is arbitrary."""
    across, down = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    radius = np.hypot(across, down)
    corner = (np.abs(across) < 0.3) & (down > -0.8) | (np.abs(down) < 0.3) & (across > 0) & (across < 0.9)
    inks = [
        (radius < 0.95) & (radius > 0.45),
        radius < 0.6,
        (np.abs(across) < 0.25) | (np.abs(down) < 0.25),
        np.abs(across - down) < 0.35,
        np.abs(across + down) < 0.35,
        np.abs(down) < 0.35,
        *(np.rot90(corner, turns) for turns in range(4)),
    ]
    return np.stack(inks).astype(float)


def add_ink(canvas: np.ndarray, top: int, left: int, ink: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Draw on a canvas, in place. Full ink covers what is below it.

    Args:
        canvas: float (H, W, 3) in [0, 255].
        top: row of the ink's first pixel.
        left: column of the ink's first pixel.
        ink: float (h, w) in [0, 1].
        colour: red, green and blue in [0, 255].
    """
    part = canvas[top : top + ink.shape[0], left : left + ink.shape[1]]
    part += ink[:, :, None] * (np.array(colour) - part)


def add_distractors(canvas: np.ndarray, cells: np.ndarray, cell_size: int, rng: Generator) -> None:
    """Draw a random shape into each of the cells, in place. The canvas is float (H, W, 3) in [0, 255]."""
    inks = shapes(cell_size)
    for cell in cells:
        top, left = (cell_size * int(place) for place in divmod(cell, canvas.shape[1] // cell_size))
        colour = SHAPE_COLOURS[rng.integers(len(SHAPE_COLOURS))]
        add_ink(canvas, top, left, inks[rng.integers(len(inks))] * rng.uniform(0.6, 1.0), colour)
