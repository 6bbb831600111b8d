"""The wheel that models and Spaces carry is the one that setuptools would build, and it works."""

import re
import subprocess
import sys
from zipfile import ZipFile

import pytest
from builds import ROOT, built, copy_of

from pumer_hf import wheel
from pumer_hf.wheel import make_wheel

SOURCES = ("src", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    pytest.importorskip("setuptools", minversion="77", reason="it builds the wheel to compare with")
    return copy_of(SOURCES, tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def official(clone, tmp_path_factory):
    return built(clone, "build_wheel", tmp_path_factory.mktemp("official"))


@pytest.fixture
def editable(clone, tmp_path_factory, monkeypatch):
    """The package as `pip install -e .` leaves it: code in the clone, metadata of now, and traces of this machine."""
    folder = tmp_path_factory.mktemp("editable")
    info = built(clone, "prepare_metadata_for_build_wheel", folder)
    (info / "direct_url.json").write_text('{"url": "file:///home/me/pumer-hf"}')
    (info / "WHEEL").write_text("Wheel-Version: 1.0\n")
    monkeypatch.syspath_prepend(str(folder))
    return info


@pytest.fixture
def made(editable, tmp_path):
    name, content = make_wheel()
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def contents(path):
    with ZipFile(path) as archive:
        assert archive.testzip() is None
        return {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}


def test_it_is_what_setuptools_builds(made, official):
    assert made.name == official.name
    ours, theirs = contents(made), contents(official)
    assert set(ours) == set(theirs)
    assert len(ours) > 100
    written_anew = [name for name in ours if name.endswith((".dist-info/WHEEL", ".dist-info/RECORD"))]
    assert len(written_anew) == 2
    assert all(ours[name] == theirs[name] for name in set(ours) - set(written_anew))
    hashes = [{line for line in found.decode().splitlines() if "WHEEL" not in line} for found in
              (ours[written_anew[-1]], theirs[written_anew[-1]])]  # fmt: skip
    assert hashes[0] == hashes[1]


def test_the_same_code_makes_the_same_bytes(made):
    assert make_wheel() == (made.name, made.read_bytes())


def test_it_tells_nothing_of_this_machine(made):
    for name, content in contents(made).items():
        assert b"/home/me" not in content
        assert str(ROOT).encode() not in content, name


def test_it_installs_and_runs_and_makes_itself_again(made, tmp_path):
    """As for somebody who has the wheel alone: no clone, no index."""
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--quiet", "--target", str(target), str(made)], check=True)
    (listed,) = [text.decode() for name, text in contents(made).items() if name.endswith("/entry_points.txt")]
    module, function = re.search(r"^pumer-hf = ([\w.]+):(\w+)$", listed, re.MULTILINE).groups()
    code = f"""
        import sys
        import {module}, pumer_hf
        from pumer_hf.hub.card import TEMPLATE
        from pumer_hf.wheel import make_wheel
        assert pumer_hf.__file__.startswith({str(target)!r}), pumer_hf.__file__
        assert {module}.__file__.startswith({str(target)!r})
        assert TEMPLATE.is_file()
        assert callable({module}.{function})
        sys.stdout.buffer.write(make_wheel()[1])
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(target)}, capture_output=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == made.read_bytes()


def test_without_an_installation_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(wheel, "distributions", lambda name: [])
    with pytest.raises(ImportError, match="pumer-hf is not installed.*pip install -e"):
        make_wheel()
