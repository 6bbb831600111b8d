"""What a subcommand is. Nothing in this package imports `pumer_hf`, or anything else that is slow, before it runs."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, ClassVar

RESULTS = "write all figures to a file, as JSON"
SCHEDULE = "another schedule than the checkpoint's: JSON, or a file with it; null: none"


class Command(ABC):
    """A subcommand of `pumer-hf`."""

    name: ClassVar[str]
    summary: ClassVar[str]
    example: ClassVar[str]
    user_errors: ClassVar[tuple[type[Exception], ...]] = (ValueError, OSError, ImportError)
    """What `run` raises where the user can mend something; `ImportError` if an extra is not installed."""

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def check(self, args: argparse.Namespace) -> None:  # noqa: B027, most commands have nothing to check
        """Raise `ValueError` for values that are wrong or do not go together. Imports nothing."""

    @abstractmethod
    def run(self, args: argparse.Namespace) -> None:
        """Do the work. What it needs is imported here."""


def check_choice(field: str, value: str, choices: Collection[str]) -> None:
    """Raise `ValueError` if a value is not one of those allowed."""
    if value not in choices:
        raise ValueError(f"{field}={value!r}: choose one of {', '.join(choices)}")


def schedule(args: argparse.Namespace) -> dict[str, Any]:
    """`--reduction` as a keyword argument; none if it is not given."""
    if args.reduction is None:
        return {}
    from pumer_hf.reading import parse_json

    return {"reduction": parse_json(args.reduction, "--reduction")}
