import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FAMILIES
from tiny_tasks import REDUCTION

from laboratory.methods import ABLATIONS
from laboratory.speeds import (
    changed,
    closest,
    distinct_schedules,
    is_close,
    speed_curve,
    spread,
    with_factors,
)
from pumer_hf.bench.cost import measure_size
from pumer_hf.reducers.base import HIGHEST, HIGHEST_MERGE

SCHEDULE = {
    "method": "pumer",
    "layers": [0, 2],
    "prune_ratio": [0.05, 0.4],
    "image_merge_ratio": 0.2,
    "text_merge_ratio": 0.0,
}


ascending = st.lists(st.floats(1.01, 4.0), min_size=1, max_size=60, unique=True).map(sorted)


@given(gains=ascending, target=st.floats(1.05, 3.5), efficiency=st.floats(0.4, 1.5))
def test_a_straight_curve_is_found_from_a_few_points(gains, target, efficiency):
    true = [1 + efficiency * (gain - 1) for gain in gains]
    points = spread(len(gains), 6)
    assert len(points) == min(6, len(gains))
    assert points[-1] == len(gains) - 1
    curve = speed_curve(gains, points, [true[point] for point in points])
    assert curve == pytest.approx(true)
    best = closest(curve, target)
    assert abs(math.log(true[best] / target)) == pytest.approx(min(abs(math.log(speed / target)) for speed in true))


def test_measurements_that_fall_are_averaged():
    gains = [1.5, 2.0, 2.5, 3.0]
    assert speed_curve(gains, [0, 1, 2, 3], [1.4, 1.9, 1.7, 2.5]) == pytest.approx([1.4, 1.8, 1.8, 2.5])
    assert speed_curve(gains, [0, 1, 2, 3], [2.0, 1.5, 1.0, 0.9]) == pytest.approx([1.35] * 4)
    assert speed_curve(gains, [1, 3], [1.8, 2.0]) == pytest.approx([1.4, 1.8, 1.9, 2.0])  # 1 at gain 1


def test_out_of_reach_gives_the_last():
    assert closest([1.1, 1.3, 1.6], 2.2) == 2


def test_nothing_to_measure_is_an_error():
    with pytest.raises(ValueError, match="no schedule saves anything"):
        spread(0, 6)


def test_close_within_tolerance():
    assert is_close(1.62, 1.7)
    assert is_close(1.78, 1.7)
    assert not is_close(1.6, 1.7)
    assert not is_close(1.8, 1.7)


def test_scaled_ratios_are_capped():
    assert with_factors(SCHEDULE, 2) == {**SCHEDULE, "prune_ratio": [0.1, 0.8], "image_merge_ratio": 0.4}
    assert with_factors(SCHEDULE, 3)["prune_ratio"] == [0.15, HIGHEST]
    assert with_factors(SCHEDULE, 3)["image_merge_ratio"] == HIGHEST_MERGE
    assert with_factors(SCHEDULE, 1) == SCHEDULE
    assert with_factors(SCHEDULE, {"prune_ratio": 0.0}) == {**SCHEDULE, "prune_ratio": [0.0, 0.0]}


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
    whole = measure_size(FAMILIES[family].model(), example).gflops
    gflops = []
    for option in (options[0], options[len(options) // 2], options[-1]):
        student.set_reduction(option)
        gflops.append(measure_size(student, example).gflops)
    assert whole > gflops[0] > gflops[1] > gflops[2]
    assert max(options[-1]["prune_ratio"]) == HIGHEST
