"""What setuptools makes of this repository: an sdist with all that tests and README need, and whole metadata."""

import subprocess
import tarfile
from configparser import ConfigParser
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from builds import ROOT, built, copy_of

from pumer_hf import release

pytest.importorskip("setuptools", minversion="77", reason="it builds the package")
GENERATED = {"PKG-INFO", "setup.cfg"}


@pytest.fixture(scope="module")
def tracked():
    """The files of the repository that are for somebody who has no clone: not those of git and of the style check."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone, so git does not say what belongs to it")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.splitlines() if not name.startswith(".") and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def sdist(tracked, tmp_path_factory):
    clone = copy_of(tracked, tmp_path_factory.mktemp("clone"))
    (clone / "tests" / "__pycache__").mkdir()
    (clone / "tests" / "__pycache__" / "x.cpython-312.pyc").write_bytes(b"")
    return built(clone, "build_sdist", tmp_path_factory.mktemp("sdist"))


def test_the_sdist_holds_what_tests_and_readme_need(sdist, tracked):
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    assert len(tracked) > 300
    assert tracked - held == set(), "name them in MANIFEST.in"
    more = {name for name in held - tracked if not name.startswith("src/pumer_hf.egg-info/")}
    assert more <= GENERATED


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel of the sdist, which is what `python -m build` makes."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("pumer_hf-*")
    return built(unpacked, "build_wheel", tmp_path_factory.mktemp("wheel"))


def test_a_wheel_of_the_sdist_has_the_recipe_files(wheel):
    with ZipFile(wheel) as archive:
        held = {name.removeprefix("pumer_hf/recipes/files/") for name in archive.namelist() if name.endswith(".yaml")}
    assert held == {path.relative_to(ROOT / "recipes").as_posix() for path in ROOT.glob("recipes/*/*/*.yaml")}
    assert held


def test_pypi_takes_both_files(sdist, wheel):
    """`check` returns whether one of them has a fault. With `strict`, a warning is one."""
    check = pytest.importorskip("twine.commands.check", reason="it reads what PyPI reads: pip install twine")
    assert not check.check([str(sdist), str(wheel)], strict=True)


def test_the_wheel_and_the_model_in_it_are_small(wheel):
    """A pushed model may carry this wheel, and somebody waits for each download."""
    with ZipFile(wheel) as archive:
        model = [one.compress_size for one in archive.infolist() if one.filename.startswith("pumer_hf/example/model/")]
    assert len(model) > 3
    assert sum(model) < 1.5e6
    assert wheel.stat().st_size < 2.5e6


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    names = ("src", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
    clone = copy_of(names, tmp_path_factory.mktemp("clone"))
    info = built(clone, "prepare_metadata_for_build_wheel", tmp_path_factory.mktemp("metadata"))
    return message_from_string((info / "METADATA").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_licence_is_the_same_everywhere(metadata, citation):
    assert metadata["License-Expression"] == citation["license"]
    assert metadata["License-Expression"].lower() == release.LICENSE
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert not [line for line in metadata.get_all("Classifier") if line.startswith("License ::")]


def test_authors_and_version_are_those_to_cite(metadata, citation):
    assert metadata["Author"] == ", ".join(author["name"] for author in citation["authors"])
    assert metadata["Version"] == citation["version"]


def test_the_addresses_are_those_that_are_known(metadata, citation):
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL"))
    assert urls == {
        "Documentation": release.DOCS,
        "Source": release.REPOSITORY,
        "Changelog": f"{release.REPOSITORY}/blob/main/CHANGELOG.md",
        "Issues": f"{release.REPOSITORY}/issues",
        "Paper": citation["preferred-citation"]["url"],
    }
    assert citation["repository-code"] == release.REPOSITORY
    assert citation["url"] == release.DOCS


def test_every_python_from_the_lowest_on_has_a_classifier(metadata):
    start = "Programming Language :: Python :: 3."
    minors = [int(line.removeprefix(start)) for line in metadata.get_all("Classifier") if line.startswith(start)]
    assert f">=3.{minors[0]}" == metadata["Requires-Python"]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert minors[-1] >= 13


def test_the_package_data_are_those_that_a_carried_wheel_has(metadata):
    from pumer_hf.wheel import SUFFIXES

    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = [name.strip() for line in config["options.package_data"].values() for name in line.split(",")]
    assert {Path(name).suffix or name for name in listed} == set(SUFFIXES) - {".py"}
