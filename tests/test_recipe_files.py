"""Where recipe files are found, in a clone and in an installed package."""

from pathlib import Path

import pytest

from pumer_hf import recipe_files
from pumer_hf.recipe_files import find_recipe, recipe_folder, recipe_name

ROOT = Path(__file__).parents[1]
NAME = "recipes/vilt/digit_scenes/tome.yaml"


@pytest.fixture(params=["clone", "package"])
def ours(request, tmp_path, monkeypatch):
    """A recipe file of this project, and the working directory of somebody who has no repository."""
    root = tmp_path / "site-packages"
    folder = root.parent / "recipes" if request.param == "clone" else root / "pumer_hf" / "recipes" / "files"
    path = folder / "vilt" / "digit_scenes" / "tome.yaml"
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setattr(recipe_files, "__file__", str(root / "pumer_hf" / "recipe_files.py"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return path


def test_a_recipe_has_the_same_name_everywhere(ours):
    assert recipe_folder() == ours.parents[2]
    assert find_recipe(Path(NAME)) == ours
    assert recipe_name(ours) == NAME


def test_a_file_that_is_there_comes_first(ours):
    Path(NAME).parent.mkdir(parents=True)
    Path(NAME).touch()
    assert find_recipe(Path(NAME)) == Path(NAME)
    assert recipe_name(Path(NAME).absolute()) is None


@pytest.mark.parametrize("path", ["vilt/digit_scenes/tome.yaml", "recipes/vilt/digit_scenes/gone.yaml", "a.yaml"])
def test_any_other_path_stays_as_it_is(path, ours):
    assert find_recipe(Path(path)) == Path(path)


def test_this_clone_has_its_recipes():
    assert recipe_folder() == ROOT / "recipes"
    assert find_recipe(Path(NAME)).read_text() == (ROOT / NAME).read_text()
