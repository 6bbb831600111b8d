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
    """

    parts: tuple[ReductionConfig, ...]

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
        """Return the same schedule with every ratio multiplied by `factor`, a number in [0, 1]."""
        if not 0 <= factor <= 1:
            raise ValueError(f"factor={factor}: must be in [0, 1]")
        return Schedule(tuple(part.scaled(factor) for part in self.parts))

    def to_dict(self) -> PlainSchedule:
        """Return the schedule as a config saves it. `parse_reduction` reads this form."""
        parts = [part.to_dict() for part in self.parts]
        return parts[0] if len(parts) == 1 else parts
