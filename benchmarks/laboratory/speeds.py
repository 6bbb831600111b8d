"""Finds how far to scale a schedule, so that a student runs a given number of times as fast as its teacher."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from pumer_hf.models.encoders.base import PuMerPreTrainedModel
from pumer_hf.reducers import Schedule, parse_method
from pumer_hf.reducers.base import HIGHEST

from .methods import Variant

TOLERANCE = 0.05
"""The part of its target by which a measured speed may be off."""
SCALES = 400
"""How many scales to try. Far fewer give different schedules, since the number of tokens is whole."""


@dataclass(frozen=True)
class Option:
    """One way to run a student."""

    reduction: dict[str, Any] | None
    image_size: int | None = None
    """Side of the images in pixels; None for the teacher's."""


def with_factors(
    schedule: Mapping[str, Any], factors: float | Mapping[str, float], caps: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Multiply the ratios of a schedule ([`ReductionConfig.scaled`]), and leave its other fields as they are."""
    part = parse_method(schedule)
    times = part.scaled(factors, caps)
    changed = factors if isinstance(factors, Mapping) else part.given_ratios
    return {**schedule, **{name: times.to_dict()[name] for name in changed}}


def changed(schedule: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """Change a found schedule as an ablation says."""
    caps = dict.fromkeys(variant.factors, HIGHEST)
    return {**with_factors(schedule, variant.factors, caps), **variant.fields}


def distinct_schedules(
    model: PuMerPreTrainedModel, schedule: Mapping[str, Any], num_text: int, num_image: int
) -> list[dict[str, Any]]:
    """Return the scaled schedules that leave different numbers of tokens, from the most to the fewest tokens.

    Args:
        model: a student of the method. Its reduction is changed.
        schedule: the schedule to scale.
        num_text: text tokens that come into the first layer.
        num_image: image tokens that come into the first layer.
    """
    by_total: dict[int, dict[str, Any]] = {}
    for factor in Schedule((parse_method(schedule),)).factors(SCALES):
        option = with_factors(schedule, factor)
        model.set_reduction(option)
        by_total.setdefault(sum(map(sum, model.output_lengths(num_text, num_image))), option)
    model.set_reduction(None)
    by_total.pop(sum(map(sum, model.output_lengths(num_text, num_image))), None)
    return [by_total[total] for total in sorted(by_total, reverse=True)]


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
        gains: the FLOPs of the teacher as multiples of each option's, all above 1. The teacher has the gain 1 and the
            speed 1.
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
    return min(range(len(curve)), key=lambda index: abs(math.log(curve[index] / target)))


def is_close(ratio: float, target: float) -> bool:
    """Return whether a measured speed is within `TOLERANCE` of the target."""
    return abs(math.log(ratio / target)) <= math.log(1 + TOLERANCE)
