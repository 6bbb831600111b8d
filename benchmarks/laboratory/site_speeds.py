"""How much each row of the study of sites has to cut, so that a prefill is a given number of times as fast."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pumer_hf.bench.throughput import interleaved_times, median_ratio

from .site_rows import UNREDUCED, SiteRow
from .speeds import closest, is_close

Schedule = list[dict[str, Any]]
FIRST_KEEPS = (0.0, 0.4, 0.8)
"""What each row keeps in the first measurement: the least that it can, and two other parts."""
CORRECTIONS = 2
"""How often the keep of a target is corrected by another measurement."""


@dataclass(frozen=True)
class Point:
    """A measured speed."""

    keep: float
    """The part of the image tokens that is left, in (0, 1)."""
    speed: float
    """How many times as fast as the unreduced model the prefill is: the median of the ratios of all rounds."""


@dataclass(frozen=True)
class RowSpeeds:
    """The measured speeds of a row."""

    place: str
    name: str
    points: tuple[Point, ...]

    @property
    def limit(self) -> float:
        """The highest measured speed."""
        return max(point.speed for point in self.points)

    def at(self, target: float) -> Point | None:
        """Return the measured point that is closest to a speed; None if none is close ([`is_close`])."""
        best = self.points[closest([point.speed for point in self.points], target)]
        return best if is_close(best.speed, target) else None

    def expected_keep(self, target: float, keeps: Sequence[float]) -> float:
        """Return the keep that should give a speed. Between two measured points, the time is linear in the keep.

        Args:
            target: the speed.
            keeps: the keeps to choose from.
        """
        known = sorted(self.points, key=lambda point: point.keep)
        times = np.interp(keeps, [point.keep for point in known], [1 / point.speed for point in known])
        return keeps[closest((1 / times).tolist(), target)]

    def with_points(self, points: Sequence[Point]) -> "RowSpeeds":
        """Return the same with more points."""
        return RowSpeeds(self.place, self.name, (*self.points, *points))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RowSpeeds":
        """Make the speeds from what `asdict` returns."""
        return cls(values["place"], values["name"], tuple(Point(**point) for point in values["points"]))


def keeps_of(row: SiteRow, num_tokens: int) -> list[float]:
    """Return the keeps that leave different numbers of tokens, ascending, without those that leave all."""
    return [number / num_tokens for number in range(1, num_tokens) if number / num_tokens >= row.lowest]


@dataclass(frozen=True)
class Stopwatch:
    """Measures the prefill of a model."""

    load: Callable[[Schedule | None], PreTrainedModel]
    """Loads the model with a schedule, in eval mode."""
    batch: Mapping[str, Tensor]
    """Prompts with their images, and `image_saliency`."""
    num_tokens: int
    """Image tokens of an image."""
    scorer: str | None
    """The folder of a trained scorer, for `lookahead`."""
    seconds: float
    """How long a measurement takes at least."""

    def prefill(self, schedule: Schedule | None) -> Callable[[], Any]:
        """Return a call that runs the image tower and the decoder once over the batch."""
        return partial(self.load(schedule), **inputs_for(self.batch, schedule or []), logits_to_keep=1)

    @torch.inference_mode()
    def measured(self, row: SiteRow, keeps: Sequence[float]) -> list[Point]:
        """Measure the speed of a row at several keeps in one interleaved run with the unreduced model."""
        calls = {UNREDUCED: self.prefill(None)}
        calls |= {str(keep): self.prefill(row.schedule(keep, self.scorer)) for keep in keeps}
        times = interleaved_times(calls, warmup=1, seconds=self.seconds)
        return [Point(keep, median_ratio(times[UNREDUCED], times[str(keep)])) for keep in keeps]

    def speeds(self, row: SiteRow, targets: Sequence[float]) -> RowSpeeds:
        """Measure a row at a few keeps, and then at those that should give the targets."""
        keeps = keeps_of(row, self.num_tokens)
        first = sorted({nearest(keeps, keep) for keep in FIRST_KEEPS})
        found = RowSpeeds(row.place, row.name, tuple(self.measured(row, first)))
        for _ in range(CORRECTIONS):
            known = {point.keep for point in found.points}
            wanted = {found.expected_keep(target, keeps) for target in targets if found.limit >= target}
            if not wanted - known:
                break
            found = found.with_points(self.measured(row, sorted(wanted - known)))
        return found


def nearest(numbers: Sequence[float], wanted: float) -> float:
    """Return the one of some numbers that is nearest to a given one."""
    return min(numbers, key=lambda number: abs(number - wanted))


def inputs_for(batch: Mapping[str, Any], schedule: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a model with a schedule reads of a batch: a map only for the method that needs it."""
    needs_map = any(part["method"] == "grounded" for part in schedule)
    return {name: value for name, value in batch.items() if needs_map or name != "image_saliency"}
