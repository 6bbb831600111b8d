"""Reads the code blocks of pages, and what a page shows as their output."""

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MEASURED = re.compile(r"\b\d[\d.,]*(?= ms\b| s\b|x(?!\w))")
"""What differs from machine to machine: a number before `ms` or `s`, and a speed such as 1.7x."""
ANYTHING = "..."
"""A line of shown output that stands for any lines, or the end of a line that stands for any words."""


@dataclass(frozen=True)
class Block:
    """A block of Python on a page."""

    page: str
    line: int
    """The number of its first line on the page."""
    code: str
    shown: str | None
    """The output that the page shows: the block `text` that follows, or the comments that end the block; else None."""


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return [code for found, code in FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def python_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    made = []
    for match, following in zip(found, [*found[1:], None]):
        if match[1] == "python":
            after = "" if following is None else text[match.end() : following.start()]
            follows = following is not None and following[1] == "text" and not after.strip()
            shown = following[2] if follows else comments_at_the_end(match[2])
            made.append(Block(page.stem, text.count("\n", 0, match.start()) + 2, match[2], shown))
    return made


def comments_at_the_end(code: str) -> str | None:
    lines = code.rstrip().splitlines()
    start = len(lines)
    while start and lines[start - 1].startswith("#"):
        start -= 1
    return "\n".join(line[1:].removeprefix(" ") for line in lines[start:]) or None


def agrees(printed: str, shown: str) -> bool:
    """Whether what was printed is what a page shows, apart from measured numbers and from lines that it leaves out."""
    pattern = "\n".join(map(line_pattern, MEASURED.sub("N", shown.strip()).splitlines()))
    lines = [line.rstrip() for line in MEASURED.sub("N", printed.strip()).splitlines()]
    return re.fullmatch(pattern, "\n".join(lines)) is not None


def line_pattern(line: str) -> str:
    if line == ANYTHING:
        return "(?s:.*)"
    return re.escape(line.removesuffix(ANYTHING)) + ".*" * line.endswith(ANYTHING)
