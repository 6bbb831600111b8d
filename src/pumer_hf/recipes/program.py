"""The program that runs a recipe, as its user started it: a script, or a command such as `pumer-hf train vqa`."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from accelerate import PartialState

from ..images import DataError

COMMAND = "pumer-hf"
NUMBER_OF_WORDS = {"train": 3, "evaluate": 2}
"""For each subcommand of `pumer-hf`: how many words of the command line come before the arguments."""
USER_ERRORS = (ValueError, OSError, ImportError)
"""The exceptions of the checks on files and values of the user."""


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


@contextmanager
def exit_on_user_error(kinds: tuple[type[Exception], ...] = USER_ERRORS) -> Iterator[None]:
    """End the program with a message, not a traceback, if a file or a value that the user gave is wrong.

    Args:
        kinds: the exceptions that mean this. During training and evaluation, only [`DataError`] does.
    """
    try:
        yield
    except kinds as error:
        # A worker of a data loader passes on an exception with its traceback. The message is at the end.
        message = str(error).rpartition("DataError: ")[2] if isinstance(error, DataError) else str(error)
        _end(f"{program_name()}: error: {message.strip()}")


@contextmanager
def leaving_group() -> Iterator[None]:
    """Leave the group of processes at the end of a program that a launcher started several times.

    The threads of a group still run when its process exits, and may abort it then.
    """
    yield
    PartialState().destroy_process_group()


def _end(message: str) -> NoReturn:
    """End the program with status 1 and a message. A launcher may print more after the message.

    Launchers of several processes show the content of an error file in their last lines. `accelerate launch` with a
    single process prints a traceback of its own at any exit status but 0, so the message mentions it.
    """
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if error_file is not None:
        Path(error_file).write_text(json.dumps({"message": message, "timestamp": int(time.time())}), encoding="utf-8")
    elif "ACCELERATE_MIXED_PRECISION" in os.environ:  # only the launcher sets it
        message += "\n(The launcher's own traceback says no more; `accelerate launch --quiet` leaves it out.)"
    sys.exit(message)
