"""The pages that the site makes of the code, and what it does to links. mkdocs is needed for the last test alone."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from builds import ROOT
from page_blocks import FENCE
from website import DOCS, SITE, command_line, links, methods, reference

import pumer_hf
from laboratory.methods import METHODS as STUDIED
from pumer_hf.reducers import METHODS, parse_reduction
from pumer_hf_cli import COMMANDS
from pumer_hf_cli import build_parsers as command_parsers

REPOSITORY = "https://github.com/me/it"
CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", METHODS)
def test_the_page_of_a_method(name):
    page = methods.page(name)
    assert METHODS[name].paper in page
    ((language, code),) = FENCE.findall(page)
    assert language == "python"
    schedules = [json.loads(part) for part in re.sub(r",\n}", "\n}", code).split("reduction = ")[1:]]
    assert [parse_reduction(schedule).parts[0].site for schedule in schedules] == methods.sites_of(name)
    assert f"recipes/vilt/digit_scenes/{name}.yaml" in page
    assert ("Not measured" in page) == (not any(f"| {row.replace('_', ' ')}" in page for row in rows_with(name)))


def rows_with(method):
    return [name for name, row in STUDIED.items() if method in row.reducers]


def test_the_study_has_rows_for_most_methods():
    assert "| lookahead + pumer |" in methods.page("pumer")
    assert "| tome |" not in methods.page("pumer")


def test_the_index_of_the_methods_has_each():
    index = methods.index()
    assert all(f"[`{name}`]({name}.md)" in index for name in METHODS)


def test_the_page_about_the_command_line_has_every_command_and_flag():
    page = command_line.page()
    _, parsers = command_parsers()
    for command in COMMANDS:
        section = page.partition(f"## pumer-hf {command.name}\n")[2].partition("\n## ")[0]
        assert command.example in section
        for action in parsers[command.name]._actions:
            assert action.dest == "help" or all(f"`{flag}" in section for flag in action.option_strings)


@pytest.mark.parametrize("name", pumer_hf.__all__)
def test_the_reference_has_every_public_name(name):
    found = getattr(pumer_hf, name)
    assert found.__module__ in reference.MODULES
    assert found.__doc__


@pytest.mark.parametrize(
    ("source", "text", "wanted"),
    [
        ("docs/a.md", "[x](b.md#c)", "[x](b.md#c)"),
        ("docs/a.md", "[x](../src/pumer_hf/ops.py)", f"[x]({REPOSITORY}/blob/main/src/pumer_hf/ops.py)"),
        ("docs/a.md", "[x](../recipes)", f"[x]({REPOSITORY}/tree/main/recipes)"),
        ("docs/a.md", "![x](../p/a.png)", "![x](pictures/p/a.png)"),
        ("docs/a.md", f"[x]({SITE}methods/pumer/#fields)", "[x](methods/pumer.md#fields)"),
        ("docs/a.md", f"[`x`]({SITE}reference/)", "[`x`](reference/index.md)"),
        ("docs/methods/a.md", "[x](../comparison.md)", "[x](../comparison.md)"),
        ("docs/methods/a.md", f"[x]({SITE}cli/)", "[x](../cli.md)"),
        ("docs/a.md", "[x](https://a.org) [x](#y)", "[x](https://a.org) [x](#y)"),
        ("docs/a.md", "```sh\n[x](../src)\n```\n", "```sh\n[x](../src)\n```\n"),
        ("CHANGELOG.md", "[x](docs/tuning.md)", "[x](tuning.md)"),
    ],
)
def test_links_fit_the_site(source, text, wanted):
    page = "changelog.md" if source == "CHANGELOG.md" else source.removeprefix("docs/")
    assert links.rewritten(text, source, page, REPOSITORY) == wanted


def listed(entries):
    """The pages of a part of the navigation."""
    for entry in entries:
        for content in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [content] if isinstance(content, str) else listed(content)


def test_the_navigation_has_every_page():
    config = yaml.safe_load(CONFIG)
    assert config["site_url"] == SITE
    made = {"cli.md", "changelog.md", "methods/index.md", "reference/index.md"}
    assert sorted(listed(config["nav"])) == sorted({*made, *(page.name for page in DOCS.glob("*.md"))})


@pytest.mark.slow
def test_the_site_can_be_built(tmp_path):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("needs mkdocs: make docs")
    path = os.pathsep.join(
        [*(str(ROOT / name) for name in ("src", "benchmarks", "")), os.environ.get("PYTHONPATH", "")]
    )
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    process = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "methods" / "pumer" / "index.html").is_file()
