"""What setuptools builds of this repository, from a copy, so that nothing is left in the clone."""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta as build; build.{hook}({folder!r})"


def copy_of(names: Iterable[str], folder: Path) -> Path:
    """A copy of files and folders of the repository, by their paths in it."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def built(clone: Path, hook: str, folder: Path) -> Path:
    """What a hook of setuptools makes of a copy, in an empty folder: an archive, or metadata. It needs no network."""
    command = [sys.executable, "-c", BUILD.format(hook=hook, folder=str(folder))]
    process = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    (made,) = (path for path in folder.iterdir() if path.suffix != ".egg-info")  # which it leaves beside metadata
    return made
