"""The wheel that models and Spaces carry is the one that setuptools would build, and it works."""

import json
import re
import subprocess
import sys
from zipfile import ZipFile

import pytest
from builds import ROOT, built, copy_of

from pumer_hf import wheel
from pumer_hf.wheel import make_wheel

SOURCES = ("src", "recipes", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")


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


def say_editable(info, clone):
    (info / "direct_url.json").write_text(json.dumps({"url": clone.as_uri(), "dir_info": {"editable": True}}))


def test_an_editable_installation_that_fits_the_clone_makes_the_same_wheel(made, editable):
    say_editable(editable, ROOT)
    assert make_wheel() == (made.name, made.read_bytes())


@pytest.mark.parametrize(
    ("name", "then", "now", "message"),
    [
        ("METADATA", r"^Requires-Dist: accelerate>=[\d.]+$", "Requires-Dist: accelerate>=0.1", "accelerate>=0.1"),
        ("METADATA", r"^Requires-Dist: gradio.*$", "", "gradio"),
        ("METADATA", r"^Version: .*$", "Version: 0.0.1", "version.*0.0.1"),
        ("METADATA", r"^Requires-Python: .*$", "Requires-Python: >=3.7", "python>=3.7"),
        ("top_level.txt", r"^pumer_hf_cli\n", "", "package.* pumer_hf_cli"),
        ("top_level.txt", r"\Z", "\npumer_hf_old\n", "package.* pumer_hf_old"),
        ("entry_points.txt", r"^pumer-hf = .*$", "pumer-hf = pumer_hf.cli:main", "pumer_hf.cli:main"),
    ],
)
def test_an_editable_installation_of_before_is_refused(editable, name, then, now, message):
    """A wheel of it would install the code of now with the metadata of then."""
    say_editable(editable, ROOT)
    text, changes = re.subn(then, now, (editable / name).read_text(), flags=re.MULTILINE)
    assert changes
    (editable / name).write_text(text)
    with pytest.raises(ImportError, match=f"(?s){message}.*run `pip install -e .` again in {ROOT}"):
        make_wheel()
    with pytest.raises(ImportError, match="pip install -e"):
        wheel.installation()


def test_the_installation_of_another_clone_is_not_compared_with_this_one(made, editable, tmp_path):
    """As for who runs a second working tree by PYTHONPATH."""
    say_editable(editable, tmp_path)
    text = (editable / "METADATA").read_text()
    (editable / "METADATA").write_text(text.replace("Requires-Dist: accelerate", "Requires-Dist: accelerated"))
    assert make_wheel()[0] == made.name


def test_without_an_installation_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(wheel, "distributions", lambda name: [])
    with pytest.raises(ImportError, match="pumer-hf is not installed.*pip install -e"):
        make_wheel()
