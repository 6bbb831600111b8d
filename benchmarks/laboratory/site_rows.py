"""The rows of the study of sites: what reduces image tokens before a decoder, inside it, or both.

Each row has one number, the *keep*: the part of the image tokens that is left after all its reductions.
"""

from dataclasses import dataclass
from typing import Any

STAGES = 3
"""Layers that reduce in a cascade."""
UNREDUCED, TRAINED_ON = "unreduced", "unreduced, trained on"
"""The name of the unreduced model, and that of the unreduced model after the steps of the students."""
BOTH_FIRST = 1
"""The layer after which rows reduce that also reduce before the decoder."""
FIRST_LAYERS = (0, 1, 2)
"""The layers after which rows begin that reduce inside the decoder alone."""
LEARNED_FIRST = 1
"""The layer after which the methods of `LEARNS` reduce."""
MERGED_OF_LEFT = 2 / 3
"""PuMer's merged tokens are at most this part of those that are left. So two of five tokens that come to its merging
go away; a matching pairs at most half of them."""
LEARNS = {"tip": {"continuity_weight": 0.0, "contrastive_weight": 0.0}, "dynamicvit": {}}
"""Methods that know nothing before they are trained, with their fields. An image of the data has several questions, so
that other texts of a batch are no contrast."""


@dataclass(frozen=True)
class Part:
    """A method at a site."""

    method: str
    layers: tuple[int, ...] = ()
    """The layers that reduce, each the same part; none: before the decoder."""

    @property
    def lowest(self) -> float:
        """The least part of the tokens that the method can leave."""
        return 0.5 ** len(self.layers) if self.method == "tome" and self.layers else 0.0

    def schedule(self, keep: float, scorer: str | None) -> dict[str, Any]:
        """Return the schedule that leaves a part of the tokens.

        Args:
            keep: the part, in (0, 1).
            scorer: the folder of a trained scorer, for `lookahead`.
        """
        if not self.layers:
            weights = {"weights": scorer} if self.method == "lookahead" else {}
            return {"method": self.method, "site": "inputs", "keep_ratio": keep, **weights}
        common = {"method": self.method, "layers": list(self.layers)}
        left = keep ** (1 / len(self.layers))
        if self.method == "pumer":
            merged = min((1 - left) / 3, MERGED_OF_LEFT * left)
            return {**common, "prune_ratio": 1 - left - merged, "image_merge_ratio": merged}
        ratio = "merge_ratio" if self.method == "tome" else "prune_ratio"
        return {**common, ratio: 1 - left, **LEARNS.get(self.method, {})}


@dataclass(frozen=True)
class SiteRow:
    """A row of the study."""

    place: str
    """Where it reduces: a heading of the table."""
    name: str
    parts: tuple[Part, ...]

    @property
    def key(self) -> str:
        """The name in files, with the place."""
        return f"{self.place} {self.name}".replace(",", "").replace("+", "and").replace(" ", "_")

    @property
    def is_learned(self) -> bool:
        """Whether it knows nothing before it is trained."""
        return any(part.method in LEARNS for part in self.parts)

    @property
    def lowest(self) -> float:
        """The least keep."""
        return max(part.lowest for part in self.parts) ** len(self.parts)

    def schedule(self, keep: float, scorer: str | None = None) -> list[dict[str, Any]]:
        """Return the schedule of the row. Each of its parts keeps the same share of what comes to it.

        Args:
            keep: the part of the image tokens that is left at the end, in (0, 1).
            scorer: the folder of a trained scorer, for `lookahead`.
        """
        return [part.schedule(keep ** (1 / len(self.parts)), scorer) for part in self.parts]


def inside_rows(first: int) -> list[SiteRow]:
    """Return the rows that reduce inside the decoder, from after the layer `first` on."""
    one, cascade = (first,), tuple(range(first, first + STAGES))
    place = f"layers, from layer {first} on"
    learned = tuple(LEARNS) if first == LEARNED_FIRST else ()
    single = dict.fromkeys(("pumer", "random", "fastv", "grounded", *learned), one)
    staged = {"pumer": cascade, "tome": cascade, "pyramid": cascade}
    rows = [SiteRow(place, name, (Part(name, layers),)) for name, layers in single.items()]
    return rows + [SiteRow(place, f"{name}, in {STAGES} layers", (Part(name, at),)) for name, at in staged.items()]


INPUTS = ("pumer", "tome", "random", "grid", "diverse", "relevant_diverse", "lookahead", "grounded")
"""The methods before the decoder."""
BOTH = (("lookahead", "pumer"), ("diverse", "fastv"), ("pumer", "pumer"))
"""A method before the decoder, and one inside."""
ROWS = (
    *(SiteRow("inputs", name, (Part(name),)) for name in INPUTS),
    *(row for first in FIRST_LAYERS for row in inside_rows(first)),
    *(SiteRow("both", f"{one} + {two}", (Part(one), Part(two, (BOTH_FIRST,)))) for one, two in BOTH),
)
"""All rows."""
TRAINED_FIRST = (
    ("inputs", "pumer"),
    ("layers, from layer 1 on", "pumer"),
    ("both", "lookahead + pumer"),
    ("inputs", "lookahead"),
    ("layers, from layer 1 on", "fastv"),
    ("inputs", "tome"),
    ("layers, from layer 1 on", f"tome, in {STAGES} layers"),
    ("inputs", "random"),
    ("layers, from layer 1 on", "random"),
    ("both", "diverse + fastv"),
    ("both", "pumer + pumer"),
    ("layers, from layer 1 on", f"pumer, in {STAGES} layers"),
    ("layers, from layer 0 on", "pumer"),
    ("layers, from layer 0 on", "fastv"),
    ("layers, from layer 1 on", "tip"),
    ("layers, from layer 1 on", "dynamicvit"),
)
"""The place and the name of the rows that are trained first, in this order."""


def training_order() -> tuple[list[SiteRow], list[SiteRow]]:
    """Return the rows that are trained first, and the others, each in their order."""
    by_name = {(row.place, row.name): row for row in ROWS}
    first = [by_name[name] for name in TRAINED_FIRST]
    return first, [row for name, row in by_name.items() if name not in TRAINED_FIRST]
