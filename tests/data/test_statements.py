import io
import re
from collections import Counter
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image as PILImage

from pumer_hf.data.scenes.digits import CELL_SIZE, COLOURS, DIGITS, QUADRANTS, handwriting, with_article
from pumer_hf.data.scenes.statements import (
    ENTAILMENT,
    STATEMENTS,
    THINGS,
    caption_scenes,
    hypothesis_scenes,
    statement_scenes,
)

GREY = 128


# A reading of the picture that owes nothing to the code that drew it.


class Seen(NamedTuple):
    quadrant: str
    digit: int
    colour: str


@cache
def digit_of_ink(split):
    return {np.round(16 * ink).tobytes(): digit for digit, inks in enumerate(handwriting(split)) for ink in inks}


def quadrant(row, column, grid_size):
    return (
        ("bottom" if row > (grid_size - 1) / 2 else "top")
        + " "
        + ("right" if column > (grid_size - 1) / 2 else "left")
    )


def read(image, split, grid_size=6):
    """What a picture shows, and its covered quarters, each with the number of its covered cells."""
    pixels = np.asarray(PILImage.open(io.BytesIO(image["bytes"]))).astype(float)
    assert pixels.shape == (grid_size * CELL_SIZE, grid_size * CELL_SIZE, 3)
    seen, covered = [], Counter()
    for row in range(grid_size):
        for column in range(grid_size):
            cell = pixels[CELL_SIZE * row : CELL_SIZE * (row + 1), CELL_SIZE * column : CELL_SIZE * (column + 1)]
            place = quadrant(row, column, grid_size)
            if (cell == GREY).all():
                covered[place] += 1
            elif cell.any():
                hues = {name: np.array(rgb) / np.linalg.norm(rgb) for name, rgb in COLOURS.items()}
                shade = cell.sum((0, 1)) / np.linalg.norm(cell.sum((0, 1)))
                colour = min(hues, key=lambda name: np.abs(shade - hues[name]).max())
                brightest = int(np.argmax(COLOURS[colour]))
                ink = np.round(16 * cell[:, :, brightest] / COLOURS[colour][brightest])
                seen.append(Seen(place, digit_of_ink(split)[ink.tobytes()], colour))
    return seen, covered


def is_true(sentence, left, right):
    names = [
        {DIGITS[item.digit] for item in side} | {f"{item.colour} digit" for item in side} for side in (left, right)
    ]
    if match := re.fullmatch(r"both images show an? (.+)", sentence):
        return all(match[1] in shown for shown in names)
    if match := re.fullmatch(r"no image shows an? (.+)", sentence):
        return not any(match[1] in shown for shown in names)
    if match := re.fullmatch(r"only the (left|right) image shows an? (.+)", sentence):
        one, other = names if match[1] == "left" else reversed(names)
        return match[2] in one and match[2] not in other
    match = re.fullmatch(r"one of the images shows a (\w+) (\w+)", sentence)
    return any((item.colour, DIGITS[item.digit]) == match.groups() for item in left + right)


def test_each_digit_and_colour_has_its_article():
    assert [word for word in (*DIGITS, *COLOURS) if with_article(word) == f"an {word}"] == ["eight"]
    assert with_article("one") == "a one"


@pytest.mark.parametrize("split", ["train", "test"])
def test_statements_are_true_or_false_as_their_label_says(split):
    dataset = statement_scenes(split, 80, seed=2)
    kinds = set()
    for row in dataset:
        left, right = (read(row[side], split)[0] for side in ("left", "right"))
        assert len(left) == len(right) == 3
        assert str(is_true(row["sentence"], left, right)) == row["label"], row["sentence"]
        kinds.add(row["kind"])
    assert kinds == set(STATEMENTS)


def test_what_a_statement_is_about_is_in_the_pictures_of_one_label_at_least():
    for row in statement_scenes("train", 30):
        if row["kind"] == "none" and row["label"] == "True":
            continue
        *_, colour, thing = row["sentence"].split()
        seen = [item for side in ("left", "right") for item in read(row[side], "train")[0]]
        assert any(item.colour == colour if thing == "digit" else DIGITS[item.digit] == thing for item in seen)


def test_each_statement_has_a_true_and_a_false_pair_of_one_sentence():
    rows = statement_scenes("train", 30).remove_columns(["left", "right"]).to_list()
    groups = {}
    for row in rows:
        split, number, pair, sentence = row["identifier"].split("-")
        groups.setdefault((split, number, sentence), []).append((row["sentence"], row["label"], pair))
    assert len(groups) == 30
    for pairs in groups.values():
        assert len({sentence for sentence, _, _ in pairs}) == 1
        assert sorted(label for _, label, _ in pairs) == ["False", "True"]
        assert len({pair for _, _, pair in pairs}) == 2
    first = [row["label"] for row in rows[::2]]
    assert 5 < first.count("True") < 25  # the order says nothing


def judge(hypothesis, seen, covered):
    colour, digit = re.fullmatch(r"there is an? (?:(\w+) digit|(\w+))", hypothesis).groups()
    if any(item.colour == colour if colour else item.digit == DIGITS.index(digit) for item in seen):
        return "entailment"
    return "neutral" if covered else "contradiction"


@pytest.mark.parametrize("grid_size", [6, 5])
def test_hypotheses_follow_from_the_picture_as_their_label_says(grid_size):
    dataset = hypothesis_scenes("validation", 40, grid_size=grid_size, seed=1)
    kinds, covers = set(), set()
    for row in dataset:
        seen, covered = read(row["image"], "validation", grid_size)
        for place, cells in covered.items():  # at most one quarter, all of it
            rows, columns = (
                grid_size // 2 if word in ("bottom", "right") else -(-grid_size // 2) for word in place.split()
            )
            assert cells == rows * columns
        assert len(covered) <= 1
        assert judge(row["hypothesis"], seen, covered) == row["label"], row["hypothesis"]
        kinds.add(row["kind"])
        covers |= {(place, row["label"]) for place in covered}
    assert kinds == set(THINGS)
    assert {place for place, _ in covers} == set(QUADRANTS)
    assert {label for _, label in covers} == {"entailment", "neutral"}


def test_each_hypothesis_has_all_labels_so_that_the_text_gives_nothing_away():
    rows = hypothesis_scenes("train", 60).remove_columns("image").to_list()
    counts = Counter((row["hypothesis"], row["label"]) for row in rows)
    for row in rows:
        assert len({counts[row["hypothesis"], label] for label in ENTAILMENT}) == 1


@pytest.mark.parametrize("num_digits", [2, 4])
def test_captions_say_all_that_the_picture_shows(num_digits):
    dataset = caption_scenes("test", 30, captions_per_scene=3, num_digits=num_digits)
    for row in dataset:
        shown = sorted((item.colour, DIGITS[item.digit]) for item in read(row["image"], "test")[0])
        assert len(row["captions"]) == 3
        for caption in row["captions"]:
            assert sorted(re.findall(r"a (\w+) (\w+)", caption)) == shown
    assert any(len(set(row["captions"])) > 1 for row in dataset)


def test_no_caption_fits_two_pictures():
    dataset = caption_scenes("train", 300, num_digits=2, grid_size=3)
    parts = [frozenset(re.findall(r"a \w+ \w+", captions[0])) for captions in dataset["captions"]]
    assert len(set(parts)) == 300


@pytest.mark.parametrize("make", [statement_scenes, hypothesis_scenes, caption_scenes])
def test_same_arguments_same_rows_and_other_splits_and_seeds_others(make):
    first, again, seed, split = (
        make(*arguments, seed=number).to_list()
        for arguments, number in [(("train", 4), 1), (("train", 4), 1), (("train", 4), 2), (("validation", 4), 1)]
    )
    assert first == again

    def pictures(rows):
        return {value["bytes"] for row in rows for value in row.values() if isinstance(value, dict)}

    assert not pictures(first) & pictures(seed)
    assert not pictures(first) & pictures(split)
    assert first[3]["origin"] == "digit scenes, train, row 3"


@pytest.mark.parametrize("make", [statement_scenes, hypothesis_scenes, caption_scenes])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "split='dev'"),
        ({"num_digits": 7}, "num_digits=7"),
        ({"grid_size": 1}, "grid_size=1"),
        ({"seed": -1}, "seed=-1"),
        ({"number": 0}, "at least 1"),
    ],
)
def test_a_bad_argument_is_named(make, arguments, message):
    values = {"split": "train", "number": 1, **arguments}
    with pytest.raises(ValueError, match=message):
        make(values.pop("split"), values.pop("number"), **values)
