import io
import re
import sys
from collections import Counter
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from datasets import Image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from sklearn.datasets import load_digits

from pumer_hf.data.scenes.digits import CELL_SIZE, COLOURS, DIGITS, SPLITS, WEIGHTS, digit_scenes, handwriting

KINDS = ("digit_by_colour", "colour_of_digit", "digit_by_position", "count", "left_of")
PLURALS = ("zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines")


# A reading of the picture that owes nothing to the code that drew it: which cells have ink, its colour, whose hand.


class Seen(NamedTuple):
    cell: int
    row: int
    column: int
    digit: int
    colour: str


@cache
def digit_of_ink(split):
    return {sixteenths(ink): digit for digit, inks in enumerate(handwriting(split)) for ink in inks}


def sixteenths(ink):
    return np.round(16 * ink).astype(np.uint8).tobytes()


def read_cell(pixels, split):
    shade = pixels.sum((0, 1))
    hues = {name: np.array(rgb) / np.linalg.norm(rgb) for name, rgb in COLOURS.items()}
    colour = min(hues, key=lambda name: np.abs(shade / np.linalg.norm(shade) - hues[name]).max())
    brightest = int(np.argmax(COLOURS[colour]))
    ink = np.round(16 * pixels[:, :, brightest] / COLOURS[colour][brightest]) / 16
    assert np.abs(pixels - ink[:, :, None] * COLOURS[colour]).max() <= 0.5  # nothing else is in the cell
    return digit_of_ink(split)[sixteenths(ink)], colour


def read_picture(png, split, grid_size):
    pixels = np.asarray(PILImage.open(io.BytesIO(png))).astype(float)
    assert pixels.shape == (grid_size * CELL_SIZE, grid_size * CELL_SIZE, 3)
    seen = []
    for row in range(grid_size):
        for column in range(grid_size):
            cell = pixels[CELL_SIZE * row : CELL_SIZE * (row + 1), CELL_SIZE * column : CELL_SIZE * (column + 1)]
            if cell.any():
                seen.append(Seen(grid_size * row + column, row, column, *read_cell(cell, split)))
    return seen


def is_in_quarter(item, quarter, grid_size):
    """The middle row and column of an odd grid belong to the top and the left."""
    vertical = "bottom" if item.row > (grid_size - 1) / 2 else "top"
    horizontal = "right" if item.column > (grid_size - 1) / 2 else "left"
    return quarter == f"{vertical} {horizontal}"


def only(items):
    (item,) = items  # the question has one answer
    return item


def answer_by_reading(question, seen, grid_size):
    """Kind, answer and cells of a question."""
    if match := re.fullmatch(r"what digit is in the (.+)\?", question):
        item = only([item for item in seen if is_in_quarter(item, match[1], grid_size)])
        return "digit_by_position", str(item.digit), [item.cell]
    if match := re.fullmatch(r"what digit is (\w+)\?", question):
        items = [item for item in seen if item.colour == match[1]]
        if not items:
            return "absent", "none", []
        item = only(items)
        return "digit_by_colour", str(item.digit), [item.cell]
    if match := re.fullmatch(r"what colour is the (\w+)\?", question):
        items = [item for item in seen if item.digit == DIGITS.index(match[1])]
        if not items:
            return "absent", "none", []
        item = only(items)
        return "colour_of_digit", item.colour, [item.cell]
    if match := re.fullmatch(r"how many (\w+)\?", question):
        cells = [item.cell for item in seen if item.digit == PLURALS.index(match[1])]
        return "count", str(len(cells)), cells
    match = re.fullmatch(r"is there a (\w+) left of a (\w+)\?", question)
    first, second = ([item for item in seen if item.digit == DIGITS.index(word)] for word in match.groups())
    assert first and second
    is_so = any(a.column < b.column for a in first for b in second)
    return "left_of", "yes" if is_so else "no", sorted(item.cell for item in first + second)


def rows_of(dataset):
    return dataset.cast_column("image", Image(decode=False)).to_list()


def check_rows(dataset, split, grid_size, num_digits):
    pictures = {}
    for row in rows_of(dataset):
        png = row["image"]["bytes"]
        if png not in pictures:
            pictures[png] = read_picture(png, split, grid_size)
        seen = pictures[png]
        assert len(seen) == num_digits == len({item.colour for item in seen})
        assert answer_by_reading(row["question"], seen, grid_size) == (row["kind"], row["answer"], row["cells"])
    return pictures


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", SPLITS)
def test_answer_and_cells_are_what_the_picture_shows(kind, split):
    dataset = digit_scenes(split, 60, weights={kind: 1}, num_digits=4, seed=3)
    check_rows(dataset, split, grid_size=6, num_digits=4)
    assert set(dataset["kind"]) == {kind}
    assert len(set(dataset["answer"])) > 1


@pytest.mark.parametrize("num_digits", [3, 6])  # six digits have all the colours
def test_what_is_absent_is_not_in_the_picture(num_digits):
    dataset = digit_scenes("test", 30, weights={"absent": 1}, num_digits=num_digits)
    check_rows(dataset, "test", grid_size=6, num_digits=num_digits)
    assert set(dataset["answer"]) == {"none"}
    assert any("what digit is" in question for question in dataset["question"]) == (num_digits < 6)
    assert any("what colour is" in question for question in dataset["question"])


@settings(max_examples=15, deadline=None)
@given(
    grid_size=st.integers(2, 9),
    num_digits=st.integers(2, 6),
    questions_per_scene=st.integers(1, 5),
    seed=st.integers(0, 2**40),
    split=st.sampled_from(list(SPLITS)),
)
def test_any_grid_size_and_seed_shows_what_it_asks(grid_size, num_digits, questions_per_scene, seed, split):
    num_digits = min(num_digits, grid_size**2)
    dataset = digit_scenes(
        split,
        4,
        grid_size=grid_size,
        num_digits=num_digits,
        questions_per_scene=questions_per_scene,
        seed=seed,
    )
    assert len(dataset) == 4 * questions_per_scene
    assert len(check_rows(dataset, split, grid_size, num_digits)) == 4


def test_the_cells_of_a_question_about_an_absent_digit_are_empty():
    dataset = digit_scenes("train", 60, weights={"count": 1})
    absent = [row for row in dataset if row["answer"] == "0"]
    assert absent
    assert all(row["cells"] == [] for row in absent)
    assert all(len(row["cells"]) == int(row["answer"]) for row in dataset)


def test_a_digit_can_stand_twice():
    pictures = check_rows(digit_scenes("train", 200, questions_per_scene=1), "train", grid_size=6, num_digits=3)
    most = Counter(max(Counter(item.digit for item in seen).values()) for seen in pictures.values())
    assert set(most) == {1, 2}
    assert most[2] / len(pictures) == pytest.approx(0.4, abs=0.12)


def test_digits_stand_in_every_cell():
    dataset = digit_scenes("train", 200, questions_per_scene=1, grid_size=4)
    pictures = check_rows(dataset, "train", grid_size=4, num_digits=3)
    assert {item.cell for seen in pictures.values() for item in seen} == set(range(16))


def test_three_of_ten_counts_are_zero():
    answers = digit_scenes("train", 1000, weights={"count": 1}, questions_per_scene=1)["answer"]
    assert Counter(answers)["0"] / 1000 == pytest.approx(0.3, abs=0.06)


def test_left_of_is_about_as_often_yes_as_no():
    answers = digit_scenes("train", 500, weights={"left_of": 1}, questions_per_scene=2)["answer"]
    assert Counter(answers)["yes"] / 1000 == pytest.approx(0.5, abs=0.08)


def test_kinds_are_asked_as_often_as_their_weights_say():
    counts = Counter(digit_scenes("train", 600)["kind"])
    for kind in KINDS:
        assert counts[kind] / 2400 == pytest.approx(WEIGHTS[kind] / sum(WEIGHTS.values()), abs=0.04)


def test_a_kind_of_weight_0_is_never_asked():
    kinds = digit_scenes("train", 50, weights={"count": 0, "left_of": 0.5, "digit_by_colour": 0.5})["kind"]
    assert set(kinds) == {"left_of", "digit_by_colour"}


def test_no_handwriting_sample_is_in_two_splits_or_lost():
    samples = [sixteenths(ink) for split in SPLITS for inks in handwriting(split) for ink in inks]
    images = load_digits().images
    assert len(samples) == len(set(samples)) == len(images)
    assert set(samples) == {sixteenths(image / 16) for image in images}


def test_handwriting_is_of_the_digit_that_it_is_filed_under():
    images, targets = load_digits(return_X_y=True)
    digit_of = {sixteenths(image / 16): target for image, target in zip(images, targets, strict=True)}
    for split in SPLITS:
        assert [{digit_of[sixteenths(ink)] for ink in inks} for inks in handwriting(split)] == [{d} for d in range(10)]


@pytest.mark.parametrize(("split", "part"), [("train", 0.75), ("validation", 0.10), ("test", 0.15)])
def test_splits_hold_their_part_of_each_digit(split, part):
    totals = np.bincount(load_digits().target)
    for inks, total in zip(handwriting(split), totals, strict=True):
        assert len(inks) == pytest.approx(part * total, abs=1)


def test_same_arguments_give_the_same_bytes():
    first, second = (digit_scenes("validation", 20, seed=5) for _ in range(2))
    assert rows_of(first) == rows_of(second)


@pytest.mark.parametrize("other", [{"seed": 6}, {"split": "test"}])
def test_another_seed_or_split_gives_another_dataset(other):
    arguments = {"split": "validation", "num_scenes": 20, "seed": 5}
    first, second = (rows_of(digit_scenes(**given)) for given in (arguments, arguments | other))
    assert not {row["image"]["bytes"] for row in first} & {row["image"]["bytes"] for row in second}
    assert [row["question"] for row in first] != [row["question"] for row in second]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"split": "dev"}, "split='dev'"),
        ({"num_scenes": 0}, "num_scenes=0"),
        ({"questions_per_scene": 0}, "questions_per_scene=0"),
        ({"grid_size": 1}, "grid_size=1"),
        ({"grid_size": -6}, "grid_size=-6"),
        ({"grid_size": 2, "num_digits": 5}, "grid_size=2"),
        ({"num_digits": 1}, "num_digits=1"),
        ({"num_digits": 7}, "num_digits=7"),
        ({"weights": {}}, "weights={}"),
        ({"weights": {"colour": 1}}, "weights=.*'colour'"),
        ({"weights": {"count": 0}}, "weights=.*'count': 0"),
        ({"weights": {"count": 2, "left_of": -1}}, "weights=.*'left_of': -1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_a_bad_argument_is_named(arguments, field):
    with pytest.raises(ValueError, match=field):
        digit_scenes(**{"split": "train", "num_scenes": 1, **arguments})


def test_handwriting_of_an_unknown_split_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"split='dev'.*train.*validation.*test"):
        handwriting("dev")


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install .*scikit-learn"):
        handwriting.__wrapped__("train")  # past the cache
