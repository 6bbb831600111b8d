"""Schedules as sliders: one number per ratio, the mean over the reduction layers."""

from collections.abc import Mapping
from statistics import mean
from typing import Any

from ..reducers import ReductionConfig

MAX_RATIO = 0.95
STEP = 0.005


def slider_values(schedule: ReductionConfig) -> dict[str, float]:
    """The ratios of a schedule, each the mean over its layers, to three decimals."""
    return {name: round(mean(schedule.ratio(name, layer) for layer in schedule.layers), 3) for name in schedule.ratios}


def moved(schedule: ReductionConfig, values: Mapping[str, float]) -> dict[str, Any]:
    """A schedule whose ratios have other means; a ratio that differs from layer to layer is scaled.

    Args:
        schedule: to start from. A slider that is where [`slider_values`] puts it changes nothing.
        values: the new means by name, each in [0, `MAX_RATIO`], beyond which no layer goes either.
    """
    fields = schedule.to_dict()
    for name, old in slider_values(schedule).items():
        new = values[name]
        if not 0 <= new <= MAX_RATIO:
            raise ValueError(f"{name}={new}: must be in [0, {MAX_RATIO}]")
        if abs(new - old) > STEP / 2:
            shares = [schedule.ratio(name, layer) / old if old else 1.0 for layer in schedule.layers]
            fields[name] = [min(new * share, MAX_RATIO) for share in shares]
    return fields


def in_words(schedule: ReductionConfig, layer: int) -> str:
    """What a schedule asks of a layer: `prune 0.05, image merge 0.4, text merge 0.2`."""
    return ", ".join(f"{title(name).lower()} {schedule.ratio(name, layer):.3g}" for name in schedule.ratios)


def title(name: str) -> str:
    """`image_merge_ratio` -> `Image merge`."""
    return name.removesuffix("_ratio").replace("_", " ").capitalize()
