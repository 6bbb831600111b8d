"""Figures and durations for people."""

import pytest
from readable import unreadable

from pumer_hf.figures import duration, figure


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (2.5e-7, "0.00025 ms"),
        (0.0000456, "0.0456 ms"),
        (0.00123456, "1.23 ms"),
        (0.08, "80 ms"),
        (0.123456789012345, "123 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (1.04, "1.04 s"),
        (12.345, "12.3 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (65.2, "1 min 5 s"),
        (119.7, "2 min"),
        (3599.7, "1 h"),
        (3661, "1 h 1 min"),
        (7200, "2 h"),
        (100_000, "27 h 47 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3, "3"),
        (0.016812345678901, "0.01681"),
        (0.00001234567, "1.235e-05"),
        (-0.5, "-0.5"),
        (92.33333333333333, "92.33"),
        (999.94, "999.9"),
        (999.96, "1,000"),
        (1040.2, "1,040"),
        (12345.678, "12,346"),
        (1_234_567, "1,234,567"),
        (-4321.9, "-4,322"),
    ],
)
def test_figure(value, text):
    assert figure(value) == text


def test_what_is_unreadable_would_be_found():
    good = ["speed 1.04 s, 12,346 examples/s, 0.0001234 GFLOPs, 1.235e-05", "Written to {folder}"]
    bad = ["1.04e+03 ms", "accuracy 92.33333333333333 %", '{"accuracy": 92.3}', "[{'a': 1}]", "1234567 bytes"]
    assert unreadable([*good, *bad]) == bad
