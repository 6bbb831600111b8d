"""The program that runs a recipe, as its user started it: a script, or a command such as `pumer-hf train vqa`."""

import sys
from pathlib import Path

COMMAND = "pumer-hf"
NUMBER_OF_WORDS = {"train": 3, "evaluate": 2}
"""For each subcommand of `pumer-hf`: how many words of the command line come before the arguments."""


def program_words() -> list[str]:
    """Return the words that start the program, without its arguments: `["recipes/train_vqa.py"]`, or
    `["pumer-hf", "train", "vqa"]`.
    """
    first, *rest = sys.argv
    if Path(first).name != COMMAND:
        return [first]
    number = NUMBER_OF_WORDS.get(rest[0], 2) if rest else 1
    return [COMMAND, *rest[: number - 1]]


def program_name() -> str:
    """Return the name of the program for messages: `"train_vqa.py"`, or `"pumer-hf train vqa"`."""
    first, *rest = program_words()
    return " ".join([Path(first).name, *rest])
