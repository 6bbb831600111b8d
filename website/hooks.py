"""What mkdocs calls while it builds the site: generated pages join the pages of docs/, and links are made to fit."""

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website import DOCS, ROOT, command_line, links, methods, names, reference

CHANGELOG = "CHANGELOG.md"


def generated() -> dict[str, str]:
    """Return the pages that docs/ lacks, by their paths in docs/. Their links are those of a file at this path."""
    return {
        **methods.pages(),
        **reference.pages(),
        "cli.md": command_line.page(),
        "changelog.md": (ROOT / CHANGELOG).read_text(encoding="utf-8"),
    }


def source_of(page: str) -> str:
    """Return the file of the repository to which the links of a page are relative."""
    return CHANGELOG if page == "changelog.md" else f"docs/{page}"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation: the tables `METHODS` and `AREAS` list the pages of two of its entries."""
    listed = {
        "methods/index.md": [{name: f"methods/{name}.md"} for name in methods.METHODS],
        "reference/index.md": [{area.title: f"reference/{name}.md"} for name, area in reference.AREAS.items()],
    }
    assert config.nav is not None
    for entry in config.nav:
        for content in entry.values():
            if isinstance(content, list) and isinstance(content[0], str):
                content += listed[content[0]]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the pictures that pages show from outside of docs/."""
    pages = generated()
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for file in DOCS.rglob("*.md"):
        pages[file.relative_to(DOCS).as_posix()] = file.read_text(encoding="utf-8")
    pictures = {picture for path, text in pages.items() for picture in links.pictures_of(text, source_of(path))}
    for picture in sorted(pictures):
        files.append(File.generated(config, f"{links.PICTURES}/{picture}", abs_src_path=str(ROOT / picture)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **kwargs: Any) -> str:
    """Make the links of a page fit the site, and link the names that it refers to as docstrings do."""
    path = page.file.src_uri
    text = names.linked(markdown, names.package())
    return links.rewritten(text, source_of(path), path, str(config.repo_url))
