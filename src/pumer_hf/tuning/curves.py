"""The speed of scaled schedules, from the measured speeds of a few. The studies of this project use it too."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np


def spread(number: int, count: int) -> list[int]:
    """Choose at most `count` of the indices 0 to `number - 1`, evenly spread. The last index is always chosen.

    Raises:
        ValueError: there is no index to choose.
    """
    if number < 1:
        raise ValueError("no schedule saves anything: there is nothing to measure")
    return sorted({round((step + 1) * number / min(count, number)) - 1 for step in range(min(count, number))})


def speed_curve(gains: Sequence[float], points: Sequence[int], speeds: Sequence[float]) -> list[float]:
    """Compute the speed of every option from the measured speeds of a few.

    The speed grows with the saved FLOPs. Measurements that contradict this are averaged (isotonic regression). Between
    two measured options, the speed is linear.

    Args:
        gains: the FLOPs of the unreduced model as multiples of each option's, all above 1. The unreduced model has the
            gain 1 and the speed 1.
        points: indices of the options that were measured.
        speeds: their speeds.

    Returns:
        A speed for each option.
    """
    ranked = sorted((gains[point], speed) for point, speed in zip(points, speeds, strict=True))
    blocks: list[list[float]] = []  # neighbours whose speeds fall are pooled
    for _, speed in ranked:
        blocks.append([speed])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    smooth = [fmean(block) for block in blocks for _ in block]
    return np.interp(gains, [1.0, *(gain for gain, _ in ranked)], [1.0, *smooth]).tolist()


def closest(curve: Sequence[float], target: float) -> int:
    """Return the index of the option whose speed is closest to a target. Of equal ones, it is the first."""
    return min(range(len(curve)), key=lambda index: distance(curve[index], target))


def distance(speed: float, target: float) -> float:
    """Return how far a speed is from a target: the absolute logarithm of their ratio."""
    return abs(math.log(speed / target))


def is_close(speed: float, target: float, tolerance: float) -> bool:
    """Return whether a measured speed is within a part `tolerance` of the target."""
    return distance(speed, target) <= math.log(1 + tolerance)
