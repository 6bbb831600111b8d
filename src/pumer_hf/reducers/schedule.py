"""`Schedule`: all that a model reduces, at one site or at several."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .base import SITES, ReductionConfig
from .several import SeveralConfig

PlainSchedule = dict[str, Any] | list[dict[str, Any]]
"""A schedule in plain JSON types: the dict of its only part, or a list with the dict of each part."""


@dataclass(frozen=True)
class Schedule:
    """All that a model reduces. It cannot be empty: a model that reduces nothing has None in its place.

    Args:
        parts: one or several for each site at which the model reduces, in any order. Several at one site each name
            layers of their own. The parts are kept in the order of [`SITES`] and of their first layers.
        flops: the part of the unreduced model's multiply-adds that the schedule may spend, in (0, 1). A model scales
            the ratios to it ([`Budget`]), and then has a schedule without it.
    """

    parts: tuple[ReductionConfig, ...]
    flops: float | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("reduction=[]: give at least one schedule, or None for a model that reduces nothing")
        ordered = sorted(self.parts, key=lambda part: (SITES.index(part.site), part.layers))
        object.__setattr__(self, "parts", tuple(ordered))
        for site in SITES:
            self.at(site)  # it raises an error if parts of a site name the same layers
        predicts = any(part.predicts for part in self.parts)
        for part in self.parts:
            if part.needs_prediction and not predicts:
                raise ValueError(
                    "reduction.saliency='lookahead' needs the prediction of a scorer: make reduction a list, and add "
                    "{'method': 'lookahead', 'site': 'inputs', 'keep_ratio': 1.0, 'weights': ...}"
                )
            if part.method == "grounded" and predicts:
                raise ValueError(
                    "reduction.method='grounded' prunes by a map from outside, and the part 'lookahead' replaces this "
                    "map by its prediction: use one of the two"
                )

    def at(self, site: str) -> ReductionConfig | None:
        """Return the part that works at a site; None if nothing is reduced there. Several are joined in one."""
        parts = [part for part in self.parts if part.site == site]
        return SeveralConfig.of(parts) if len(parts) > 1 else next(iter(parts), None)

    def with_learned(self, known: Sequence[ReductionConfig]) -> "Schedule":
        """Return the same schedule with the form of what the model has learned ([`ReductionConfig.with_learned`])."""
        return replace(self, parts=tuple(part.with_learned(known) for part in self.parts))

    def scaled(self, factor: float) -> "Schedule":
        """Return the same schedule with every ratio multiplied by `factor` ([`ReductionConfig.scaled`]).

        Args:
            factor: at least 0. At 0 nothing is reduced. Above 1, no ratio becomes higher than its cap.
        """
        if not 0 <= factor < float("inf"):
            raise ValueError(f"factor={factor}: must be a number of at least 0")
        return Schedule(tuple(part.scaled(factor) for part in self.parts))

    def factors(self, number: int) -> list[float]:
        """Return factors in equal steps of their logarithm: from almost 0 to the one that brings all ratios to caps.

        Args:
            number: how many factors, at least 2.

        Raises:
            ValueError: there is no ratio above 0 to scale, or a part has a number in the place of a ratio.
        """
        self.scaled(0.5)
        ends = [
            (part.highest(name), ratio)
            for part in self.parts
            for name in part.given_ratios
            for ratio in part.removed(name)
            if ratio > 0
        ]
        if not ends:
            raise ValueError(f"the schedule {self.to_dict()} has no ratio above 0 to scale")
        start, end = 0.05 / max(ratio for _, ratio in ends), max(cap / ratio for cap, ratio in ends)
        return [start * (end / start) ** (step / (number - 1)) for step in range(number)]

    def to_dict(self) -> PlainSchedule:
        """Return the schedule as a config saves it. `parse_reduction` reads this form."""
        parts = [part.to_dict() for part in self.parts]
        if self.flops is not None:
            parts[0]["flops"] = self.flops
        return parts[0] if len(parts) == 1 else parts
