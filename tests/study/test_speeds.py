import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES
from tiny_tasks import REDUCTION

from pumer_hf.bench.cost import measure_size
from pumer_hf.study.methods import ABLATIONS
from pumer_hf.study.speeds import CAP, changed, distinct_schedules, is_reached, scaled, scales, search, with_factors

SCHEDULE = {"method": "pumer", "layers": [0, 2], "prune_ratio": [0.05, 0.4], "image_merge_ratio": 0.2}


class Clock:
    """Speeds by index, each measured once."""

    def __init__(self, speeds):
        self.speeds, self.asked = speeds, []

    def __call__(self, index):
        assert index not in self.asked
        self.asked.append(index)
        return self.speeds[index]


ascending = st.lists(st.floats(1.01, 4.0), min_size=1, max_size=60, unique=True).map(sorted)


def find(gains, target, clock):
    return search(len(gains), gains.__getitem__, clock, target)


@given(gains=ascending, target=st.floats(1.05, 3.5), efficiency=st.floats(0.4, 1.5))
def test_search_finds_the_closest_and_measures_few(gains, target, efficiency):
    clock = Clock([1 + efficiency * (gain - 1) for gain in gains])
    best, measured = find(gains, target, clock)
    closest = min(abs(math.log(speed / target)) for speed in clock.speeds)
    assert abs(math.log(clock.speeds[best] / target)) == pytest.approx(closest)
    assert measured == {index: clock.speeds[index] for index in clock.asked}
    assert len(clock.asked) <= math.log2(len(gains)) + 4


def test_a_good_bracket_saves_measurements():
    gains = [1 + step / 100 for step in range(1, 301)]
    clock = Clock([0.95 * gain for gain in gains])
    best, _ = find(gains, 1.7, clock)
    assert clock.speeds[best] == pytest.approx(1.7, abs=0.01)
    assert len(clock.asked) <= 9
    assert all(0.75 * 1.7 < gains[index] < 1.3 * 1.7 for index in clock.asked)


def test_out_of_reach_gives_the_last():
    best, measured = find([1.2, 1.5, 1.9], 2.2, Clock([1.1, 1.3, 1.6]))
    assert best == 2
    assert not is_reached(measured[best], 2.2)


def test_nothing_to_search_is_an_error():
    with pytest.raises(ValueError, match="no schedule saves anything"):
        find([], 1.7, Clock([]))


def test_reached_within_tolerance():
    assert is_reached(1.62, 1.7)
    assert not is_reached(1.6, 1.7)
    assert is_reached(0.5, None)


def test_scaled_ratios_are_capped():
    assert scaled(SCHEDULE, 2) == {**SCHEDULE, "prune_ratio": [0.1, 0.8], "image_merge_ratio": 0.4}
    assert scaled(SCHEDULE, 3)["prune_ratio"] == [0.15, CAP]
    assert scaled(SCHEDULE, 1) == SCHEDULE
    assert with_factors(SCHEDULE, {"prune_ratio": 0.0}) == {**SCHEDULE, "prune_ratio": [0.0, 0.0]}


def test_scales_go_from_nothing_to_the_cap():
    factors = scales(SCHEDULE)
    assert factors == sorted(factors)
    assert scaled(SCHEDULE, factors[0])["prune_ratio"][1] == pytest.approx(0.05)
    last = scaled(SCHEDULE, factors[-1])
    assert {*last["prune_ratio"], last["image_merge_ratio"]} == {CAP}
    with pytest.raises(ValueError, match="no ratio above 0"):
        scales({"method": "pumer", "layers": [0], "prune_ratio": 0.0})


def test_a_variant_changes_what_it_names():
    found = {**SCHEDULE, "text_merge_ratio": 0.3}
    variants = ABLATIONS["pumer"]
    assert changed(found, variants["without_pruning"]) == {**found, "prune_ratio": [0.0, 0.0]}
    merged = changed(found, variants["without_merging"])
    assert merged == {**found, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0}
    assert changed(found, variants["late_layers"]) == {**found, "layers": [3, 4]}
    assert changed(found, variants["without_distillation"]) == found


@pytest.mark.parametrize("family", FAMILIES)
def test_schedules_of_a_real_model(family):
    example = {name: value[:1] for name, value in FAMILIES[family].inputs().items()}
    student = FAMILIES[family].model(reduction=REDUCTION)
    options = distinct_schedules(student, REDUCTION, 9, FAMILIES[family].num_image)
    assert len(options) > 10
    whole, _ = measure_size(FAMILIES[family].model(), example)
    gflops = []
    for option in (options[0], options[len(options) // 2], options[-1]):
        student.set_reduction(option)
        gflops.append(measure_size(student, example)[0])
    assert whole > gflops[0] > gflops[1] > gflops[2]
    assert max(options[-1]["prune_ratio"]) == CAP
