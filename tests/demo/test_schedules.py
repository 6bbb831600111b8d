"""Sliders and schedules."""

import pytest

from pumer_hf.demo.schedules import MAX_RATIO, in_words, moved, slider_values, title
from pumer_hf.reducers import parse_reduction

SCHEDULE = parse_reduction(
    {
        "method": "pumer",
        "layers": [0, 2, 3],
        "prune_ratio": [0.1, 0.2, 0.6],
        "image_merge_ratio": 0.25,
        "text_merge_ratio": 0.0,
    }
)


def test_a_slider_is_the_mean_over_the_layers():
    assert slider_values(SCHEDULE) == {"prune_ratio": 0.3, "image_merge_ratio": 0.25, "text_merge_ratio": 0.0}


def test_sliders_at_their_places_change_nothing():
    assert parse_reduction(moved(SCHEDULE, slider_values(SCHEDULE))) == SCHEDULE


def test_ratios_are_scaled():
    fields = moved(SCHEDULE, {"prune_ratio": 0.15, "image_merge_ratio": 0.25, "text_merge_ratio": 0.4})
    assert fields["prune_ratio"] == pytest.approx([0.05, 0.1, 0.3])
    assert fields["image_merge_ratio"] == 0.25
    assert fields["text_merge_ratio"] == [0.4, 0.4, 0.4]
    assert parse_reduction(fields).layers == (0, 2, 3)


def test_no_ratio_reaches_one():
    fields = moved(SCHEDULE, {"prune_ratio": 0.9, "image_merge_ratio": MAX_RATIO, "text_merge_ratio": 0.0})
    assert fields["prune_ratio"] == pytest.approx([0.3, 0.6, MAX_RATIO])
    parse_reduction(fields)
    with pytest.raises(ValueError, match=r"prune_ratio=1.2: must be in \[0, 0.95\]"):
        moved(SCHEDULE, {"prune_ratio": 1.2, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0})


def test_words():
    assert title("image_merge_ratio") == "Image merge"
    assert in_words(SCHEDULE, 2) == "prune 0.2, image merge 0.25, text merge 0"
