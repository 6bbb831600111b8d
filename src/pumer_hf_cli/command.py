"""The base class of subcommands. Before a subcommand runs, this package imports neither `pumer_hf` nor torch."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, ClassVar

RESULTS = "write all figures to a file, as JSON"
SCHEDULE = "another schedule than the checkpoint's: JSON, or a file with it; null: none"
FLOPS = "scale the schedule until the model spends this part of its unreduced multiply-adds, such as 0.5"


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


def add_schedule(parser: argparse.ArgumentParser) -> None:
    """Add the flags that [`schedule`] reads."""
    parser.add_argument("--reduction", metavar="JSON", help=SCHEDULE)
    parser.add_argument("--flops", type=float, metavar="PART", help=FLOPS)


def schedule(args: argparse.Namespace) -> dict[str, Any]:
    """Return the schedule that flags ask for as a keyword argument, or no argument without such flags.

    Raises:
        ValueError: a flag is wrong, or there is no schedule that `--flops` could scale.
    """
    if args.reduction is None and args.flops is None:
        return {}
    from pumer_hf.reading import parse_json

    given = None if args.reduction is None else parse_json(args.reduction, "--reduction")
    if args.flops is None:
        return {"reduction": given}
    from pumer_hf.models.families import preset
    from pumer_hf.models.loading import saved_config
    from pumer_hf.reducers.budget import with_budget

    setting = getattr(args, "setting", None) or ""
    if args.reduction is None and getattr(args, "checkpoint", None) is not None:
        given = saved_config(args.checkpoint).get("reduction")
    elif args.reduction is None and "/" in setting:
        given = preset(*setting.split("/", 1))
    if not given:
        raise ValueError(
            f"--flops {args.flops}: the model has no schedule to scale: say which method shall meet it, such as "
            """--reduction '{"method": "pumer"}'"""
        )
    return {"reduction": with_budget(given, args.flops)}
