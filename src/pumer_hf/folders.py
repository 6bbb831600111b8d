"""Functions that write files and folders whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from safetensors import SafetensorError


@contextmanager
def whole_folder(destination: str | Path) -> Iterator[Path]:
    """Give a folder to write into, and move its content to `destination` at the end.

    After an error, `destination` is as it was before. Files that it holds already stay, unless one of the same name is
    written.

    Raises:
        ValueError: `destination` is a file.
        OSError: nothing can be written there.
    """
    destination = Path(destination).resolve()
    if destination.exists() and not destination.is_dir():
        raise ValueError(f"{destination} is a file: give a folder")
    name = f".{destination.name}.{os.getpid()}"
    unfinished = destination.with_name(name)
    if destination.is_dir() and destination.stat().st_dev != destination.parent.stat().st_dev:
        unfinished = destination / name  # `destination` is on another disk than its parent
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
    except SafetensorError as error:  # the disk may be full
        raise OSError(f"{destination}: the weights cannot be written there: {error}") from error
    finally:
        if unfinished.exists():
            shutil.rmtree(unfinished)


def check_writable(folder: Path, flag: str) -> None:
    """Make a folder. Raise `ValueError`, with the flag that names the folder, if no file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{flag}: nothing can be written to {folder} ({error.strerror}): choose another") from error


def check_file(path: str | Path, flag: str) -> None:
    """Raise `ValueError` or `FileNotFoundError`, with the flag that names a file, if that cannot be written."""
    folder = Path(path).parent
    if Path(path).is_dir():
        raise ValueError(f"{flag} {path}: it is a folder, give the name of a file")
    if not folder.is_dir():
        raise FileNotFoundError(f"{flag} {path}: there is no folder {folder}")
    check_writable(folder, f"{flag} {path}")


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a JSON file whole or not at all. If the run is killed meanwhile, the old file stays."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")
    os.replace(part, path)
