"""The base class of subcommands. Before a subcommand runs, this package imports neither `pumer_hf` nor torch."""

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
    """The errors that `run` raises for mistakes of the user. `ImportError` means that an extra is not installed."""

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def check(self, args: argparse.Namespace) -> None:  # noqa: B027, most commands have nothing to check
        """Raise `ValueError` for values that are wrong or do not fit together. This imports nothing."""

    @abstractmethod
    def run(self, args: argparse.Namespace) -> None:
        """Do the work. This method imports the modules that it needs."""


def check_choice(field: str, value: str, choices: Collection[str]) -> None:
    """Raise `ValueError` if a value is not one of the choices."""
    if value not in choices:
        raise ValueError(f"{field}={value!r}: choose one of {', '.join(choices)}")


def schedule(args: argparse.Namespace) -> dict[str, Any]:
    """Return `--reduction` as a keyword argument, or no argument if the flag is not given."""
    if args.reduction is None:
        return {}
    from pumer_hf.reading import parse_json

    return {"reduction": parse_json(args.reduction, "--reduction")}
