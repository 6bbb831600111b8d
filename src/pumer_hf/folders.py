"""Writing a folder whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(destination: str | Path) -> Iterator[Path]:
    """Give a folder to write into, and move what is in it to `destination` at the end.

    After an error in what writes, `destination` is as it was before. Files that are there already stay, unless one of
    the same name is written.

    Raises:
        ValueError: `destination` is a file.
        OSError: nothing can be written there.
    """
    destination = Path(destination).resolve()
    if destination.exists() and not destination.is_dir():
        raise ValueError(f"{destination} is a file: give a folder")
    name = f".{destination.name}.{os.getpid()}"
    # On the same disk: a folder that is there may be one of its own.
    unfinished = destination / name if destination.is_dir() else destination.with_name(name)
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
