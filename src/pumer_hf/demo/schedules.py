"""Schedules as sliders: one number per ratio, the mean over the reduction layers."""

from collections.abc import Mapping
from math import floor
from statistics import mean
from typing import Any

from ..reducers import ReductionConfig

MAX_RATIO = 0.95
"""The most that a layer is asked to prune."""
MAX_MERGE_RATIO = 0.5
"""The most that a layer can merge away: half of its tokens ([`ops.max_merges`])."""
STEP = 0.005


def slider_values(schedule: ReductionConfig) -> dict[str, float]:
    """The ratios of a schedule, each the mean over its layers, to three decimals."""
    return {name: round(mean(schedule.ratio(name, layer) for layer in schedule.layers), 3) for name in schedule.ratios}


def slider_limits(schedule: ReductionConfig) -> dict[str, float]:
    """How far each slider goes: to the mean at which one layer does as much as a layer can. The others keep their part
    of it ([`moved`]). A schedule that asks for more than that itself is the limit.
    """
    limits = {}
    for name, value in slider_values(schedule).items():
        highest = max(schedule.ratio(name, layer) for layer in schedule.layers)
        most = MAX_MERGE_RATIO if name.endswith("merge_ratio") else MAX_RATIO
        reached = most * value / highest if highest else most
        limits[name] = max(round(floor(reached / STEP + 1e-6) * STEP, 3), value)
    return limits


def moved(schedule: ReductionConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule whose ratios have other means; a ratio that differs from layer to layer is scaled.

    Args:
        schedule: to start from. A slider that is where [`slider_values`] puts it changes nothing.
        values: the new means by name, each a number from 0 to that of [`slider_limits`].

    Raises:
        ValueError: a value is no number, or out of its range.
    """
    fields = schedule.to_dict()
    limits = slider_limits(schedule)
    for name, old in slider_values(schedule).items():
        new = values[name]
        if isinstance(new, bool) or not isinstance(new, (int, float)) or not 0 <= new <= limits[name]:
            raise ValueError(f"{name}={new}: must be a number in [0, {limits[name]:g}]")
        if abs(new - old) > STEP / 2:
            shares = [schedule.ratio(name, layer) / old if old else 1.0 for layer in schedule.layers]
            fields[name] = [new * share for share in shares]
    return fields


def in_words(schedule: ReductionConfig, layer: int) -> str:
    """What a schedule asks of a layer: `prune 0.05, image merge 0.4, text merge 0.2`."""
    return ", ".join(f"{title(name).lower()} {schedule.ratio(name, layer):.3g}" for name in schedule.ratios)


def title(name: str) -> str:
    """`image_merge_ratio` -> `Image merge`."""
    return name.removesuffix("_ratio").replace("_", " ").capitalize()
