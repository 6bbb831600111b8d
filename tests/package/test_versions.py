"""The versions that setup.cfg declares are those of the constraints files, with which the suite is run."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
TOOLS = {"mutmut", "mypy", "pre-commit", "ruff", "types-PyYAML", "types-tqdm"}  # no test needs them
OF_NOTEBOOKS = {"ipykernel", "ipywidgets", "nbclient", "nbformat"}  # `make notebooks` and a slow test need them
OF_SITE = {"mkdocs-material", "mkdocstrings"}  # `make docs` alone needs them
ON_GPUS = {"deepspeed"}  # it is not among what `make install-dev` installs


def pins(name, python):
    """The versions that a constraints file gives to a Python: by name."""
    found = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate({"python_version": python}):
                assert pin.name not in found, f"{name} has two versions of {pin.name} for Python {python}"
                found[pin.name] = next(iter(pin.specifier)).version
    return {canonicalize_name(key): value for key, value in found.items()}


def declared():
    """Every requirement of setup.cfg, extras included."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    blocks = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    lines = [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]
    return sorted(map(Requirement, set(lines)), key=str)


def lower_bound(requirement):
    return next((Version(one.version) for one in requirement.specifier if one.operator == ">="), None)


TESTED = [one for one in declared() if one.name not in TOOLS | OF_NOTEBOOKS | OF_SITE | ON_GPUS]


def test_the_requirements_are_read():
    assert {"torch", "transformers", "gradio", "pytest"} <= {one.name for one in TESTED}


@pytest.mark.parametrize("requirement", TESTED, ids=str)
def test_a_lower_bound_is_the_version_that_test_lowest_runs(requirement):
    bound = lower_bound(requirement)
    assert bound is not None, f"{requirement} declares no lower bound"
    assert bound == Version(pins("constraints-lowest.txt", "3.10")[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_the_tested_versions_are_in_the_declared_ranges(python):
    tested = pins("constraints.txt", python)
    for requirement in TESTED:
        assert requirement.specifier.contains(tested[canonicalize_name(requirement.name)]), requirement


def test_the_tests_are_collected_without_the_plugin_of_warnings():
    words = [sys.executable, "-m", "pytest", "-p", "no:warnings", "-p", "no:cacheprovider", "--collect-only", "-q"]
    process = subprocess.run(
        [*words, "tests/hub/test_trainer.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
