"""Digit scenes: questions about pictures composed of real handwritten digits.

A scene is a grid with a few coloured digits in it, drawn from the 1,797 handwriting samples that scikit-learn ships.
In the setting `plain` the rest is black. In the setting `cluttered` it is made of photographs. The samples are divided
among the splits, so a test scene shows handwriting that no training scene shows. Each question has the cells that it
is about. With a patch size of `CELL_SIZE`, cell c of the grid is patch c of the image.
"""

import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from numpy.random import Generator
from PIL import Image as PILImage

from ...release import extra_command
from .clutter import DENSITIES, Clutter, add_distractors, add_ink, background

CELL_SIZE = 8
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {
    "red": (255, 38, 38),
    "green": (38, 230, 51),
    "blue": (77, 102, 255),
    "yellow": (255, 230, 26),
    "pink": (255, 77, 255),
    "cyan": (51, 242, 242),
}
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
SPLITS = {"train": 0.75, "validation": 0.10, "test": 0.15}
FEATURES = Features(
    {
        "image": Image(),
        "question": Value("string"),
        "answer": Value("string"),
        "kind": Value("string"),
        "cells": List(Value("int32")),
    }
)
SETTINGS = {"plain": None, "cluttered": Clutter()}


def with_article(words: str) -> str:
    """Put the article before the name of a digit or a colour: `"an eight"`, but `"a one"`."""
    return f"{'an' if words[0] in 'aei' else 'a'} {words}"


@dataclass(frozen=True)
class Scene:
    """Digits on a grid. The three sequences have one entry per digit."""

    grid_size: int
    """Cells along each side."""
    cells: tuple[int, ...]
    """Cell of each digit, row by row from the top left."""
    digits: tuple[int, ...]
    """Values 0 to 9."""
    colours: tuple[str, ...]
    """Keys of `COLOURS`, all different."""

    def column(self, index: int) -> int:
        """Column of a digit's cell, from 0 at the left."""
        return self.cells[index] % self.grid_size

    def quadrant(self, index: int) -> str:
        """Which quarter of the grid a digit is in, see [`quadrant_of`]."""
        return quadrant_of(self.cells[index], self.grid_size)


def quadrant_of(cell: int, grid_size: int) -> str:
    """Which quarter of the grid a cell is in, one of `QUADRANTS`. A middle row is top, a middle column is left."""
    row, column = divmod(cell, grid_size)
    return QUADRANTS[2 * (row >= grid_size / 2) + (column >= grid_size / 2)]


def cell_box(cell: int, grid_size: int) -> list[float]:
    """Left, top, right and bottom edge of a cell, as fractions of the picture, in [0, 1]."""
    row, column = divmod(cell, grid_size)
    return [column / grid_size, row / grid_size, (column + 1) / grid_size, (row + 1) / grid_size]


@dataclass(frozen=True)
class Question:
    """A question about a scene."""

    text: str
    answer: str
    cells: tuple[int, ...]
    """The cells that the question is about; empty if it asks about something that is not there."""


@cache
def handwriting(split: str) -> tuple[np.ndarray, ...]:
    """The handwriting samples of a split: for each digit 0 to 9, float (n, 8, 8) ink in [0, 1]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(f"digit scenes need scikit-learn: {extra_command('digits')}") from error

    if split not in SPLITS:
        raise ValueError(f"split={split!r}: choose one of {list(SPLITS)}")
    bounds = np.cumsum([0.0, *SPLITS.values()])
    start, end = bounds[list(SPLITS).index(split)], bounds[list(SPLITS).index(split) + 1]
    images, targets = load_digits(return_X_y=True)
    samples = []
    for digit in range(10):
        inks = images[targets == digit].reshape(-1, CELL_SIZE, CELL_SIZE) / 16
        inks = np.random.default_rng(digit).permutation(inks)
        samples.append(inks[round(start * len(inks)) : round(end * len(inks))])
    return tuple(samples)


def sample_scene(rng: Generator, grid_size: int, num_digits: int) -> Scene:
    """Draw a random scene. In two of five scenes, one digit appears twice."""
    digits = rng.permutation(10)[:num_digits]
    if num_digits > 1 and rng.random() < 0.4:
        digits[1] = digits[0]
    cells = rng.choice(grid_size**2, num_digits, replace=False)
    colours = rng.permutation(list(COLOURS))[:num_digits]
    return Scene(grid_size, tuple(map(int, cells)), tuple(map(int, digits)), tuple(map(str, colours)))


def draw(scene: Scene, split: str, rng: Generator) -> PILImage.Image:
    """Draw the picture of a scene. Each digit is a random handwriting sample of the split."""
    side = scene.grid_size * CELL_SIZE
    canvas = np.zeros((side, side, 3))
    add_digits(canvas, scene, split, rng)
    return PILImage.fromarray(canvas.round().astype(np.uint8))


def draw_cluttered(scene: Scene, split: str, rng: Generator, num_distractors: int) -> PILImage.Image:
    """Draw the picture of a scene over a photograph, with distractors in cells that have no digit."""
    canvas = background(split, scene.grid_size * CELL_SIZE, rng)
    free = np.setdiff1d(np.arange(scene.grid_size**2), scene.cells)
    add_distractors(canvas, rng.choice(free, num_distractors, replace=False), CELL_SIZE, rng)
    add_digits(canvas, scene, split, rng)
    return PILImage.fromarray(canvas.round().astype(np.uint8))


def add_digits(canvas: np.ndarray, scene: Scene, split: str, rng: Generator) -> None:
    """Draw the digits of a scene, in place. The canvas is float (H, W, 3) in [0, 255]."""
    for cell, digit, colour in zip(scene.cells, scene.digits, scene.colours, strict=True):
        samples = handwriting(split)[digit]
        ink = samples[rng.integers(len(samples))]
        top, left = (CELL_SIZE * place for place in divmod(cell, scene.grid_size))
        add_ink(canvas, top, left, ink, COLOURS[colour])


def encode(picture: PILImage.Image) -> dict[str, bytes | None]:
    """Return a picture as `datasets` stores it."""
    png = io.BytesIO()
    picture.save(png, format="PNG")
    return {"bytes": png.getvalue(), "path": None}


def scene_rng(split: str, grid_size: int, num_digits: int, seed: int, stream: tuple[int, ...] = ()) -> Generator:
    """Return the random generator of a split. Each `stream` has different numbers.

    Raises `ValueError` if a value is out of range.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: choose one of {list(SPLITS)}")
    if not 2 <= num_digits <= len(COLOURS):
        raise ValueError(f"num_digits={num_digits}: must be in [2, {len(COLOURS)}]")
    if grid_size < 2 or grid_size**2 < num_digits:
        raise ValueError(f"grid_size={grid_size}: must be at least 2 and have room for {num_digits} digits")
    if seed < 0:
        raise ValueError(f"seed={seed}: must be at least 0")
    return np.random.default_rng((seed, list(SPLITS).index(split), *stream))


def ask_digit_by_colour(scene: Scene, rng: Generator) -> Question:
    """Ask what digit is red."""
    index = rng.integers(len(scene.digits))
    return Question(f"what digit is {scene.colours[index]}?", str(scene.digits[index]), (scene.cells[index],))


def ask_colour_of_digit(scene: Scene, rng: Generator) -> Question | None:
    """Ask what colour the seven is, for a digit that appears once."""
    counts = Counter(scene.digits)
    once = [index for index, digit in enumerate(scene.digits) if counts[digit] == 1]
    if not once:
        return None
    index = rng.choice(once)
    return Question(f"what colour is the {DIGITS[scene.digits[index]]}?", scene.colours[index], (scene.cells[index],))


def ask_digit_by_position(scene: Scene, rng: Generator) -> Question | None:
    """Ask what digit is in the top left, for a quarter with one digit."""
    quadrants = [scene.quadrant(index) for index in range(len(scene.digits))]
    alone = [index for index, quadrant in enumerate(quadrants) if quadrants.count(quadrant) == 1]
    if not alone:
        return None
    index = rng.choice(alone)
    return Question(f"what digit is in the {quadrants[index]}?", str(scene.digits[index]), (scene.cells[index],))


def ask_count(scene: Scene, rng: Generator) -> Question:
    """Ask how many threes there are. Three times in ten the answer is 0."""
    absent = [digit for digit in range(10) if digit not in scene.digits]
    digit = rng.choice(absent if rng.random() < 0.3 else sorted(set(scene.digits)))
    cells = tuple(cell for cell, other in zip(scene.cells, scene.digits, strict=True) if other == digit)
    plural = DIGITS[digit] + ("es" if DIGITS[digit].endswith("x") else "s")
    return Question(f"how many {plural}?", str(len(cells)), cells)


def ask_left_of(scene: Scene, rng: Generator) -> Question | None:
    """Ask whether there is a five left of a two. Yes and no are equally frequent."""
    wanted = rng.random() < 0.5
    present = sorted(set(scene.digits))
    candidates = [(a, b) for a in present for b in present if a != b and _is_left_of(scene, a, b) == wanted]
    if not candidates:
        return None
    a, b = candidates[rng.integers(len(candidates))]
    cells = tuple(cell for cell, digit in zip(scene.cells, scene.digits, strict=True) if digit in (a, b))
    return Question(f"is there a {DIGITS[a]} left of a {DIGITS[b]}?", "yes" if wanted else "no", cells)


def _is_left_of(scene: Scene, a: int, b: int) -> bool:
    columns = {digit: [scene.column(i) for i, other in enumerate(scene.digits) if other == digit] for digit in (a, b)}
    return min(columns[a]) < max(columns[b])


def ask_absent(scene: Scene, rng: Generator) -> Question | None:
    """Ask what digit is red if nothing is red, or what colour the seven is if there is no seven. Answer: none."""
    if rng.integers(2):
        digit = rng.choice([digit for digit in range(10) if digit not in scene.digits])
        return Question(f"what colour is the {DIGITS[digit]}?", "none", ())
    colours = [colour for colour in COLOURS if colour not in scene.colours]
    return Question(f"what digit is {rng.choice(colours)}?", "none", ()) if colours else None


QUESTIONS: dict[str, Callable[[Scene, Generator], Question | None]] = {
    "digit_by_colour": ask_digit_by_colour,
    "colour_of_digit": ask_colour_of_digit,
    "digit_by_position": ask_digit_by_position,
    "count": ask_count,
    "left_of": ask_left_of,
    "absent": ask_absent,
}
MANY_PLACES = ("count", "left_of")
"""The kinds that need many places of the picture. One place answers the others."""
# How often each kind is asked. `count` and `left_of` need several regions, and a small model takes long to learn them,
# so they are rare. `absent` is asked on request only.
WEIGHTS = {"digit_by_colour": 4, "colour_of_digit": 4, "digit_by_position": 4, "count": 0.5, "left_of": 0.5}
# In a dense scene the other kinds can seldom be asked: a quarter with one digit is rare. A small model takes long to
# learn them there.
DENSE_WEIGHTS = {"digit_by_colour": 1, "colour_of_digit": 1}


def digit_scenes(
    split: str,
    num_scenes: int,
    *,
    questions_per_scene: int = 4,
    grid_size: int = 6,
    num_digits: int = 3,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
    setting: str | Clutter = "plain",
) -> Dataset:
    """Make questions about digit scenes. The same arguments give the same questions.

    Args:
        split: `"train"`, `"validation"` or `"test"`; they share no handwriting sample.
        num_scenes: number of pictures.
        questions_per_scene: number of rows per picture.
        grid_size: cells along each side, at least 2; the picture has `grid_size * CELL_SIZE` pixels a side.
        num_digits: number of digits per picture, 2 to 6. Dense scenes have 6.
        weights: how often each kind in `QUESTIONS` is asked; default `WEIGHTS`, in dense scenes `DENSE_WEIGHTS`.
        seed: an integer of at least 0.
        setting: `"plain"` or `"cluttered"` (a key of `SETTINGS`), or how cluttered the scenes are ([`Clutter`]).

    Returns:
        A dataset with the columns `image`, `question`, `answer`, `kind` (a key of `QUESTIONS`) and `cells` (what the
        question is about, as indices into the grid row by row). Cluttered scenes also have `density`, `"sparse"` or
        `"dense"`.
    """
    dense_weights = DENSE_WEIGHTS if weights is None else weights
    weights = WEIGHTS if weights is None else weights
    unknown = sorted(set(weights) - set(QUESTIONS))
    if unknown or not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise ValueError(f"weights={weights}: give numbers of at least 0, one above 0, for kinds in {list(QUESTIONS)}")
    if num_scenes < 1 or questions_per_scene < 1:
        raise ValueError(f"num_scenes={num_scenes}, questions_per_scene={questions_per_scene}: must be at least 1")
    clutter = clutter_of(setting, grid_size)
    rng = scene_rng(split, grid_size, num_digits, seed)
    features = Features(FEATURES if clutter is None else {**FEATURES, "density": Value("string")})
    columns: dict[str, list] = {name: [] for name in features}
    for _ in range(num_scenes):
        dense = clutter is not None and rng.random() < clutter.dense_part
        asked = draw_kinds(dense_weights if dense else weights, questions_per_scene, rng)
        if clutter is None:
            scene, questions = _scene_for(asked, rng, grid_size, num_digits)
            image = encode(draw(scene, split, rng))
        else:
            scene, questions = _scene_for(asked, rng, grid_size, len(COLOURS) if dense else num_digits)
            image = encode(draw_cluttered(scene, split, rng, clutter.num_distractors if dense else 0))
            columns["density"] += [DENSITIES[dense]] * len(asked)
        for kind, question in zip(asked, questions, strict=True):
            columns["image"].append(image)
            columns["question"].append(question.text)
            columns["answer"].append(question.answer)
            columns["kind"].append(kind)
            columns["cells"].append(sorted(question.cells))
    return Dataset.from_dict(columns, features=features)


def draw_kinds(weights: Mapping[str, float], number: int, rng: Generator) -> list[str]:
    """Draw the kinds of the questions about a scene."""
    chances = np.array(list(weights.values()), dtype=float)
    return [str(kind) for kind in rng.choice(list(weights), number, p=chances / chances.sum())]


def clutter_of(setting: str | Clutter, grid_size: int) -> Clutter | None:
    """Return how cluttered the scenes of a setting are; None: not at all.

    Raises `ValueError` if there is no such setting, or if a dense scene has too few cells.
    """
    if isinstance(setting, str) and setting not in SETTINGS:
        raise ValueError(f"setting={setting!r}: choose one of {list(SETTINGS)}")
    clutter = SETTINGS[setting] if isinstance(setting, str) else setting
    if clutter is not None and clutter.dense_part > 0 and grid_size**2 < len(COLOURS) + clutter.num_distractors:
        raise ValueError(
            f"grid_size={grid_size}: a dense scene must have room for {len(COLOURS)} digits and "
            f"num_distractors={clutter.num_distractors}"
        )
    return clutter


def _scene_for(kinds: list[str], rng: Generator, grid_size: int, num_digits: int) -> tuple[Scene, list[Question]]:
    """Draw a scene that allows a question of each of `kinds`, and return the scene and the questions."""
    while True:
        scene = sample_scene(rng, grid_size, num_digits)
        questions = [question for kind in kinds if (question := QUESTIONS[kind](scene, rng)) is not None]
        if len(questions) == len(kinds):
            return scene, questions
