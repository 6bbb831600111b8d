"""Shows the parts of a schedule as sliders. Each ratio has a slider: the mean over the layers that reduce."""

from collections.abc import Mapping
from dataclasses import replace
from math import floor
from statistics import mean
from typing import Any

from ..reducers import ReductionConfig, Schedule
from ..reducers.keeping import KEPT, KeepingConfig

MAX_RATIO = 0.95
"""The largest part of its tokens that a slider lets a layer prune."""
MAX_MERGE_RATIO = 0.5
"""The largest part of its tokens that a layer can merge into others ([`ops.max_merges`])."""
STEP = 0.005
FASTEST = 2.0
"""The end of the slider of speed. At 1 it is the model's own schedule."""


def slider_values(part: ReductionConfig) -> dict[str, float]:
    """Return the ratios of a part, each as the mean over its layers, to three decimals.

    A part that keeps a number of patches has no ratio.
    """
    return {name: round(mean(ratios_of(part, name)), 3) for name in part.given_ratios}


def ratios_of(part: ReductionConfig, name: str) -> list[float]:
    """Return a ratio of a part for each layer that it names, or the only value if it names none."""
    return [part.ratio(name, layer) for layer in part.layers or (0,)]


def slider_start(name: str) -> float:
    """Return the lowest value of a slider: 0, or one step for the part of the patches to keep."""
    return STEP if name in KEPT else 0.0


def slider_limits(part: ReductionConfig) -> dict[str, float]:
    """Return the end of each slider: the mean at which the layer with the highest ratio has the largest one possible.

    The ratios of the other layers grow by the same factor ([`moved`]). If the part itself has a higher mean, that is
    the end.
    """
    limits = {}
    for name, value in slider_values(part).items():
        highest = max(ratios_of(part, name))
        if name in KEPT:
            limits[name] = 1.0
            continue
        most = MAX_MERGE_RATIO if name.endswith("merge_ratio") else MAX_RATIO
        reached = most * value / highest if highest else most
        limits[name] = max(round(floor(reached / STEP + 1e-6) * STEP, 3), value)
    return limits


def moved(part: ReductionConfig, values: Mapping[str, Any]) -> ReductionConfig:
    """Return the part with other means of its ratios. A ratio that differs from layer to layer is scaled.

    Args:
        part: the part to start from. A slider at the value of [`slider_values`] changes nothing.
        values: the new means by name, each a number from its start ([`slider_start`]) to its limit
            ([`slider_limits`]).

    Raises:
        ValueError: a value is not a number, or is out of range.
    """
    limits = slider_limits(part)
    for name, old in slider_values(part).items():
        new, start = values[name], slider_start(name)
        if isinstance(new, bool) or not isinstance(new, (int, float)) or not start <= new <= limits[name]:
            raise ValueError(f"{name}={new}: must be a number in [{start:g}, {limits[name]:g}]")
        if abs(new - old) > STEP / 2:
            if old and isinstance(getattr(part, name), tuple):
                part = part.scaled({name: new / old}, caps={name: MAX_RATIO})
            else:
                same_everywhere: dict[str, Any] = {name: new}
                part = replace(part, **same_everywhere)
    return part


def can_be_scaled(schedule: Schedule) -> bool:
    """Return whether one slider can move all amounts of a schedule. It cannot if one is a number of patches."""
    try:
        schedule.scaled(0.0)
    except ValueError:
        return False
    return True


def values_at(schedule: Schedule, speed: Any) -> list[float]:
    """Return the values of the sliders of a schedule whose ratios are all multiplied by a number.

    Args:
        schedule: the model's own schedule.
        speed: the number, from 0 for nothing reduced to [`FASTEST`].

    Raises:
        ValueError: it is no number, or out of range.
    """
    if isinstance(speed, bool) or not isinstance(speed, (int, float)) or not 0 <= speed <= FASTEST:
        raise ValueError(f"speed={speed}: must be a number in [0, {FASTEST:g}]")
    values = []
    for part, scaled in zip(schedule.parts, schedule.scaled(speed).parts, strict=True):
        limits = slider_limits(part)
        values += [min(value, limits[name]) for name, value in slider_values(scaled).items()]
    return values


def part_of(schedule: Schedule, site: str, layer: int) -> ReductionConfig:
    """Return the part of a schedule that works in a layer of a site."""
    return next(part for part in schedule.parts if part.site == site and part.reduces(layer))


def in_words(part: ReductionConfig, layer: int) -> str:
    """Return what a part asks of a layer in words, such as `prune 0.05, image merge 0.4` or `keep 7 patches`."""
    if isinstance(part, KeepingConfig) and part.num_keep is not None:
        return f"keep {part.num_keep} {'patch' if part.num_keep == 1 else 'patches'}"
    return ", ".join(f"{title(name).lower()} {part.ratio(name, layer):.3g}" for name in part.given_ratios)


def title(name: str) -> str:
    """Turn the name of a ratio into a title: `image_merge_ratio` becomes `Image merge`."""
    return name.removesuffix("_ratio").replace("_", " ").capitalize()
