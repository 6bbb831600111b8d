"""Finds how far to scale a schedule, so that a student runs a given number of times as fast as its teacher."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
