"""Finds misspelt commands and flags before anything else, and reports them in one line."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches


def check_spelling(
    words: Sequence[str], parser: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser]
) -> None:
    """End the program if the command, or one of its flags, is misspelt.

    The parser reports all other mistakes.

    Args:
        words: the command line without the program.
        parser: the parser of the program.
        commands: the parsers of the commands by name.
    """
    first = words[0] if words else ""
    if first in commands:
        check_flags(words[1:], commands[first])
    elif first.startswith("-"):
        check_flags([first], parser)
    else:
        near = nearest(first, commands)
        if near is not None:
            parser.exit(2, f"{parser.prog}: error: {first!r} is no command: did you mean {near}?\n")


def check_flags(words: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """End the program at a word that looks like a flag, if no flag of the parser begins with it.

    Some commands, such as `train`, pass on all words after their first argument. These words are not checked.
    """
    flags = [flag for action in parser._actions for flag in action.option_strings]
    passes_on = any(action.nargs == argparse.REMAINDER for action in parser._actions)
    for word in words:
        if word == "--" or (passes_on and not word.startswith("-")):  # the words after it are no flags of the parser
            return
        flag = word.partition("=")[0]
        if not flag.startswith("--") or " " in word or any(known.startswith(flag) for known in flags):
            continue
        near = nearest(flag, flags)
        hint = f"`{parser.prog} --help` lists them" if near is None else f"did you mean {near}?"
        parser.exit(2, f"{parser.prog}: error: {flag!r} is no flag: {hint}\n")


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that is most similar to a word; None if no name is similar."""
    near = get_close_matches(word, names, n=1)
    return near[0] if near else None
