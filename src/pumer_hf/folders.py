"""Writing a folder whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(destination: str | Path) -> Iterator[Path]:
    """Give a folder to write into, and move what is in it to `destination` at the end.

    After an error, `destination` is as it was before. Files that are there already stay, unless one of the same name
    is written.

    Raises:
        ValueError: `destination` is a file.
        OSError: nothing can be written there.
    """
    destination = Path(destination).absolute()
    if destination.exists() and not destination.is_dir():
        raise ValueError(f"{destination} is a file: give a folder")
    unfinished = destination.with_name(f".{destination.name}.{os.getpid()}")  # on the same disk
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise OSError(f"{destination}: nothing can be written there: {error.strerror}") from error
    try:
        yield unfinished
        if destination.is_dir():
            for path in unfinished.iterdir():
                path.replace(destination / path.name)
        else:
            unfinished.rename(destination)
    finally:
        if unfinished.exists():
            shutil.rmtree(unfinished)
