import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumer_hf.tuning.curves import closest, is_close, speed_curve, spread

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
    assert is_close(1.62, 1.7, 0.05)
    assert is_close(1.78, 1.7, 0.05)
    assert not is_close(1.6, 1.7, 0.05)
    assert not is_close(1.8, 1.7, 0.05)
