"""What cards, Spaces and errors say about installing pumer-hf works without an index that has it."""

import ast
import re
import shlex
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import pumer_hf
from pumer_hf import release, remote_code
from pumer_hf.release import extra_command, install_commands

ROOT = Path(__file__).parents[2]
REQUIREMENTS = [
    "torch>=2.6",
    "matplotlib>=3; extra == 'study'",
    'scikit-learn; extra == "study"',
    'left-out; python_version < "3.0" and extra == "study"',
    'gradio>=6; extra == "demo"',
]


def test_while_nothing_is_published_the_wheel_of_the_model_is_installed(monkeypatch):
    monkeypatch.setattr(release, "PUBLISHED", False)
    download, install = install_commands("user/mine")
    assert shlex.split(download)[:3] == ["hf", "download", "user/mine"]
    assert shlex.split(download)[4] == release.WHEELS
    folder = shlex.split(download)[-1]
    assert install == f"pip install {folder}/*.whl"
    assert release.needs_wheel()


def test_where_nothing_is_pushed_a_clone_is_installed(monkeypatch):
    monkeypatch.setattr(release, "PUBLISHED", False)
    assert install_commands() == ["pip install -e ."]
    assert "`pip install -e .` in a clone" in remote_code.source("PuMerViltConfig")
    assert "hf download" not in remote_code.source("PuMerViltConfig")
    assert "hf download user/mine" in remote_code.source("PuMerViltConfig", "user/mine")


def imported_by(source):
    (line,) = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom))
    return {alias.name for alias in line.names}


@pytest.mark.parametrize(("name", "family"), [("PuMerViltConfig", "Vilt"), ("PuMerMeterProcessor", "Meter")])
def test_the_remote_code_imports_the_classes_of_its_own_family_alone(name, family):
    names = imported_by(remote_code.source(name))
    assert {f"PuMer{family}Config", f"PuMer{family}Model", f"PuMer{family}ForQuestionAnswering"} <= names
    assert all(one.startswith(f"PuMer{family}") for one in names)
    assert names <= set(pumer_hf.__all__)


def test_the_remote_code_of_a_family_of_another_package_imports_no_class():
    assert "import pumer_hf\n" in remote_code.source("ToyConfig")
    ast.parse(remote_code.source("ToyConfig"))


def test_a_published_package_is_installed_by_its_name(monkeypatch):
    monkeypatch.setattr(release, "PUBLISHED", True)
    assert install_commands("user/mine") == ["pip install pumer-hf"]
    assert not release.needs_wheel()


def test_an_extra_is_installed_by_the_packages_in_it(monkeypatch):
    """Which works wherever pumer-hf came from, and leaves it as it is."""
    monkeypatch.setattr(release, "requires", {"pumer-hf": REQUIREMENTS}.get)
    assert shlex.split(extra_command("study")) == ["pip", "install", "matplotlib>=3", "scikit-learn"]
    assert shlex.split(extra_command("demo")) == ["pip", "install", "gradio>=6"]
    with pytest.raises(ValueError, match="extra='sauce'"):
        extra_command("sauce")


def test_the_extra_of_a_clone_that_is_not_installed(monkeypatch):
    def nothing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(release, "requires", nothing)
    assert shlex.split(extra_command("demo")) == ["pip", "install", "-e", ".[demo]"]


def sources():
    folders = ("src", "model_cards", "recipes", "examples", "benchmarks", "tests")
    return [
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".jinja")
    ]


def test_nothing_else_says_how_to_install_the_package():
    """Only `release.py` knows whether PyPI has it; a clone is installed by `pip install -e`. README is below."""
    by_name = re.compile(r"pip install[^\n]*\bpumer-hf\b(?!/)")
    known = set(install_commands())  # which cards have
    allowed = {Path(release.__file__), Path(__file__)}
    assert len(sources()) > 100
    for path in sources():
        if path not in allowed:
            assert set(by_name.findall(path.read_text(encoding="utf-8"))) <= known, path


def test_every_extra_that_is_named_exists():
    named = {
        extra
        for folder in ("src", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for extra in re.findall(r"extra_command\([\"'](\w+)[\"']\)", path.read_text(encoding="utf-8"))
    }
    assert {"augment", "demo", "digits", "evaluate", "onnx", "study"} <= named
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert named <= set(config["options.extras_require"])
    assert all(extra_command(extra).startswith("pip install ") for extra in named)


def test_readme_and_pages_know_it_too():
    """README says `pip install pumer-hf`; as long as that does not work, a sentence says so."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*")]
    said = [path.name for path in pages if "PyPI has no pumer-hf yet" in path.read_text(encoding="utf-8")]
    assert ("README.md" in said) == release.needs_wheel()
    assert release.needs_wheel() or not said
