"""The results of the training of a scorer: how many answers of the unreduced model are kept, and at what speed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .environment import ENVIRONMENT_FIELDS, Environment
from .report import Results
from .tables import text_table

METHOD_WORDS = {"target": "target's own attention"}
"""How tables name what is no method of this project."""


@dataclass(frozen=True)
class BudgetRow:
    """The answers kept at one number of patches."""

    kept: str
    """The part of the patches that is kept: `"1/9"`."""
    num_patches: int
    """The number of patches that is kept of an image."""
    methods: dict[str, float]
    """By method, the part of the answers of the unreduced model that stay the same, in [0, 1]. `"target"` is the
    attention that the scorer predicts, in its place."""
    speed: float | None = None
    """The speed of the model with lookahead as a multiple of the unreduced model's."""


@dataclass(frozen=True)
class ScorerReport(Results):
    """What the training of a scorer has measured."""

    layers: dict[str, float]
    """By layer, the part of the answers that are kept if its own attention chooses a ninth of the patches; `"all"` is
    the mean attention of all layers. Empty if the layer was given."""
    target_layer: int | str
    """The layer whose attention the scorer predicts, or `"all"`."""
    rows: tuple[BudgetRow, ...]
    examples: int
    """The number of examples, held out from the training, on which `rows` are measured."""
    batch_size: int
    """The number of examples per forward at which the speed is measured."""
    environment: Environment = field(default_factory=Environment)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ScorerReport":
        rest = {name: value for name, value in values.items() if name not in ENVIRONMENT_FIELDS}
        rows = tuple(BudgetRow(**row) for row in rest.pop("rows"))
        return cls(rows=rows, environment=Environment.from_dict(values), **rest)

    def to_dict(self) -> dict[str, Any]:
        values = {name: value for name, value in vars(self).items() if name not in ("rows", "environment")}
        return {**values, "rows": [asdict(row) for row in self.rows], **self.environment.to_dict()}

    def lines(self) -> list[str]:
        """Return the lines to print: the table of the budgets, how it was measured, and where lookahead loses."""
        methods = list(dict.fromkeys(name for row in self.rows for name in row.methods))
        header = ["patches kept", *(METHOD_WORDS.get(name, name) for name in methods), "speed"]
        table = [header]
        for row in self.rows:
            shares = [percent(row.methods.get(name)) for name in methods]
            table.append(
                [f"{row.kept} ({row.num_patches})", *shares, "" if row.speed is None else f"{row.speed:.2f}x"]
            )
        return [
            text_table(table),
            f"Answers of the unreduced model that stay the same, on {self.examples:,} examples that were held out; "
            f"speed at batch {self.batch_size}.",
            *self.losses(),
        ]

    def losses(self) -> list[str]:
        """Return a line for each number of patches at which lookahead keeps fewer answers than diversity alone."""
        lines = []
        for row in self.rows:
            mine, other = row.methods.get("lookahead"), row.methods.get("diverse")
            if mine is not None and other is not None and mine < other:
                lines.append(
                    f"With {row.num_patches} patches, lookahead keeps fewer answers than diverse ({percent(mine)} and "
                    f"{percent(other)}): train longer or on more data, or use diverse, which needs no scorer."
                )
        return lines


def layer_table(layers: Mapping[Any, float], chosen: int | str) -> str:
    """Return the table of the answers that each layer's own attention keeps. `chosen` is marked."""
    rows = [["layer", "answers kept", ""]]
    rows += [[str(layer), percent(kept), "chosen" if layer == chosen else ""] for layer, kept in layers.items()]
    return text_table(rows)


def percent(share: float | None) -> str:
    """Write a part in [0, 1] as percent; empty if it is unknown."""
    return "" if share is None else f"{100 * share:.1f} %"
