"""One part of a schedule as sliders: one number per ratio, the mean over the layers that reduce."""

from collections.abc import Mapping
from dataclasses import replace
from math import floor
from statistics import mean
from typing import Any

from ..reducers import ReductionConfig

MAX_RATIO = 0.95
"""The most that a layer is asked to prune."""
MAX_MERGE_RATIO = 0.5
"""The most that a layer can merge away: half of its tokens ([`ops.max_merges`])."""
STEP = 0.005


def slider_values(part: ReductionConfig) -> dict[str, float]:
    """The ratios of a part, each the mean over its layers, to three decimals."""
    return {name: round(mean(part.ratio(name, layer) for layer in part.layers), 3) for name in part.ratios}


def slider_limits(part: ReductionConfig) -> dict[str, float]:
    """How far each slider goes: to the mean at which one layer does as much as a layer can. The others keep their part
    of it ([`moved`]). A part that asks for more than that itself is the limit.
    """
    limits = {}
    for name, value in slider_values(part).items():
        highest = max(part.ratio(name, layer) for layer in part.layers)
        most = MAX_MERGE_RATIO if name.endswith("merge_ratio") else MAX_RATIO
        reached = most * value / highest if highest else most
        limits[name] = max(round(floor(reached / STEP + 1e-6) * STEP, 3), value)
    return limits


def moved(part: ReductionConfig, values: Mapping[str, Any]) -> ReductionConfig:
    """The part whose ratios have other means. A ratio that differs from layer to layer is scaled.

    Args:
        part: to start from. A slider that is where [`slider_values`] puts it changes nothing.
        values: the new means by name, each a number from 0 to that of [`slider_limits`].

    Raises:
        ValueError: a value is no number, or out of its range.
    """
    limits = slider_limits(part)
    for name, old in slider_values(part).items():
        new = values[name]
        if isinstance(new, bool) or not isinstance(new, (int, float)) or not 0 <= new <= limits[name]:
            raise ValueError(f"{name}={new}: must be a number in [0, {limits[name]:g}]")
        if abs(new - old) > STEP / 2:
            of_every_layer: dict[str, Any] = {name: new}
            part = part.scaled({name: new / old}) if old else replace(part, **of_every_layer)
    return part


def in_words(part: ReductionConfig, layer: int) -> str:
    """What a part of a schedule asks of a layer: `prune 0.05, image merge 0.4, text merge 0.2`."""
    return ", ".join(f"{title(name).lower()} {part.ratio(name, layer):.3g}" for name in part.ratios)


def title(name: str) -> str:
    """`image_merge_ratio` -> `Image merge`."""
    return name.removesuffix("_ratio").replace("_", " ").capitalize()
