"""Links to this project's own repository lead to files that it has, and those of the README work on PyPI."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pumer_hf import release

ROOT = Path(__file__).parents[2]
RAW = release.REPOSITORY.replace("https://github.com/", "https://raw.githubusercontent.com/")
FILE = re.compile(rf"(?:{release.REPOSITORY}/(?:blob|tree|edit|raw)|{RAW})/main/([^\s)\"'#?>`\\]+)")
PLACES = ("*.md", "*.cff", "*.yml", "setup.cfg", "docs/**/*", "examples/*", "src/**/*.jinja", "src/**/*.py")
TEXTS = {".md", ".cff", ".yml", ".cfg", ".html", ".py", ".ipynb", ".jinja"}


def linked():
    """The files of this repository to which somebody is sent by an address, and the page that sends them."""
    pages = {path for place in PLACES for path in ROOT.glob(place) if path.suffix in TEXTS}
    return [(page, name) for page in sorted(pages) for name in FILE.findall(page.read_text(encoding="utf-8"))]


def test_an_address_in_the_repository_is_that_of_a_file():
    found = linked()
    assert (ROOT / "setup.cfg", "CHANGELOG.md") in found
    assert [(page, name) for page, name in found if not (ROOT / name).exists()] == []


class Links(HTMLParser):
    """What the links and pictures of a page lead to, and the places of the page itself to which links can lead."""

    def __init__(self, page):
        super().__init__()
        self.addresses, self.anchors = set(), set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.addresses |= {value for name, value in attributes if name in ("href", "src") and value}
        self.anchors |= {f"#{value}" for name, value in attributes if name == "id"}


def test_pypi_shows_the_readme_with_whole_addresses():
    """PyPI has the README's text alone: no other file of the repository, and no page beside it."""
    markdown = pytest.importorskip("readme_renderer.markdown", reason="it is PyPI's: pip install readme-renderer[md]")
    page = markdown.render((ROOT / "README.md").read_text(encoding="utf-8"))
    links = Links(page)
    elsewhere = {address for address in links.addresses if not address.startswith("https://")}
    assert elsewhere < links.addresses
    assert elsewhere - links.anchors == set()
