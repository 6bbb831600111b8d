"""The notebooks in examples/: their cells run, and what they store is complete and for other people."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import run_notebooks

from notebooks import FOLDER, NOTEBOOKS, install_cell, problems, run
from pumer_hf import release
from pumer_hf.models.families import DECODERS
from pumer_hf.release import DOCS, REPOSITORY

ROOT = Path(__file__).parents[2]
CODE_LINKS = rf"{re.escape(REPOSITORY)}/(?:blob|tree)/main/"
FIGURE = re.compile(r"\d\s*(?:%|percent|times|ms\b|x\b|seconds)")
SAME = "reproducible"
"""The tag of a cell that prints the same on every machine, and with the values of `SMALL`."""
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def cells(path, kind):
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def prose(path):
    return "\n".join(map(source, cells(path, "markdown")))


def shown(cell):
    """What a cell printed and returned as text."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell["outputs"]]
    return "".join(map("".join, texts))


def compare(path, printed):
    """Compare what the tagged cells of a notebook print with what it stores."""
    tagged = [cell for cell in cells(path, "code") if SAME in cell["metadata"].get("tags", ())]
    assert tagged
    for cell in tagged:
        assert shown(cell).split() == printed[cell["id"]].split(), cell["id"]


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 4


@each
def test_the_file_is_a_small_notebook_of_format_4(path):
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}  # no widgets, no version
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert path.stat().st_size < 300_000


@each
def test_each_cell_has_been_run_in_order_and_shows_its_output(path):
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    printing = [cell for cell in code if re.search(r"^ *(print|display)\(", source(cell), re.MULTILINE)]
    assert [cell["id"] for cell in printing if not cell["outputs"]] == []


@each
def test_what_is_stored_is_for_other_people(path):
    notebook = read(path)
    assert problems(notebook) == []
    assert not any(FOLDER.search(source(cell)) for cell in notebook["cells"])


@pytest.mark.parametrize(
    ("output", "is_wrong"),
    [
        (
            {"output_type": "stream", "name": "stdout", "text": ["saved in student/model\n", "https://a.b/tmp/c"]},
            False,
        ),
        ({"output_type": "stream", "name": "stdout", "text": ["saved in /home/me/model\n"]}, True),
        ({"output_type": "execute_result", "data": {"text/plain": "'/tmp/x/y.png'"}}, True),
        ({"output_type": "stream", "name": "stderr", "text": ["UserWarning"]}, True),
        ({"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {}}}, True),
        ({"output_type": "error", "ename": "ValueError"}, True),
    ],
)
def test_paths_warnings_and_widgets_are_noticed(output, is_wrong):
    assert bool(problems({"cells": [{}, {"outputs": [output]}]})) == is_wrong


@each
def test_the_head_says_how_to_open_and_to_install(path):
    head, install, settings = read(path)["cells"][:3]
    assert re.match(r"# \w", source(head))
    place = f"{REPOSITORY.removeprefix('https://github.com/')}/blob/main/examples/{path.name}"
    assert f"(https://colab.research.google.com/github/{place})" in source(head)
    assert f"(https://kaggle.com/kernels/welcome?src=https://github.com/{place})" in source(head)
    assert source(install) == install_cell(), "run `make notebooks`"
    for line in source(settings).splitlines():
        assert re.fullmatch(r"[A-Z_]+ = .+  # .+", line), "each value at the top has its comment"


@pytest.mark.parametrize("published", [True, False])
def test_the_first_cell_installs_the_package_where_it_is_missing(published, monkeypatch):
    monkeypatch.setattr(release, "PUBLISHED", published)
    assert 'find_spec("pumer_hf") is None' in install_cell()
    assert f'%pip install -q "{release.PACKAGE}[digits]"' in install_cell()
    assert (f"PyPI has no {release.PACKAGE} yet" in install_cell()) != published


@each
def test_links_lead_to_files(path):
    links = re.findall(r"\]\(([^)]+)\)", prose(path))
    assert links
    for link in links:
        if link.startswith(DOCS):
            page = link.removeprefix(DOCS).partition("#")[0].strip("/")
            assert not page or (ROOT / "docs" / f"{page}.md").exists(), link
        elif found := re.match(CODE_LINKS, link):
            assert (ROOT / link[found.end() :]).exists(), link
        elif not link.startswith("https://"):
            assert (path.parent / link).exists(), link


@each
def test_no_figure_is_typed(path):
    assert FIGURE.search(prose(path)) is None


def test_a_figure_is_noticed():
    assert FIGURE.search("it is 2.1 times as fast")
    assert FIGURE.search("three of 64 patches") is None


@pytest.mark.skipif(not DECODERS, reason="needs transformers 5.18")
def test_the_cells_run_and_print_what_is_stored(tmp_path):
    output = tmp_path / "printed.json"
    command = [sys.executable, run_notebooks.__file__, str(output), *map(str, NOTEBOOKS)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
    assert process.returncode == 0, process.stderr[-3000:]
    printed = json.loads(output.read_text(encoding="utf-8"))
    for path in NOTEBOOKS:
        assert [
            cell["id"] for cell in cells(path, "code") if printed[path.stem][cell["id"]] and not cell["outputs"]
        ] == []
        compare(path, printed[path.stem])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not DECODERS, reason="needs transformers 5.18")
@each
def test_a_notebook_runs_as_a_whole(path, tmp_path, monkeypatch):
    for package in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(package, reason="make notebooks installs it")
    copy = Path(shutil.copy(path, tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    run(copy)
    compare(path, {cell["id"]: shown(cell) for cell in cells(copy, "code")})
