"""How much each row of the study of sites has to cut, so that a prefill is a given number of times as fast."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from pumer_hf.bench.throughput import interleaved_times, median_ratio
from pumer_hf.tuning.curves import closest, is_close

from .records import TOLERANCE
from .site_rows import UNREDUCED, SiteRow

Schedule = list[dict[str, Any]]
FIRST_KEEPS = (0.0, 0.6)
"""What each row keeps in the first measurement: the least that it can, and another part."""
CORRECTIONS = 3
"""How often the keeps of the targets are measured, each time those that all measurements before suggest."""


@dataclass(frozen=True)
class Point:
    """A measured speed."""

    keep: float
    """The part of the image tokens that is left, in (0, 1)."""
    speed: float
    """How many times as fast as the unreduced model the prefill is: the median of the ratios of all rounds."""


@dataclass(frozen=True)
class RowSpeeds:
    """The measured speeds of a row.

    The time of a prefill is taken for a line over the keep. So each measured point helps to tell the speed of any
    keep, and the noise of single measurements matters less.
    """

    place: str
    name: str
    keeps: tuple[float, ...]
    """All keeps that leave different numbers of tokens, ascending."""
    points: tuple[Point, ...]
    """What was measured, with at least two different keeps."""

    def speed(self, keep: float) -> float:
        """Return the speed at a keep, by the line through all measured times."""
        slope, start = np.polyfit(
            [point.keep for point in self.points], [1 / point.speed for point in self.points], deg=1
        )
        return float(1 / (start + slope * keep))

    @property
    def limit(self) -> float:
        """The speed at the lowest keep."""
        return self.speed(self.keeps[0])

    def expected(self, target: float) -> Point:
        """Return the keep whose speed is closest to a target."""
        speeds = [self.speed(keep) for keep in self.keeps]
        best = closest(speeds, target)
        return Point(self.keeps[best], speeds[best])

    def at(self, target: float) -> Point | None:
        """Return the keep for a target; None if the row does not come close to it ([`is_close`])."""
        best = self.expected(target)
        return best if is_close(best.speed, target, TOLERANCE) else None

    def with_points(self, points: Sequence[Point]) -> "RowSpeeds":
        """Return the same with more points."""
        return replace(self, points=(*self.points, *points))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RowSpeeds":
        """Make the speeds from what `to_dict` returns."""
        points = tuple(Point(**point) for point in values["points"])
        return cls(values["place"], values["name"], tuple(values["keeps"]), points)

    def to_dict(self) -> dict[str, Any]:
        """Return the speeds as plain JSON types."""
        return {**vars(self), "keeps": list(self.keeps), "points": [vars(point) for point in self.points]}


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
    def measured(self, keeps: Mapping[SiteRow, Sequence[float]]) -> dict[SiteRow, list[Point]]:
        """Measure the speeds of rows, each at several keeps, in one interleaved run with the unreduced model."""
        calls = {UNREDUCED: self.prefill(None)}
        for row, parts in keeps.items():
            calls |= {f"{row.key} {keep}": self.prefill(row.schedule(keep, self.scorer)) for keep in parts}
        times = interleaved_times(calls, warmup=1, seconds=self.seconds)
        return {
            row: [Point(keep, median_ratio(times[UNREDUCED], times[f"{row.key} {keep}"])) for keep in parts]
            for row, parts in keeps.items()
        }

    def speeds(self, rows: Sequence[SiteRow], targets: Sequence[float]) -> list[RowSpeeds]:
        """Measure rows at a few keeps, and then, several times, at those that should give the targets."""
        keeps = {row: keeps_of(row, self.num_tokens) for row in rows}
        first = {row: sorted({nearest(keeps[row], keep) for keep in FIRST_KEEPS}) for row in rows}
        known = self.measured(first)
        found = {row: RowSpeeds(row.place, row.name, tuple(keeps[row]), tuple(known[row])) for row in rows}
        for _ in range(CORRECTIONS):
            wanted = {row: sorted({found[row].expected(target).keep for target in targets}) for row in rows}
            for row, points in self.measured(wanted).items():
                found[row] = found[row].with_points(points)
        return list(found.values())


def nearest(numbers: Sequence[float], wanted: float) -> float:
    """Return the one of some numbers that is nearest to a given one."""
    return min(numbers, key=lambda number: abs(number - wanted))


def inputs_for(batch: Mapping[str, Any], schedule: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a model with a schedule reads of a batch: a map only for the method that needs it."""
    needs_map = any(part["method"] == "grounded" for part in schedule)
    return {name: value for name, value in batch.items() if needs_map or name != "image_saliency"}
