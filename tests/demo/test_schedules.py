"""Sliders and schedules."""

from statistics import mean

import pytest

from pumer_hf.demo.schedules import (
    FASTEST,
    MAX_MERGE_RATIO,
    MAX_RATIO,
    STEP,
    can_be_scaled,
    in_words,
    moved,
    slider_limits,
    slider_values,
    title,
    values_at,
)
from pumer_hf.reducers import parse_method, parse_reduction

SCHEDULE = parse_method(
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
    assert moved(SCHEDULE, slider_values(SCHEDULE)) == SCHEDULE


def test_ratios_are_scaled():
    part = moved(SCHEDULE, {"prune_ratio": 0.15, "image_merge_ratio": 0.25, "text_merge_ratio": 0.4})
    assert part.prune_ratio == pytest.approx((0.05, 0.1, 0.3))
    assert part.image_merge_ratio == 0.25
    assert part.text_merge_ratio == 0.4  # of every layer
    assert part.layers == (0, 2, 3)


@pytest.mark.parametrize("name", ["prune_ratio", "image_merge_ratio", "text_merge_ratio"])
def test_at_the_end_of_a_slider_every_layer_does_what_it_says(name):
    limits, most = slider_limits(SCHEDULE), MAX_RATIO if name == "prune_ratio" else MAX_MERGE_RATIO
    part = moved(SCHEDULE, {**slider_values(SCHEDULE), name: limits[name]})
    ratios = [part.ratio(name, layer) for layer in part.layers]
    assert mean(ratios) == pytest.approx(limits[name])
    assert most - 2 * STEP < max(ratios) <= most + 1e-9
    assert part.layers == (0, 2, 3)


def test_the_ends_of_the_sliders():
    assert slider_limits(SCHEDULE) == {"prune_ratio": 0.475, "image_merge_ratio": 0.5, "text_merge_ratio": 0.5}
    pruning = parse_method({"method": "random", "layers": [1], "prune_ratio": 0.2})
    assert slider_limits(pruning) == {"prune_ratio": 0.95}
    merging = parse_method({"method": "tome", "layers": [1, 2], "merge_ratio": [0.7, 0.9]})
    assert slider_limits(merging) == slider_values(merging) == {"merge_ratio": 0.8}  # it asks for more than can be
    assert moved(merging, {"merge_ratio": 0.8}) == merging


def test_the_part_of_the_patches_to_keep_has_a_slider():
    part = parse_method({"method": "lookahead", "site": "inputs", "keep_ratio": 0.25})
    assert slider_values(part) == {"keep_ratio": 0.25}
    assert slider_limits(part) == {"keep_ratio": 1.0}
    assert moved(part, {"keep_ratio": 0.25}) == part
    assert moved(part, {"keep_ratio": 0.1}).keep_ratio == 0.1
    with pytest.raises(ValueError, match=r"keep_ratio=0: .*\[0.005, 1\]"):
        moved(part, {"keep_ratio": 0})
    assert in_words(part, 0) == "keep 0.25"


def test_a_number_of_patches_has_no_slider():
    part = parse_method({"method": "diverse", "site": "inputs", "num_keep": 7})
    assert slider_values(part) == {}
    assert moved(part, {}) == part
    assert in_words(part, 0) == "keep 7 patches"


@pytest.mark.parametrize("value", [0.48, 1.2, -0.1, float("nan"), None, "0.2", True])
def test_what_no_slider_says_is_refused(value):
    with pytest.raises(ValueError, match=rf"prune_ratio={value}: .*\[0, 0.475\]"):
        moved(SCHEDULE, {**slider_values(SCHEDULE), "prune_ratio": value})


def test_words():
    assert title("image_merge_ratio") == "Image merge"
    assert in_words(SCHEDULE, 2) == "prune 0.2, image merge 0.25, text merge 0"


def test_one_number_moves_all_sliders():
    schedule = parse_reduction([{"method": "grid", "site": "inputs", "keep_ratio": 0.8}, SCHEDULE])
    own = [value for part in schedule.parts for value in slider_values(part).values()]
    assert values_at(schedule, 1) == own
    assert values_at(schedule, 0) == [1.0, *[0.0] * (len(own) - 1)]
    faster = values_at(schedule, FASTEST)
    assert faster[0] == pytest.approx(0.6)
    assert all(new >= old for new, old in zip(faster[1:], own[1:], strict=True))
    limits = [limit for part in schedule.parts for limit in slider_limits(part).values()]
    assert all(new <= limit for new, limit in zip(faster, limits, strict=True))
    for wrong in (None, "fast", -0.1, 2.1):
        with pytest.raises(ValueError, match=rf"speed={wrong}: must be a number in \[0, 2\]"):
            values_at(schedule, wrong)
    assert not can_be_scaled(parse_reduction({"method": "grid", "site": "inputs", "num_keep": 3}))
