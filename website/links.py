"""Links of pages: what GitHub resolves in the repository becomes what the site has, or an address on GitHub."""

import posixpath
import re

from . import ROOT, SITE

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^)\s]+)\)")
NAME = re.compile(r"(\[`[\w.]+`\])(?!\()")
PICTURES = "pictures"
"""The folder of the site for pictures of the repository that lie outside of docs/."""


def placed(text: str, module: str) -> str:
    """Return the text of a docstring for a page: each name that it refers to is followed by the docstring's module.

    `names.py` needs the module to find what the name stands for.
    """
    return NAME.sub(rf"\1({module})", text)


def rewritten(text: str, source: str, page: str, repository: str) -> str:
    """Return a text of the repository with the links that a page of the site needs.

    Args:
        text: Markdown.
        source: the file that the text comes from, relative to the repository. Its links are relative to this file.
        page: the page of the site, relative to docs/.
        repository: the address of the repository.
    """
    link = lambda match: f"{match['picture']}[{match['text']}]({target(match, source, page, repository)})"  # noqa: E731
    replaced = lambda part: LINK.sub(link, part)  # noqa: E731
    return "".join(
        part if part.startswith("```") else replaced(part)
        for part in re.split(r"(^```.*?^```)", text, flags=re.DOTALL | re.MULTILINE)
    )


def target(match: re.Match[str], source: str, page: str, repository: str) -> str:
    """Return what a link leads to on the site: a page, a picture, or a file on GitHub."""
    path, hash_sign, heading = match["target"].partition("#")
    if path.startswith(SITE):
        return relative(page_file(path.removeprefix(SITE)), page) + hash_sign + heading
    if not path or re.match(r"[a-z]+:", path):
        return match["target"]
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if file.startswith("docs/"):
        return relative(file.removeprefix("docs/"), page) + hash_sign + heading
    if match["picture"]:
        return relative(f"{PICTURES}/{file}", page)
    kind = "tree" if (ROOT / file).is_dir() else "blob"
    return f"{repository}/{kind}/main/{file}{hash_sign}{heading}"


def pictures_of(text: str, source: str) -> set[str]:
    """Return the pictures outside of docs/ that a text shows, relative to the repository."""
    folder = posixpath.dirname(source)
    paths = [match["target"] for match in LINK.finditer(text) if match["picture"] and ":" not in match["target"]]
    files = {posixpath.normpath(posixpath.join(folder, path)) for path in paths}
    return {file for file in files if not file.startswith("docs/")}


def page_file(address: str) -> str:
    """Return the file of a page from its address: `methods/pumer/` -> `methods/pumer.md`, `methods/` -> its index."""
    name = address.rstrip("/")
    if name in ("", "methods", "reference"):
        return posixpath.join(name, "index.md")
    return f"{name}.md"


def relative(file: str, page: str) -> str:
    """Return the path from a page to a file, both relative to docs/."""
    return posixpath.relpath(file, posixpath.dirname(page) or ".")
