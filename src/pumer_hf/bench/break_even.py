"""Says from which size on a reduced model is faster, and which part of the time no reduction can touch.

The functions here time nothing: they get a function that does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PAYS = 1.03
"""A reduction pays where the reduced model is so many times as fast. Less is within the noise of a few rounds."""


@dataclass(frozen=True)
class Crossing:
    """How many times as fast the reduced model is, by size. Sizes were tried in order, until one paid."""

    ratios: dict[int, float] = field(default_factory=dict)

    @property
    def first(self) -> int | None:
        """The smallest size that pays, of those that were tried; None if none does."""
        return next((size for size, ratio in sorted(self.ratios.items()) if ratio >= PAYS), None)


@dataclass(frozen=True)
class BreakEven:
    """Where a reduction pays, and what it cannot touch."""

    untouched: float
    """The part of the unreduced model's time, in [0, 1], that is spent outside the layers that get fewer tokens."""
    batch_size: Crossing = field(default_factory=Crossing)
    """By batch size, with the images of the benchmark."""
    image_tokens: Crossing = field(default_factory=Crossing)
    """By image tokens per example, at the smallest batch size that pays. Empty if no batch size does."""

    @property
    def limit(self) -> float:
        """How many times as fast the model would be if the layers that get fewer tokens took no time."""
        return 1 / self.untouched

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> "BreakEven | None":
        """Read it from the values of a file. Files of older versions have none."""
        if values is None:
            return None
        crossings = (
            Crossing({int(size): ratio for size, ratio in values[name].items()})
            for name in ("batch_size", "image_tokens")
        )
        return cls(values["untouched"], *crossings)

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds."""
        return {
            "untouched": self.untouched,
            "limit": self.limit,
            **{
                name: {str(size): ratio for size, ratio in one.ratios.items()}
                for name, one in (("batch_size", self.batch_size), ("image_tokens", self.image_tokens))
            },
        }

    def lines(self, tokens: str) -> list[str]:
        """Return lines to print.

        Args:
            tokens: the word for what an image consists of, such as `"image tokens"`.
        """
        found = [
            f"The reduction cannot touch {100 * self.untouched:.0f} % of the unreduced model's time (all that is "
            f"outside the layers that get fewer tokens), so no schedule that cuts there is faster than "
            f"{self.limit:.1f}x."
        ]
        tried, batch = self.batch_size.ratios, self.batch_size.first
        if batch is None:
            if tried:
                found.append(f"It does not pay up to batch {max(tried)} ({in_words(self.batch_size)}).")
            return found
        before = f" ({in_words(self.batch_size)})" if len(tried) > 1 else ""
        found.append(f"It pays from batch {batch} on{before}.")
        fewest = self.image_tokens.first
        if fewest is not None:
            least = ", the fewest that were tried" if fewest == min(self.image_tokens.ratios) else ""
            found.append(f"At batch {batch} it pays from {fewest} {tokens} on{least} ({in_words(self.image_tokens)}).")
        return found


def in_words(one: Crossing) -> str:
    """Return the sizes that were tried, with their ratios."""
    return ", ".join(f"{size}: {ratio:.2f}x" for size, ratio in sorted(one.ratios.items()))


def doubled(first: int, last: int) -> list[int]:
    """Return `first`, its doubles below `last`, and `last`."""
    sizes = []
    while first < last:
        sizes.append(first)
        first *= 2
    return [*sizes, last]


def cross(
    sizes: Sequence[int], known: Mapping[int, float], ratio: Callable[[int], float | None] | None = None
) -> Crossing:
    """Find the smallest size at which the reduced model is faster. More is gained at a larger size.

    Args:
        sizes: the sizes to try, ascending.
        known: ratios that have been measured. If the last size is among them and does not pay, no other one is tried.
        ratio: measures how many times as fast the reduced model is at a size, or returns None if there is no such
            size. None: only known sizes count.
    """
    last = sizes[-1]
    if known.get(last, PAYS) < PAYS:
        return Crossing({size: known[size] for size in sizes if size in known})
    ratios: dict[int, float] = {}
    for size in sizes:
        found = known.get(size) if size in known or ratio is None else ratio(size)
        if found is None:
            continue
        ratios[size] = found
        if found >= PAYS:
            break
    return Crossing(ratios)
