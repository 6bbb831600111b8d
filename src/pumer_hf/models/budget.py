"""Scales a schedule until a model spends a given part of its unreduced FLOPs.

The FLOPs are those of one forward on a reference input: one example, whose numbers of tokens are stated. They are
counted, not estimated, so the image tower and the work of the method itself are among them. The schedules that are
tried differ in the numbers of tokens that they announce. So the same model always gets the same schedule.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch

from ..flops import FlopCounter
from ..reducers import ReductionConfig, Schedule, TokenReducer
from ..reducers.base import SITES
from ..reducers.mass import check_fixed_lengths
from ..reducers.several import joined

TOLERANCE = 0.01
"""How far the FLOPs may be from the budget, as a part of the unreduced model's."""
CLOSE = 0.001
"""Closer to the budget, no better schedule is searched for."""
NUM_FACTORS = 1000
"""How many factors to try. Far fewer give different numbers of tokens."""
MAX_GUESSES = 6
"""After so many guesses by the number of tokens, the search halves what is left."""


@dataclass(frozen=True)
class Budget:
    """For what the ratios of a schedule were found. A config holds it as `budget`."""

    flops: float
    """The budget: the part of the FLOPs of the unreduced model, in (0, 1)."""
    spent: float
    """The part that the schedule spends."""
    text_tokens: int
    """Tokens of the text of the reference input."""
    image_tokens: int
    """Image tokens of the reference input where they can first be reduced."""

    def to_dict(self) -> dict[str, Any]:
        """Return the budget as plain JSON types."""
        return asdict(self)


class Spent(NamedTuple):
    """The FLOPs of a forward. A multiply-add counts as one."""

    total: int
    before: int
    """Those before the first reduction, which no schedule with these layers changes."""


class ForwardCounter(ABC):
    """Counts the FLOPs of a model on its reference input, under any schedule.

    Args:
        depths: how many layers each site of the model has.
        text_tokens: those of the reference input.
        image_tokens: those of the reference input where they can first be reduced.
    """

    def __init__(self, depths: Mapping[str, int], text_tokens: int, image_tokens: int):
        self.depths, self.text_tokens, self.image_tokens = depths, text_tokens, image_tokens

    @abstractmethod
    def make_reducer(self, part: ReductionConfig) -> TokenReducer:
        """Make what carries out a part of a schedule. What it has learned does not matter."""

    def reducers(self, schedule: Schedule) -> dict[str, TokenReducer]:
        """Make the reducers of a schedule, by site."""
        found = {}
        for site in self.depths:
            reducer = joined([self.make_reducer(part) for part in schedule.parts if part.site == site])
            if reducer is not None:
                found[site] = reducer.eval()
        return found

    @abstractmethod
    def run(self, reducers: Mapping[str, TokenReducer]) -> None:
        """Run a forward on the reference input with some reducers; with none, the unreduced model."""

    @torch.no_grad()
    def count(self, reducers: Mapping[str, TokenReducer]) -> Spent:
        """Count the FLOPs of a forward with some reducers."""
        seen: list[int] = []
        with FlopCounter() as counter:
            hooks = [
                part.register_forward_pre_hook(lambda *_: seen.append(counter.count))
                for reducer in reducers.values()
                for part in reducer.parts
            ]
            try:
                self.run(reducers)
            finally:
                for hook in hooks:
                    hook.remove()
        return Spent(counter.count, seen[0] if seen else counter.count)

    def announced(self, reducers: Mapping[str, TokenReducer]) -> tuple[tuple[int, int], ...]:
        """Return the numbers of text and image tokens that leave each layer of each site."""
        lengths: list[tuple[int, int]] = []
        num_text, num_image = self.text_tokens, self.image_tokens
        for site in filter(self.depths.__contains__, SITES):
            lengths += announced_lengths(reducers.get(site), self.depths[site], num_text, num_image)
            num_text, num_image = lengths[-1]
        return tuple(lengths)


def announced_lengths(
    reducer: TokenReducer | None, depth: int, num_text: int, num_image: int
) -> list[tuple[int, int]]:
    """Return how many text and image tokens leave each of the `depth` layers of a site.

    Args:
        reducer: what reduces there; None if nothing does.
        depth: layers of the site.
        num_text: text tokens that come into its first layer.
        num_image: image tokens that come into its first layer.
    """
    lengths = []
    for layer in range(depth):
        if reducer is not None and reducer.config.reduces(layer) and num_image > 0:
            empty = reducer.at(layer).num_empty
            num_text, num_image = reducer.output_lengths(layer, num_text, num_image + empty)
            num_image -= empty
        lengths.append((num_text, num_image))
    return lengths


def fit(schedule: Schedule, counter: ForwardCounter) -> tuple[Schedule, Budget]:
    """Scale a schedule to its budget.

    Args:
        schedule: a schedule with `flops`. Its ratios say how they relate to each other.
        counter: that of the model.

    Returns:
        The schedule, scaled and without `flops`; and the record for the config.

    Raises:
        ValueError: the budget cannot be met within [`TOLERANCE`]. The message has the nearest one that can.
    """
    check_fixed_lengths(schedule.parts, "a budget is for fixed numbers of tokens")
    search = Search(schedule, counter)
    best = search.nearest()
    spent = search.part(best)
    if abs(spent - search.flops) > TOLERANCE:
        raise search.error()
    budget = Budget(search.flops, round(spent, 4), counter.text_tokens, counter.image_tokens)
    return search.options[best], budget


class Search:
    """The search for the factor of a schedule that meets its budget.

    Args:
        schedule: a schedule with `flops`.
        counter: that of the model.

    Raises:
        ValueError: nothing can be scaled.
    """

    def __init__(self, schedule: Schedule, counter: ForwardCounter):
        assert schedule.flops is not None, "the schedule has a budget"
        self.flops, self.counter = schedule.flops, counter
        self.base = replace(schedule, flops=None)
        self.reducers = counter.reducers(self.base)
        self.whole = counter.count({}).total
        unreduced = counter.announced({})
        found = {counter.announced(self.used(option)): option for option in reversed(self.scaled())}
        found.pop(unreduced, None)
        if not found:
            raise ValueError(f"reduction.flops={self.flops}: the schedule {self.base.to_dict()} removes no token")
        self.options = list(reversed(found.values()))
        """The schedules that announce different numbers of tokens, from the least to the most reduced."""
        self.tokens = [sum(map(sum, lengths)) for lengths in reversed(found)]
        self.start = sum(map(sum, unreduced))
        self.known: dict[int, Spent] = {}

    def scaled(self) -> list[Schedule]:
        """Return the schedule, scaled by all factors."""
        return [self.base.scaled(factor) for factor in self.base.factors(NUM_FACTORS)]

    def used(self, option: Schedule) -> dict[str, TokenReducer]:
        """Return the reducers, after they have got another schedule."""
        for site, reducer in self.reducers.items():
            part = option.at(site)
            assert part is not None, "each reducer carries out a part of the schedule"
            reducer.use(part)
        return self.reducers

    def part(self, index: int) -> float:
        """Return the part of the unreduced FLOPs that an option spends. It is counted at the first time."""
        if index not in self.known:
            self.known[index] = self.counter.count(self.used(self.options[index]))
        return self.known[index].total / self.whole

    def nearest(self) -> int:
        """Return the option whose FLOPs are nearest to the budget.

        Two options enclose it. The next guess between them is by their numbers of tokens.
        """
        low, high = -1, len(self.options) - 1
        part_low, part_high = 1.0, self.part(high)
        for guess in range(len(self.options)):
            if high - low <= 1 or part_high >= self.flops or part_high >= part_low:
                break
            middle = (low + high) // 2
            if guess < MAX_GUESSES:
                start = self.start if low < 0 else self.tokens[low]
                wanted = start + (self.tokens[high] - start) * (part_low - self.flops) / (part_low - part_high)
                middle = min(range(low + 1, high), key=lambda index: abs(self.tokens[index] - wanted))
            part = self.part(middle)
            if abs(part - self.flops) <= CLOSE:
                break
            if part >= self.flops:
                low, part_low = middle, part
            else:
                high, part_high = middle, part
        return min(sorted(self.known), key=lambda index: abs(self.part(index) - self.flops))

    def error(self) -> ValueError:
        """Make the error for a budget that cannot be met."""
        last, what = len(self.options) - 1, f"reduction.flops={self.flops}: "
        if self.part(last) > self.flops:
            least, before = self.part(last), self.known[last].before / self.whole
            return ValueError(
                f"{what}the schedule cannot spend less than {least:.3f} of the unreduced model's multiply-adds, since "
                f"{before:.3f} of them come before its first cut ({self.place()}): give flops={least:.3f} or more, or "
                f"a schedule that begins earlier{self.earlier()}"
            )
        around = sorted(self.part(index) for index in self.known)
        below = max((part for part in around if part < self.flops), default=around[0])
        above = min((part for part in around if part > self.flops), default=1.0)
        return ValueError(
            f"{what}with so few tokens, the schedule can spend {below:.3f} or {above:.3f} of the unreduced model's "
            f"multiply-adds, and nothing between: give one of the two ({', '.join(self.counts())})"
        )

    def place(self) -> str:
        """Say in words what comes before the first cut."""
        first = self.base.parts[0]
        if first.site == "tower":
            return f"in the image tower before its layer {(first.layers or (0,))[0]}"
        if first.site == "inputs":
            return "in the image tower and the embeddings"
        layer = first.layers[0]
        return f"in the image tower, the embeddings and the layers up to {layer}"

    def earlier(self) -> str:
        """Say in words at which site a schedule could begin earlier."""
        first = self.base.parts[0].site
        sites = [site for site in SITES[: SITES.index(first)] if site in self.counter.depths]
        return f", such as at site {sites[0]!r}" if sites else ""

    def counts(self) -> list[str]:
        """Say in words how many tokens the reference input has."""
        return [f"{self.counter.text_tokens} text tokens", f"{self.counter.image_tokens} image tokens"]
