"""Builds the package. `setup.cfg` describes it; this file only copies the recipe files into it."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SOURCE = Path("recipes")
DESTINATION = Path("pumer_hf", "recipes", "files")


class BuildWithRecipes(build_py):
    """Build the package with the recipe files in it, so that a user of the wheel can train.

    The originals are in `recipes/`. An editable installation reads them there (`src/pumer_hf/recipe_files.py`).
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for path in sorted(SOURCE.glob("*/*/*.yaml")):
            copy = Path(self.build_lib) / DESTINATION / path.relative_to(SOURCE)
            self.mkpath(str(copy.parent))
            self.copy_file(str(path), str(copy))


setup(cmdclass={"build_py": BuildWithRecipes})
