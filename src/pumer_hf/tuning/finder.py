"""Finds, among the scaled forms of a schedule, those that measure given speeds. What measures is given."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np

from ..models.budget import Search
from ..reducers import Schedule
from .curves import closest, distance, is_close, speed_curve, spread

TOLERANCE = 0.03
"""The part of its target by which a measured speed may be off."""
MAX_RUNS = 8
"""How often schedules are measured at most."""
CONFIRMED = 2
"""A schedule that is close counts after so many measurements, since its first one may have been close by chance."""
REPEATS = 3
"""After so many measurements, the speed of a schedule is known well."""
COUNTED = 3
"""How many schedules' FLOPs are counted before the first measurement. Those of the others follow from their tokens."""
FURTHER = 1.25
"""The second guess gains so many times as much as asked for, since few machines turn all saved FLOPs into speed."""
MeasureSpeeds = Callable[[Sequence[int]], Sequence[float]]
"""Measures how many times as fast as unreduced the model is with some options of a search, in one interleaved run."""


@dataclass(frozen=True)
class Found:
    """The schedule that was found for a speed."""

    target: float
    """The speed that was asked for."""
    schedule: Schedule
    speed: float
    """The median of its measured speeds."""
    flops: float
    """The part of the unreduced model's FLOPs that it spends on the reference input."""
    measured: int
    """How often it was measured."""
    highest: float
    """The highest measured speed of all schedules that were tried."""
    tokens: tuple[tuple[int, int], ...]
    """The text and image tokens of the reference input that leave each layer of each site."""

    @property
    def is_close(self) -> bool:
        """Whether the speed is within `TOLERANCE` of the target."""
        return is_close(self.speed, self.target, TOLERANCE)

    @property
    def is_reached(self) -> bool:
        """Whether some schedule is as fast as the target, within `TOLERANCE`."""
        return self.is_close or self.highest > self.target


class Finder:
    """The search for schedules with given speeds.

    Each measurement serves all later ones: the speed of a schedule that was not measured lies on the line between
    those that were ([`speed_curve`]).

    Args:
        search: the scaled forms of a schedule.
        measure: measures some of them.
        on_run: called before each measurement, with what is measured in words.
        tolerance: the part of its target by which a measured speed may be off.
    """

    def __init__(
        self,
        search: Search,
        measure: MeasureSpeeds,
        on_run: Callable[[str], None] = lambda words: None,
        tolerance: float = TOLERANCE,
    ):
        self.search, self.measure, self.on_run, self.tolerance = search, measure, on_run, tolerance
        self.measured: dict[int, list[float]] = {}
        for index in spread(len(search.options), COUNTED):
            search.part(index)

    @property
    def gains(self) -> list[float]:
        """How many times fewer FLOPs each option spends. Where they were not counted, they follow from the tokens."""
        search = self.search
        known = {search.tokens[index]: search.part(index) for index in search.known}
        tokens = sorted({**known, search.start: 1.0}.items())
        counts, spent = ([pair[index] for pair in tokens] for index in (0, 1))
        parts = np.interp(search.tokens, counts, spent)
        return [1 / min(part, 1.0) for part in parts.tolist()]

    def find(self, targets: Sequence[float]) -> list[Found]:
        """Return the schedule for each of some speeds, in their order. Each is above 1.

        It may be off its target: [`Found`] says so.
        """
        wanted = self.first_guesses(targets)
        for _ in range(MAX_RUNS):
            self.run(wanted)
            speeds = speed_curve(self.gains, list(self.middle), list(self.middle.values()))
            guesses = {index for target in targets for index in self.next_guess(speeds, target)}
            if not guesses:
                break
            wanted = sorted(guesses | self.doubtful())
        return [self.found(target) for target in targets]

    def next_guess(self, speeds: Sequence[float], target: float) -> list[int]:
        """Return the options to measure next for a target; none if it is found, or if there is nothing else to try.

        Args:
            speeds: the speeds of all options, by the line through the measured ones.
            target: the speed.
        """
        known = {index: distance(speed, target) for index, speed in self.middle.items() if self.is_confirmed(index)}
        nearest = min(known, key=known.__getitem__, default=None)
        if nearest is not None and known[nearest] <= math.log(1 + self.tolerance):
            return []
        # what was measured counts more than the line, which lies between measurements that contradict each other
        likely = {index: distance(self.middle.get(index, speed), target) for index, speed in enumerate(speeds)}
        rest = [index for index in likely if len(self.measured.get(index, [])) < REPEATS]
        best = min(rest, key=likely.__getitem__, default=None)
        if nearest is None or (best is not None and likely[best] < known[nearest]):
            return [] if best is None else [best]
        return [index for index in (nearest - 1, nearest + 1) if index in likely and index not in self.measured]

    def first_guesses(self, targets: Iterable[float]) -> list[int]:
        """Return the options whose FLOPs promise the targets and a little more, and the most reduced one."""
        gains = self.gains
        promised = [gain for target in targets for gain in (target, 1 + FURTHER * (target - 1))]
        return sorted({*(closest(gains, gain) for gain in promised), len(gains) - 1})

    def run(self, wanted: Sequence[int]) -> None:
        """Measure some options in one run."""
        self.on_run(f"{len(wanted)} schedule{'s' * (len(wanted) > 1)}")
        speeds = self.measure(wanted)
        for index, speed in zip(wanted, speeds, strict=True):
            self.search.part(index)  # counts its FLOPs
            self.measured.setdefault(index, []).append(speed)

    @property
    def middle(self) -> Mapping[int, float]:
        """The median speed of each option that was measured."""
        return {index: median(speeds) for index, speeds in self.measured.items()}

    def doubtful(self) -> set[int]:
        """Return the options to measure again, since one of them seems faster than another that is more reduced."""
        ranked = sorted(self.middle, key=lambda index: self.gains[index])
        most = 1 + self.tolerance
        pairs = {pair for pair in pairwise(ranked) if self.middle[pair[0]] > most * self.middle[pair[1]]}
        return {index for pair in pairs for index in pair if len(self.measured[index]) < REPEATS}

    def is_confirmed(self, index: int) -> bool:
        """Return whether an option was measured more than once."""
        return len(self.measured[index]) >= CONFIRMED

    def found(self, target: float) -> Found:
        """Return the option that is closest to a target, of those that were measured more than once."""
        speeds = self.middle
        confirmed = [index for index in sorted(speeds) if self.is_confirmed(index)]
        index = min(confirmed or sorted(speeds), key=lambda one: distance(speeds[one], target))
        option = self.search.options[index]
        return Found(
            target=target,
            schedule=option,
            speed=speeds[index],
            flops=self.search.part(index),
            measured=len(self.measured[index]),
            highest=max(speeds.values()),
            tokens=self.search.counter.announced(self.search.used(option)),
        )
