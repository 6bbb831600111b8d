"""`keep_mass`: how many patches each example keeps, and which fields go together."""

import pytest
import torch

from pumer_hf.demo.schedules import in_words, moved, slider_limits, slider_start
from pumer_hf.recipes.run_plan import part_words
from pumer_hf.reducers import parse_method
from pumer_hf.reducers.mass import numbers_by_mass

LOOKAHEAD = {"method": "lookahead", "site": "inputs"}


def needed(attention, keep_mass):
    """Slow: take the highest ones until they hold the part."""
    held = 0.0
    for number, value in enumerate(sorted(attention, reverse=True), start=1):
        held += value
        if held >= keep_mass - 1e-5:
            return number
    return len(attention)


@pytest.mark.parametrize("keep_mass", [0.5, 0.8, 0.99])
def test_as_many_patches_as_hold_the_part(keep_mass):
    generator = torch.Generator().manual_seed(0)
    attention = torch.randn(20, 12, generator=generator).mul(3).softmax(dim=1)
    numbers = numbers_by_mass(attention, torch.ones_like(attention, dtype=torch.bool), keep_mass)
    assert numbers.tolist() == [needed(row, keep_mass) for row in attention.tolist()]
    assert len(set(numbers.tolist())) > 2


def test_equal_predictions_padding_and_limits():
    attention = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.9, 0.1, 0.0, 0.0]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    assert numbers_by_mass(attention, mask, 0.5).tolist() == [2, 1]
    assert numbers_by_mass(attention, mask, 0.95).tolist() == [4, 2]
    assert numbers_by_mass(attention, mask, 1.0).tolist() == [4, 2]
    assert numbers_by_mass(attention, mask, 0.5, min_keep=3).tolist() == [3, 2]
    assert numbers_by_mass(attention, mask, 0.95, max_keep=1).tolist() == [1, 1]


def test_a_part_says_its_mass_and_is_scaled_by_what_it_does_not_keep():
    part = parse_method({**LOOKAHEAD, "keep_mass": 0.8, "max_keep": 9})
    assert part.to_dict().items() >= {"keep_mass": 0.8, "max_keep": 9}.items()
    assert "min_keep" not in part.to_dict()
    assert parse_method(part.to_dict()) == part
    free = parse_method({**LOOKAHEAD, "keep_mass": 0.8})
    assert free.scaled(0.5).keep_mass == pytest.approx(0.9)
    assert free.scaled(0).keep_mass == 1
    assert (part.num_kept_patches(36), part.num_kept_patches(4)) == (9, 4)
    other = part.with_amount(keep_ratio=0.5)
    assert (other.keep_ratio, other.keep_mass, other.max_keep) == (0.5, None, None)
    assert part.varies
    assert not other.varies
    assert "keep_mass=0.8, max_keep=9" in part_words(part)
    assert in_words(part, 0) == "keep mass 0.8"
    assert slider_limits(part) == {"keep_mass": 1.0}
    assert slider_start("keep_mass") > 0
    assert moved(part, {"keep_mass": 0.6}).keep_mass == 0.6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep_mass": 0.0}, r"reduction\.keep_mass=0\.0: .*\(0, 1\]"),
        ({"keep_mass": 1.5}, r"reduction\.keep_mass=1\.5"),
        ({"keep_mass": 0.8, "keep_ratio": 0.5}, r"reduction\.keep_ratio=0\.5 and .*keep_mass=0\.8: give one"),
        ({"keep_mass": 0.8, "min_keep": 0}, r"reduction\.min_keep=0: .*at least 1"),
        ({"keep_mass": 0.8, "min_keep": True}, r"reduction\.min_keep=True"),
        ({"keep_mass": 0.8, "min_keep": 4, "max_keep": 3}, r"reduction\.max_keep=3: .*at least 4"),
        ({"keep_ratio": 0.5, "max_keep": 3}, r"reduction\.max_keep=3: goes with keep_mass"),
        ({"keep_ratio": 0.5, "min_keep": 3}, r"reduction\.min_keep=3: goes with keep_mass"),
        ({"keep_mass": 0.8, "merge_rest": True}, r"reduction\.merge_rest=True: .*keep_mass=0\.8"),
        ({"keep_mass": 0.8, "site": "tower", "layers": [1]}, r"reduction\.keep_mass=0\.8: .*keep_ratio"),
    ],
)
def test_what_does_not_go_together_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        parse_method({**LOOKAHEAD, **fields})


def test_a_most_number_of_patches_cannot_be_scaled():
    part = parse_method({**LOOKAHEAD, "keep_mass": 0.8, "max_keep": 24})
    assert part.scaled(1.0) == part
    with pytest.raises(ValueError, match="reduction.max_keep=24: a number cannot be scaled"):
        part.scaled(0.0)
