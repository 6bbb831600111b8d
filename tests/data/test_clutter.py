import hashlib
import io
import sys

import numpy as np
import pytest
from datasets import Image
from PIL import Image as PILImage
from sklearn.datasets import load_sample_images

from pumer_hf.data.scenes import clutter, digits
from pumer_hf.data.scenes.clutter import (
    SHAPE_COLOURS,
    STRIPS,
    Clutter,
    add_distractors,
    add_ink,
    background,
    photographs,
)
from pumer_hf.data.scenes.digits import CELL_SIZE, COLOURS, QUESTIONS, WEIGHTS, digit_scenes

SIDE = 8 * CELL_SIZE


def rows_of(dataset):
    rows = dataset.cast_column("image", Image(decode=False)).to_list()
    return [{**row, "image": np.asarray(PILImage.open(io.BytesIO(row["image"]["bytes"])))} for row in rows]


def scenes(split="train", number=30, **arguments):
    return digit_scenes(split, number, **{"grid_size": 8, "setting": "cluttered", **arguments})


# The hashes are of pictures and questions that were made before there was another setting.
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"split": "train"}, "1a642cc0a5e0feb2948af57f957552828c930b367d72e06b0e2970ca0e14e430"),
        (
            {"split": "test", "grid_size": 8, "num_digits": 6, "weights": {"count": 1, "absent": 1}, "seed": 7},
            "a6217eda3b929c33f3893a8610721fcd61aea249b2f219adc05897b0b5465f43",
        ),
    ],
)
@pytest.mark.parametrize("setting", [{}, {"setting": "plain"}])
def test_plain_scenes_are_what_they_were(arguments, expected, setting):
    digest = hashlib.sha256()
    for row in rows_of(digit_scenes(num_scenes=40, **arguments, **setting)):
        assert "density" not in row
        digest.update(row["image"].tobytes())
        digest.update(repr((row["question"], row["answer"], row["kind"], row["cells"])).encode())
    assert digest.hexdigest() == expected


# photographs


def test_each_column_of_a_photograph_is_in_one_split():
    whole = list(load_sample_images().images)
    taken = {split: [np.asarray(strip) for strip in photographs(split)] for split in set(STRIPS)}
    assert set(taken) == {"train", "validation", "test"}
    order = [taken[split].pop(0) for split in STRIPS * len(whole)]
    assert not any(taken.values())
    rebuilt = np.split(np.concatenate(order, axis=1), len(whole), axis=1)
    assert all((one == other).all() for one, other in zip(rebuilt, whole, strict=True))


def test_a_background_is_made_of_the_split_alone(monkeypatch):
    shades = {"train": 100, "validation": 150, "test": 200}
    monkeypatch.setattr(clutter, "photographs", lambda split: (PILImage.new("RGB", (128, 400), (shades[split],) * 3),))
    for split, shade in shades.items():
        pixels = background(split, SIDE, np.random.default_rng(0)) / shade
        assert pixels.shape == (SIDE, SIDE, 3)
        factors = {round(float(value), 6) for value in pixels.flat}
        assert len(factors) == 4  # each of the four pieces is dimmed on its own
        assert clutter.BRIGHTNESS[0] <= min(factors) < max(factors) <= clutter.BRIGHTNESS[1]


@pytest.mark.parametrize("side", [2 * CELL_SIZE, 7 * CELL_SIZE, 9])
def test_a_background_has_any_side_and_is_seldom_flat(side):
    rng = np.random.default_rng(1)
    pieces = [background("validation", side, rng) for _ in range(40)]
    assert all(pixels.shape == (side, side, 3) for pixels in pieces)
    assert all(pixels.min() >= 0 and pixels.max() <= 255 for pixels in pieces)
    assert np.mean([pixels.std() > 10 for pixels in pieces]) > 0.9


# pictures


@pytest.fixture
def full_cells(monkeypatch):
    """Each digit fills its cell, so that every pixel of it has its colour."""
    monkeypatch.setattr(digits, "handwriting", lambda split: 10 * [np.ones((1, CELL_SIZE, CELL_SIZE))])


def test_sparse_scenes_show_their_digits_and_no_distractor(full_cells):
    for row in rows_of(scenes(setting=Clutter(dense_part=0), num_digits=4)):
        assert row["density"] == "sparse"
        assert row["image"].shape == (SIDE, SIDE, 3)
        found = colours_in(row["image"], COLOURS.values())
        assert len(found) == 4
        assert all(len(cells) == 1 for cells in found.values())
        assert not any(len(cells) > 1 for cells in colours_in(row["image"], SHAPE_COLOURS).values())


def colours_in(pixels, colours):
    """The colours of which a pixel of the picture is, each with the cells that have it."""
    found = {}
    for colour in colours:
        places = np.argwhere((pixels == np.array(colour)).all(-1)) // CELL_SIZE
        if len(places):
            found[colour] = {int(row * (pixels.shape[1] // CELL_SIZE) + column) for row, column in places}
    return found


@pytest.mark.parametrize("number", [0, 8, 58])
def test_dense_scenes_have_a_digit_of_each_colour_and_distractors(number, full_cells, monkeypatch):
    drawn = []
    monkeypatch.setattr(digits, "add_distractors", lambda canvas, cells, size, rng: drawn.append(sorted(cells)))
    rows = rows_of(scenes(number=5, questions_per_scene=1, setting=Clutter(dense_part=1, num_distractors=number)))
    for row, cells in zip(rows, drawn, strict=True):
        assert row["density"] == "dense"
        taken = [cell for found in colours_in(row["image"], COLOURS.values()).values() for cell in found]
        assert len(taken) == len(set(taken)) == len(COLOURS)
        assert len(set(cells)) == number
        assert not set(cells) & set(taken)


def test_the_digit_of_a_colour_is_in_the_cell_of_the_question(full_cells):
    rows = rows_of(scenes("test", weights={"digit_by_colour": 1}))
    assert {row["density"] for row in rows} == {"sparse", "dense"}
    for row in rows:
        colour = COLOURS[row["question"].removeprefix("what digit is ").removesuffix("?")]
        assert colours_in(row["image"], [colour]) == {colour: set(row["cells"])}


@pytest.mark.parametrize("kind", [*QUESTIONS])
def test_every_kind_can_be_asked_about_both_densities(kind):
    dataset = scenes(number=20, weights={kind: 1})
    assert set(dataset["kind"]) == {kind}
    assert set(dataset["density"]) == {"sparse", "dense"}


def test_dense_scenes_are_asked_about_digits_and_colours_unless_told_otherwise():
    kinds = {"sparse": set(), "dense": set()}
    for row in scenes(number=200):
        kinds[row["density"]].add(row["kind"])
    assert kinds == {"sparse": set(WEIGHTS), "dense": {"digit_by_colour", "colour_of_digit"}}


@pytest.mark.parametrize("part", [0.0, 0.25, 1.0])
def test_the_part_of_dense_scenes_is_what_was_asked_for(part):
    densities = scenes(number=300, questions_per_scene=1, setting=Clutter(dense_part=part))["density"]
    assert np.mean([density == "dense" for density in densities]) == pytest.approx(part, abs=0.08)


def test_a_distractor_stays_in_its_cell_and_has_no_colour_of_a_digit():
    assert not set(SHAPE_COLOURS) & set(COLOURS.values())
    rng = np.random.default_rng(2)
    canvas = np.zeros((SIDE, SIDE, 3))
    add_distractors(canvas, np.array([0, 9, 63]), CELL_SIZE, rng)
    cells = canvas.any(-1).reshape(8, CELL_SIZE, 8, CELL_SIZE).any((1, 3))
    assert np.flatnonzero(cells).tolist() == [0, 9, 63]


def test_shapes_differ_from_each_other_and_cover_a_part_of_the_cell():
    inks = clutter.shapes(CELL_SIZE)
    assert len({ink.tobytes() for ink in inks}) == len(inks)
    assert all(0.1 < ink.mean() < 0.7 for ink in inks)


def test_ink_covers_what_is_below_in_its_part():
    canvas = np.full((4, 4, 3), 100.0)
    add_ink(canvas, 1, 2, np.array([[0.0, 0.25], [0.5, 1.0]]), (200, 100, 0))
    assert canvas[1:3, 2:, 0].tolist() == [[100, 125], [150, 200]]
    assert canvas[1:3, 2:, 2].tolist() == [[100, 75], [50, 0]]
    canvas[1:3, 2:] = 100
    assert (canvas == 100).all()


def test_the_same_arguments_give_the_same_scenes_and_others_do_not():
    first, again = (scenes("validation", 10).to_list() for _ in range(2))
    assert first == again
    for other in (scenes("test", 10), scenes("validation", 10, seed=1)):
        assert not {row["image"]["bytes"] for row in first} & {row["image"]["bytes"] for row in other.to_list()}


# errors


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Clutter(dense_part=1.5), "dense_part=1.5"),
        (lambda: Clutter(dense_part=-0.1), "dense_part=-0.1"),
        (lambda: Clutter(num_distractors=-1), "num_distractors=-1"),
        (lambda: scenes(setting="busy"), "setting='busy': .*'plain', 'cluttered'"),
        (lambda: scenes(grid_size=3), "grid_size=3: .*6 digits and num_distractors=8"),
        (lambda: scenes(setting=Clutter(num_distractors=59)), "grid_size=8: .*num_distractors=59"),
    ],
)
def test_a_bad_argument_is_named(make, field):
    with pytest.raises(ValueError, match=field):
        make()


def test_scenes_that_are_all_sparse_fit_into_a_small_grid():
    assert len(scenes(grid_size=2, setting=Clutter(dense_part=0))) == 120


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install .*scikit-learn"):
        photographs.__wrapped__("train")  # past the cache
