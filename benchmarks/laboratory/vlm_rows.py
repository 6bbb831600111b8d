"""The rows of the table of pretrained decoder models: what each changes, at which budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from pumer_hf.models.decoders.family import DecoderFamily

from .site_rows import UNREDUCED, Part, SiteRow

OWN, GREY, WRONG, SMALLER = "own", "grey", "wrong", "smaller"
"""The images of a row: those of its questions, grey ones of the same size, those of others, or smaller ones."""
BASELINE, IMAGES, INPUTS, LAYERS, BOTH = "baseline", "images", "inputs", "layers", "both"
"""The places of the rows."""
INPUT_METHODS = ("random", "grid", "tome", "diverse", "relevant_diverse", "pumer")
"""The methods before the decoder that need nothing more. `grounded` is missing: the sets have no boxes."""
LOOKAHEAD, FASTV, RANDOM = "lookahead", "fastv", "random"
FASTV_LAYER = 1
"""The layer after which FastV's paper prunes."""
STEPS = 50
"""Halvings in the search for the part that a stage leaves."""


class OutOfReachError(ValueError):
    """A row cannot meet its budget with a model. The message says what it reaches, in a few words for a table."""


@dataclass(frozen=True)
class Budget:
    """What a row may cost: a part of the image tokens, or a speed. It has neither if it is a baseline."""

    keep: float | None = None
    """The mean over the decoder's layers of the part of the image tokens that they run on, in (0, 1)."""
    speed: float | None = None
    """How many times as fast as the unreduced model the prefill is."""

    @property
    def name(self) -> str:
        """The name in files."""
        return "whole" if self.value is None else f"{'keep' if self.speed is None else 'speed'}{self.value:g}"

    @property
    def value(self) -> float | None:
        """The number; None for a baseline."""
        return self.keep if self.speed is None else self.speed

    @property
    def title(self) -> str:
        """What the tables call it."""
        return f"{100 * (self.keep or 1):g} % of the image tokens" if self.speed is None else f"{self.speed:g}x"


WHOLE = Budget()


@dataclass(frozen=True)
class VlmRow(SiteRow):
    """A row of the table. Its `keep` is the mean over the decoder's layers, so that rows of one keep cost the same."""

    images: str = OWN
    depth: int = 1
    """Layers of the decoder."""

    @property
    def is_baseline(self) -> bool:
        """Whether it has no budget."""
        return self.place == BASELINE

    @property
    def lowest(self) -> float:
        """The least keep: the layers before the first cut run on all tokens that come in."""
        lowest = max((mean_kept(part, self.depth, 0.0) for part in self.parts), default=0.0)
        return float(lowest ** max(len(self.parts), 1))

    def schedule(self, keep: float, scorer: str | None = None) -> list[dict[str, Any]]:
        """Return the schedule of the row; [] if it reduces no tokens.

        Args:
            keep: the part of the image tokens, as the mean over the layers, in (0, 1).
            scorer: the folder of a trained scorer, for `lookahead`.

        Raises:
            OutOfReachError: the row cannot keep so few.
        """
        if keep <= self.lowest:
            raise OutOfReachError(f"keeps more than {100 * self.lowest:.0f} %")
        each = keep ** (1 / max(len(self.parts), 1))
        return [part.schedule(end_kept(part, self.depth, each), scorer) for part in self.parts]

    def draws(self, schedule: Sequence[dict[str, Any]], number: int) -> list[list[dict[str, Any]]]:
        """Return the schedules that are measured: one, but of a random choice as many as asked for."""
        if not any(part.method == RANDOM for part in self.parts):
            return [list(schedule)]
        return [[{**part, "seed": seed} for part in schedule] for seed in range(number)]


def stages(part: Part, depth: int) -> list[float]:
    """Return which part of the decoder's layers runs before the first cut, and after each one."""
    if not part.layers:
        return [0.0, 1.0]
    ends = [0, *(layer + 1 for layer in part.layers), depth]
    return [(end - start) / depth for start, end in pairwise(ends)]


def mean_kept(part: Part, depth: int, left: float) -> float:
    """Return the mean over the layers of the part of the tokens that they run on.

    Args:
        part: a method at a site.
        depth: layers of the decoder.
        left: the part that each cut leaves, in [0, 1].
    """
    return sum(share * left**stage for stage, share in enumerate(stages(part, depth)))


def end_kept(part: Part, depth: int, keep: float) -> float:
    """Return the part of the tokens that is left after the last cut if the mean over the layers is `keep`."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_kept(part, depth, middle) < keep else (low, middle)
    return round(high ** max(len(part.layers), 1), 6)


def rows_of(family: DecoderFamily, config: Any, scorer: str | None) -> list[VlmRow]:
    """Return the rows for a model, those first to which the others are compared.

    Args:
        family: the family of the model. One that cannot reduce inside its decoder has no rows there.
        config: the config of the model.
        scorer: the folder of a trained scorer, which adds the rows with `lookahead`.
    """
    methods = [*INPUT_METHODS, *([LOOKAHEAD] if scorer else [])]
    rows = [
        VlmRow(BASELINE, UNREDUCED, ()),
        VlmRow(BASELINE, "no image", (), GREY),
        VlmRow(BASELINE, "wrong image", (), WRONG),
        VlmRow(IMAGES, "smaller images", (), SMALLER),
        *(VlmRow(INPUTS, name, (Part(name),)) for name in methods),
    ]
    if LAYERS in family.sites:
        layout = family.layout(config)
        staged = tuple(layout.quarters(LAYERS))
        first = (min(max(FASTV_LAYER, family.first_layer(config)), layout.all_layers(LAYERS)[-1]),)
        inside = {FASTV: Part(FASTV, first), **{name: Part(name, staged) for name in ("pyramid", "pumer")}}
        before = [("diverse", FASTV), ("pumer", "pumer"), *([(LOOKAHEAD, "pumer")] if scorer else [])]
        rows += [VlmRow(LAYERS, name, (part,)) for name, part in inside.items()]
        rows += [VlmRow(BOTH, f"{one} + {two}", (Part(one), inside[two])) for one, two in before]
    depth = config.get_text_config().num_hidden_layers
    return [replace(row, depth=depth) for row in rows]


def chosen_rows(rows: Sequence[VlmRow], keys: Sequence[str] | None) -> list[VlmRow]:
    """Return the rows that are asked for, and the unreduced model, to which they are compared.

    Args:
        rows: all rows.
        keys: the keys of some; None: all.

    Raises:
        ValueError: there is no row with such a key.
    """
    known = [row.key for row in rows]
    unknown = [key for key in keys or () if key not in known]
    if unknown:
        raise ValueError(f"--methods {' '.join(unknown)}: choose from {', '.join(known)}")
    return [row for row in rows if keys is None or row.key in keys or row.name == UNREDUCED]


def budgets_of(row: VlmRow, keeps: Sequence[float], speeds: Sequence[float]) -> list[Budget]:
    """Return the budgets at which a row is measured."""
    if row.is_baseline:
        return [WHOLE]
    return [*(Budget(keep=keep) for keep in keeps), *(Budget(speed=speed) for speed in speeds)]
