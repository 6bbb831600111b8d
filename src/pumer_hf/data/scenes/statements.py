"""Digit scenes for NLVR2, SNLI-VE and retrieval: statements about two scenes, hypotheses about one, and captions.

Each text is drawn before its pictures, and then gets one picture (or two) for every label. So a text alone says
nothing about its label.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from numpy.random import Generator
from PIL import Image as PILImage
from PIL import ImageDraw

from .digits import (
    CELL_SIZE,
    COLOURS,
    DIGITS,
    QUADRANTS,
    Scene,
    draw,
    encode,
    quadrant_of,
    sample_scene,
    scene_rng,
    with_article,
)

GREY = (128, 128, 128)
TRUTH = ("False", "True")
ENTAILMENT = ("entailment", "neutral", "contradiction")
MAX_TRIES = 100_000
IMAGE = Image(decode=False)
TEXT = Value("string")
NLVR2_FEATURES = Features(
    {"left": IMAGE, "right": IMAGE, "sentence": TEXT, "label": TEXT, "identifier": TEXT, "kind": TEXT, "origin": TEXT}
)
SNLI_VE_FEATURES = Features({"image": IMAGE, "hypothesis": TEXT, "label": TEXT, "kind": TEXT, "origin": TEXT})
CAPTION_FEATURES = Features({"image": IMAGE, "captions": List(TEXT), "origin": TEXT})
Judge = Callable[[Scene, Scene], bool | None]
Matches = Callable[[Scene, int], bool]


# Things that a picture may show. Each function returns a name, and whether a digit of a scene is such a thing.


def some_digit(rng: Generator) -> tuple[str, Matches]:
    """Choose a digit, for example a seven."""
    digit = int(rng.integers(10))
    return with_article(DIGITS[digit]), lambda scene, index: scene.digits[index] == digit


def some_colour(rng: Generator) -> tuple[str, Matches]:
    """Choose a colour, for example a red digit."""
    colour = str(rng.choice(list(COLOURS)))
    return with_article(f"{colour} digit"), lambda scene, index: scene.colours[index] == colour


THINGS = {"digit": some_digit, "colour": some_colour}


def some_thing(rng: Generator) -> tuple[str, Matches]:
    """Choose a digit or a colour."""
    return THINGS[str(rng.choice(list(THINGS)))](rng)


def shows(scene: Scene, matches: Matches) -> bool:
    """Whether a digit of the scene matches."""
    return any(matches(scene, index) for index in range(len(scene.digits)))


# NLVR2: is a statement true of two pictures? A judge returns None if the two pictures do not suit the statement.


def state_both(rng: Generator) -> tuple[str, Judge]:
    """State that both images show a seven. If this is false, one of them does."""
    return _state_number(rng, "both images show", {0: None, 1: False, 2: True})


def state_none(rng: Generator) -> tuple[str, Judge]:
    """State that no image shows a seven. If this is false, one of them does."""
    return _state_number(rng, "no image shows", {0: True, 1: False, 2: None})


def _state_number(rng: Generator, words: str, verdicts: dict[int, bool | None]) -> tuple[str, Judge]:
    """Make a statement that is true or false by the number of images that show something."""
    thing, matches = some_thing(rng)
    return f"{words} {thing}", lambda left, right: verdicts[shows(left, matches) + shows(right, matches)]


def state_side(rng: Generator) -> tuple[str, Judge]:
    """State that only the left image shows a seven. If this is false, only the right one does."""
    (thing, matches), side = some_thing(rng), int(rng.integers(2))

    def judge(*images: Scene) -> bool | None:
        shown = [shows(image, matches) for image in images]
        return shown[side] if sum(shown) == 1 else None

    return f"only the {('left', 'right')[side]} image shows {thing}", judge


def state_colour(rng: Generator) -> tuple[str, Judge]:
    """State that one of the images shows a red seven. If this is false, they show a seven and something red."""
    digit, colour = int(rng.integers(10)), str(rng.choice(list(COLOURS)))

    def judge(left: Scene, right: Scene) -> bool | None:
        shown = [item for image in (left, right) for item in zip(image.digits, image.colours, strict=True)]
        if (digit, colour) in shown:
            return True
        return False if digit in left.digits + right.digits and colour in left.colours + right.colours else None

    return f"one of the images shows {with_article(colour)} {DIGITS[digit]}", judge


STATEMENTS = {"both": state_both, "none": state_none, "side": state_side, "colour": state_colour}
# How often each kind is stated. A small model takes long to learn left and right, and to look for a digit and its
# colour at once, so these kinds are rare.
WEIGHTS = {"both": 4, "none": 4, "side": 0.5, "colour": 0.5}


def statement_scenes(
    split: str, num_statements: int, *, grid_size: int = 6, num_digits: int = 3, seed: int = 0
) -> Dataset:
    """Make statements about two scenes. Each has two rows: in one the statement is true, in the other it is false.

    Args:
        split: `"train"`, `"validation"` or `"test"`; they share no handwriting sample.
        num_statements: number of statements. There are twice as many rows.
        grid_size: cells along each side.
        num_digits: number of digits per picture, 2 to 6.
        seed: an integer of at least 0.

    Returns:
        A dataset with the columns `left`, `right`, `sentence`, `label` (in `TRUTH`), `identifier` (as NLVR2's: the
        rows of a statement differ in the third part), `kind` (a key of `STATEMENTS`) and `origin`.
    """
    rng = scene_rng(split, grid_size, num_digits, seed, stream=(1,))
    rows: list[dict[str, Any]] = []
    chances = np.array(list(WEIGHTS.values()))
    for number in range(num_statements):
        kind = str(rng.choice(list(WEIGHTS), p=chances / chances.sum()))
        sentence, judge = STATEMENTS[kind](rng)
        for truth in rng.permutation([False, True]):
            wanted = bool(truth)

            def accepts(scenes: tuple[Scene, Scene], judge: Judge = judge, wanted: bool = wanted) -> bool:
                return judge(*scenes) is wanted

            left, right = _sample(lambda: tuple(sample_scene(rng, grid_size, num_digits) for _ in range(2)), accepts)
            rows.append(
                {
                    "left": encode(draw(left, split, rng)),
                    "right": encode(draw(right, split, rng)),
                    "sentence": sentence,
                    "label": TRUTH[wanted],
                    "identifier": f"{split}-{number}-{wanted:d}-0",
                    "kind": kind,
                }
            )
    return _dataset(rows, split, NLVR2_FEATURES)


# SNLI-VE: does a picture entail a hypothesis? Where a quarter is covered, nobody can say what is there.


def hypothesis_scenes(
    split: str, num_hypotheses: int, *, grid_size: int = 6, num_digits: int = 3, seed: int = 0
) -> Dataset:
    """Make hypotheses about a scene. Each has three pictures: one entails it, one contradicts it, one leaves it open.

    In the picture that leaves it open, the thing cannot be seen, but a quarter of the picture is covered. Half of the
    pictures that entail their hypothesis have a covered quarter too, so that no picture alone tells its label.

    Args:
        split: `"train"`, `"validation"` or `"test"`; they share no handwriting sample.
        num_hypotheses: number of hypotheses. There are three times as many rows.
        grid_size: cells along each side.
        num_digits: number of digits per picture, 2 to 6.
        seed: an integer of at least 0.

    Returns:
        A dataset with the columns `image`, `hypothesis`, `label` (in `ENTAILMENT`), `kind` (a key of `THINGS`) and
        `origin`.
    """
    rng = scene_rng(split, grid_size, num_digits, seed, stream=(2,))
    rows: list[dict[str, Any]] = []
    for _ in range(num_hypotheses):
        kind = str(rng.choice(list(THINGS)))
        thing, matches = THINGS[kind](rng)
        for label in rng.permutation(ENTAILMENT):
            is_covered = {"entailment": bool(rng.integers(2)), "neutral": True, "contradiction": False}[str(label)]
            covered = str(rng.choice(QUADRANTS)) if is_covered else None
            wanted = label == "entailment"

            def accepts(scene: Scene, matches: Any = matches, covered: Any = covered, wanted: Any = wanted) -> bool:
                visible = [i for i in range(len(scene.digits)) if scene.quadrant(i) != covered]
                return any(matches(scene, i) for i in visible) == wanted

            scene = _sample(lambda: sample_scene(rng, grid_size, num_digits), accepts)
            rows.append(
                {
                    "image": encode(cover(draw(scene, split, rng), covered, grid_size)),
                    "hypothesis": f"there is {thing}",
                    "label": str(label),
                    "kind": kind,
                }
            )
    return _dataset(rows, split, SNLI_VE_FEATURES)


def cover(picture: PILImage.Image, quadrant: str | None, grid_size: int) -> PILImage.Image:
    """Paint a quarter of a scene's picture grey; None: paint nothing."""
    pen = ImageDraw.Draw(picture)
    for cell in range(grid_size**2):
        if quadrant_of(cell, grid_size) == quadrant:
            top, left = (CELL_SIZE * place for place in divmod(cell, grid_size))
            pen.rectangle((left, top, left + CELL_SIZE - 1, top + CELL_SIZE - 1), fill=GREY)
    return picture


# Retrieval: captions that say what a picture shows


def caption_scenes(
    split: str,
    num_scenes: int,
    *,
    captions_per_scene: int = 2,
    grid_size: int = 6,
    num_digits: int = 3,
    seed: int = 0,
) -> Dataset:
    """Make scenes with captions. No two scenes of a split have the same captions.

    A caption names each digit with its colour, in random order.

    Args:
        split: `"train"`, `"validation"` or `"test"`; they share no handwriting sample.
        num_scenes: number of rows.
        captions_per_scene: number of captions per scene.
        grid_size: cells along each side.
        num_digits: number of digits per picture, 2 to 6.
        seed: an integer of at least 0.

    Returns:
        A dataset with the columns `image`, `captions` and `origin`.
    """
    rng = scene_rng(split, grid_size, num_digits, seed, stream=(3,))
    rows: list[dict[str, Any]] = []
    used: set[tuple[str, ...]] = set()
    for _ in range(num_scenes):
        scene = _sample(
            lambda: sample_scene(rng, grid_size, num_digits), lambda scene: tuple(sorted(_parts(scene))) not in used
        )
        parts = _parts(scene)
        used.add(tuple(sorted(parts)))
        captions = [_enumerate([str(part) for part in rng.permutation(parts)]) for _ in range(captions_per_scene)]
        rows.append({"image": encode(draw(scene, split, rng)), "captions": captions})
    return _dataset(rows, split, CAPTION_FEATURES)


def _parts(scene: Scene) -> list[str]:
    return [
        with_article(f"{colour} {DIGITS[digit]}") for digit, colour in zip(scene.digits, scene.colours, strict=True)
    ]


def _enumerate(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _sample(draw_one: Callable[[], Any], accepts: Callable[[Any], bool]) -> Any:
    """Draw until `accepts` returns True, and return what was drawn last."""
    for _ in range(MAX_TRIES):
        drawn = draw_one()
        if accepts(drawn):
            return drawn
    raise ValueError("data.grid_size and data.num_digits allow too few different scenes: increase one of them")


def _dataset(rows: list[dict[str, Any]], split: str, features: Features) -> Dataset:
    if not rows:
        raise ValueError("data.train_scenes and data.eval_scenes must be at least 1")
    columns = {name: [row[name] for row in rows] for name in features if name != "origin"}
    columns["origin"] = [f"digit scenes, {split}, row {row}" for row in range(len(rows))]
    return Dataset.from_dict(columns, features=features)
