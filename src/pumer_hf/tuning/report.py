"""`Tuned` holds the schedules that a tuning has found, with their speeds and answers. It can be written to a file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..reducers import PlainSchedule
from ..results import Environment, Results, text_table
from .curves import is_close
from .finder import TOLERANCE, Found


@dataclass(frozen=True)
class Row:
    """A schedule that was found for a speed."""

    name: str
    """The name of the candidate; `"asked"` if only one was asked for."""
    target: float
    """The speed that was asked for."""
    reduction: PlainSchedule
    speed: float
    """The median of its measured speeds, with the unreduced model as 1."""
    flops: float
    """The part of the unreduced model's FLOPs that it spends on the reference input."""
    measured: int
    """How often it was measured."""
    highest: float
    """The highest measured speed of the candidate, however much it reduces."""
    tokens: Sequence[Sequence[int]]
    """The text and image tokens of the reference input that leave each place of [`Tuned.places`]."""
    accuracy: float | None = None
    """In percent, of the rows of the data; None if they have no answers."""
    kept: float | None = None
    """The part of the unreduced model's answers that it keeps, in percent; None without data."""

    @property
    def is_close(self) -> bool:
        """Whether the measured speed is within 3 % of the target."""
        return is_close(self.speed, self.target, TOLERANCE)

    @property
    def is_reached(self) -> bool:
        """Whether the candidate can be as fast as the target."""
        return self.is_close or self.highest > self.target

    @property
    def score(self) -> float:
        """By what candidates are ranked: the accuracy; without answers, the part that is kept; without data, 0."""
        return next((value for value in (self.accuracy, self.kept) if value is not None), 0.0)

    @classmethod
    def of(cls, name: str, found: Found) -> "Row":
        """Make the row of what was found."""
        plain = found.schedule.to_dict()
        values = {field: getattr(found, field) for field in ("speed", "flops", "measured", "highest")}
        return cls(name, found.target, plain, **values, tokens=[list(one) for one in found.tokens])


@dataclass(frozen=True)
class Conditions:
    """How the speeds were measured."""

    device: str
    dtype: str
    compiled: bool
    matmul_precision: str
    batch_size: int
    text_length: int
    seconds: float

    def __str__(self) -> str:
        compiled = ", compiled" if self.compiled else ""
        return f"batch {self.batch_size}, {self.text_length} text tokens, {self.device}, {self.dtype}{compiled}"


@dataclass(frozen=True)
class Tuned(Results):
    """What [`tune`] has found."""

    model: str
    speed: float
    """The speed that was asked for."""
    rows: tuple[Row, ...]
    """What was found, for each candidate and each speed."""
    places: tuple[str, ...]
    """Where tokens can leave: the layers of all sites, such as `"layer 2"`."""
    tokens: Sequence[Sequence[int]]
    """The text and image tokens of the reference input that leave each place in the unreduced model."""
    conditions: Conditions
    environment: Environment
    data: str | None = None
    """The data in words."""
    examples: int = 0
    """The number of rows of the data."""
    accuracy: float | None = None
    """That of the unreduced model, in percent."""
    left_out: Mapping[str, str] | None = None
    """Why candidates were left out, by their names."""

    @property
    def ranked(self) -> list[Row]:
        """The rows for the speed that was asked for, the best first. Those that do not reach it are left out.

        Rows that are off the speed by more than 3 % come after all others.
        """
        reached = [row for row in self.rows if row.target == self.speed and row.is_reached]
        return sorted(reached, key=lambda row: (not row.is_close, -row.score, -(row.kept or 0), -row.speed))

    @property
    def best(self) -> Row:
        """The best schedule."""
        return self.ranked[0]

    @property
    def reduction(self) -> PlainSchedule:
        """The best schedule, as `set_reduction` and `--reduction` take it."""
        return self.best.reduction

    @property
    def front(self) -> list[Row]:
        """The rows of all speeds than which no other row is both faster and better, the slowest first."""
        ordered = sorted((row for row in self.rows if row.is_reached), key=lambda row: (-row.speed, -row.score))
        front: list[Row] = []
        for row in ordered:
            if not front or row.score > front[-1].score:
                front.append(row)
        return front[::-1]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Tuned":
        return cls(
            model=values["model"],
            speed=values["speed"],
            rows=tuple(Row(**row) for row in values["rows"]),
            places=tuple(values["places"]),
            tokens=values["tokens"],
            conditions=Conditions(**values["conditions"]),
            environment=Environment.from_dict(values),
            data=values.get("data"),
            examples=values.get("examples", 0),
            accuracy=values.get("accuracy"),
            left_out=values.get("left_out"),
        )

    def to_dict(self) -> dict[str, Any]:
        rest = {"data": self.data, "examples": self.examples, "accuracy": self.accuracy, "left_out": self.left_out}
        return {
            "model": self.model,
            "speed": self.speed,
            "best": self.best.name,
            "rows": [asdict(row) for row in self.rows],
            "places": list(self.places),
            "tokens": [list(one) for one in self.tokens],
            "conditions": asdict(self.conditions),
            **({name: value for name, value in rest.items() if value is not None} if self.data else {}),
            **self.environment.to_dict(),
        }

    def lines(self) -> list[str]:
        """Return the lines about the best schedule, and the table of all if several were compared."""
        best, table = self.best, [] if self.data is None else self.table()
        off = "" if best.is_close else f" No schedule of this kind is nearer to {self.speed}x."
        return [
            *table,
            f"{best.speed:.2f}x as fast as unreduced, for {self.speed}x: the median of {best.measured} measurements "
            f"({self.conditions}).{off}",
            f"It spends {best.flops:.3f} of the unreduced model's multiply-adds on the reference input:",
            text_table(self.token_rows(best)),
            f"reduction: {json.dumps(best.reduction)}",
        ]

    def token_rows(self, row: Row) -> list[list[str]]:
        """Return the rows of a table about the tokens that leave each place."""
        counts = (["{} + {}".format(*one) for one in tokens] for tokens in (self.tokens, row.tokens))
        names = [f"tokens after {place} (text + image)" for place in self.places]
        return [["", "unreduced", "reduced"], *map(list, zip(names, *counts, strict=True))]

    def table(self) -> list[str]:
        """Return the table of the candidates at the speed that was asked for, and notes."""
        answered = self.accuracy is not None
        rows = [["candidate", *(["accuracy"] if answered else []), "answers kept", "speed", "FLOPs"]]
        if answered:
            rows.append(["unreduced", percent(self.accuracy), percent(100.0), "1.00x", "1.000"])
        for row in self.ranked:
            cells = [percent(row.accuracy)] if answered else []
            speed = f"{row.speed:.2f}x{'' if row.is_close else ' (!)'}"
            rows.append([row.name, *cells, percent(row.kept), speed, f"{row.flops:.3f}"])
        notes = []
        if not all(row.is_close for row in self.ranked):
            notes.append(f"(!): off the speed by more than {TOLERANCE:.0%}.")
        slow = [row for row in self.rows if row.target == self.speed and not row.is_reached]
        if slow:
            notes.append(f"Out of reach: {', '.join(f'{row.name} ({row.highest:.2f}x at most)' for row in slow)}.")
        notes += [f"Left out: {name}: {reason}" for name, reason in (self.left_out or {}).items()]
        best = self.best.score
        error = (best * (100 - best) / self.examples) ** 0.5
        return [
            text_table(rows),
            f"On {self.data}. Each percentage has a standard error of about {error:.1f} points. The first of many is "
            "partly first by luck: evaluate it on other rows.",
            *notes,
            "",
        ]


def percent(value: float | None) -> str:
    """Write a percentage."""
    return "" if value is None else f"{value:.1f} %"
