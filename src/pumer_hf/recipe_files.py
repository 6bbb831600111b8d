"""The place of the recipe files of this project. Their paths are `<backbone>/<data>/<method>.yaml`.

Each of them is written once, in the folder `recipes/` of the repository. `setup.py` copies them into each package
that it builds. A clone, and so an editable installation, reads them in `recipes/` itself.
"""

from pathlib import Path

NAME = "recipes"
"""The folder in the repository. In README, cards and commands, the path of a recipe file begins with it."""
IN_PACKAGE = "pumer_hf/recipes/files"
"""The folder in a built package."""
PATTERN = "*/*/*.yaml"
"""The files of the folder that are recipes. The files in `accelerate/` are about hardware."""


def recipe_folder() -> Path:
    """Return the folder of all recipe files."""
    root = Path(__file__).resolve().parents[1]
    installed = root / IN_PACKAGE
    return installed if installed.is_dir() else root.parent / NAME


def find_recipe(path: Path) -> Path:
    """Return the file that a command line names.

    Args:
        path: the path of a file. A path such as `recipes/vilt/digit_scenes/tome.yaml` that does not exist means the
            file that comes with this package.
    """
    if path.exists() or path.parts[:1] != (NAME,):
        return path
    packaged = recipe_folder() / path.relative_to(NAME)
    return packaged if packaged.is_file() else path


def recipe_name(path: Path) -> str | None:
    """Return the path with which [`find_recipe`] finds a file of this package; None for any other file."""
    folder = recipe_folder()
    return f"{NAME}/{path.relative_to(folder).as_posix()}" if path.is_relative_to(folder) else None
