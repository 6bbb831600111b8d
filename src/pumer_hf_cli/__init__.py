"""The command `pumer-hf`: it reads the command line, and imports `pumer_hf` only to do the work.

The command is a separate package, so that it prints help, the version and mistakes at once. `import pumer_hf` loads
torch and transformers to register the models, which takes seconds. The import of any module in `pumer_hf` does the
same.

Each subcommand has a file here and a line in `COMMANDS`.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .bench import Bench
from .card import Card
from .command import Command
from .convert import Convert
from .demo import Demo
from .env import Env
from .evaluate import Evaluate
from .example import Example
from .explain import Explain
from .export import Export
from .generate import Generate
from .measure import Measure
from .push import Push
from .spelling import check_spelling
from .train import Train
from .train_scorer import TrainScorer
from .tune import Tune

__all__ = ["COMMANDS", "build_parser", "main"]

COMMANDS: tuple[Command, ...] = (
    Example(),
    Train(),
    TrainScorer(),
    Evaluate(),
    Convert(),
    Bench(),
    Tune(),
    Export(),
    Explain(),
    Generate(),
    Measure(),
    Demo(),
    Card(),
    Push(),
    Env(),
)


class PrintVersion(argparse.Action):
    """The flag `--version`."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        try:
            installed = version("pumer-hf")
        except PackageNotFoundError:
            parser.exit(2, f"{parser.prog}: error: its version is unknown, as it is not installed: pip install -e .\n")
        print(parser.prog, installed)
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all subcommands."""
    return build_parsers()[0]


def build_parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser with all subcommands, and the parsers of the subcommands by name."""
    examples = "\n".join(f"  {command.example}" for command in COMMANDS)
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="pumer-hf",
        description="Vision-language transformers that prune and merge their tokens.",
        epilog=f"examples:\n{examples}",
        formatter_class=layout,
    )
    parser.add_argument("--version", action=PrintVersion, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands = {}
    for command in COMMANDS:
        commands[command.name] = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"example:\n  {command.example}",
            formatter_class=layout,
        )
        command.add_arguments(commands[command.name])
        commands[command.name].set_defaults(chosen=command)
    return parser, commands


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, and return the exit status: 2 for a mistake that the user can correct."""
    words = sys.argv[1:] if argv is None else argv
    parser, commands = build_parsers()
    check_spelling(words, parser, commands)
    args = parser.parse_args(words)
    try:
        args.chosen.check(args)
        args.chosen.run(args)
    except args.chosen.user_errors as error:
        print(f"pumer-hf {args.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"pumer-hf {args.command}: interrupted", file=sys.stderr)
        return 130  # the status that a shell gives for Ctrl-C
    return 0
