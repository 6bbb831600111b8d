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
FIRST_KEEPS = (0.0, 0.6)
"""What each row keeps in the first measurement: the least that it can, and another part."""
CORRECTIONS = 2
"""How often the keep of a target is corrected by another measurement."""
CLOSE = 0.02
"""How far a measured speed may be off its target, as a part of it, so that no other keep is tried."""


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
        """Return the keep that should give a speed.

        Between two measured points, the time is linear in the keep. At a keep of 1, the speed is taken for 1.

        Args:
            target: the speed.
            keeps: the keeps to choose from.
        """
        known = sorted(self.points, key=lambda point: point.keep)
        times = np.interp(keeps, [*(point.keep for point in known), 1.0], [*(1 / point.speed for point in known), 1.0])
        return keeps[closest((1 / times).tolist(), target)]

    def missing_keeps(self, targets: Sequence[float], keeps: Sequence[float]) -> list[float]:
        """Return what should be measured next, so that there is a point at each of the speeds that can be reached.

        Args:
            targets: the speeds.
            keeps: the keeps to choose from, ascending.
        """
        known = {point.keep for point in self.points}
        best = {target: min(abs(point.speed / target - 1) for point in self.points) for target in targets}
        open_targets = [target for target in targets if best[target] > CLOSE and self.limit > target]
        return sorted({self.expected_keep(target, keeps) for target in open_targets} - known)

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
        """Measure rows at a few keeps, and then at those that should give the targets."""
        keeps = {row: keeps_of(row, self.num_tokens) for row in rows}
        wanted = {row: sorted({nearest(keeps[row], keep) for keep in FIRST_KEEPS}) for row in rows}
        found = {row: RowSpeeds(row.place, row.name, ()) for row in rows}
        for _ in range(1 + CORRECTIONS):
            for row, points in (self.measured(wanted) if wanted else {}).items():
                found[row] = found[row].with_points(points)
            missing = {row: found[row].missing_keeps(targets, keeps[row]) for row in rows}
            wanted = {row: parts for row, parts in missing.items() if parts}
        return list(found.values())


def nearest(numbers: Sequence[float], wanted: float) -> float:
    """Return the one of some numbers that is nearest to a given one."""
    return min(numbers, key=lambda number: abs(number - wanted))


def inputs_for(batch: Mapping[str, Any], schedule: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a model with a schedule reads of a batch: a map only for the method that needs it."""
    needs_map = any(part["method"] == "grounded" for part in schedule)
    return {name: value for name, value in batch.items() if needs_map or name != "image_saliency"}
