"""CONTRIBUTING.md and docs/adding.md name files, commands and names in the code; all of them exist."""

import re
import shlex
from pathlib import Path

import pytest

from pumer_hf.cli import build_parser

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ADDING = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE))
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", TEXT + ADDING, flags=re.DOTALL))
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
PROGRAMS = ("make", "python", "pumer-hf", "accelerate")
COMMANDS = [text for text in (*LINES, *SPANS) if text.split()[0] in PROGRAMS and " " in text]
PATHS = [text for text in SPANS if re.match(r"(src|tests|recipes|benchmarks)/", text) and " " not in text]


def test_something_is_read():
    assert len(COMMANDS) > 10
    assert len(PATHS) > 20


@pytest.mark.parametrize("path", PATHS)
def test_a_path_leads_to_a_file(path):
    """A part in angle brackets stands for a name: one file of such a name is there."""
    assert list(ROOT.glob(re.sub(r"<\w+>", "*", path)))


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", TEXT))
def test_a_link_leads_to_a_file(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one(command):
    program, *words = shlex.split(command, comments=True)
    if program == "make":
        assert set(words) <= TARGETS
    elif program == "pumer-hf":
        assert len(words) == 1 or build_parser().parse_args(words)
    else:
        files = [word for word in words if word.endswith((".py", ".yaml", ".md"))]
        assert files
        assert all(list(ROOT.glob(re.sub(r"<\w+>", "*", file))) for file in files)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("METHODS", "src/pumer_hf/reducers/__init__.py"),
        ("TokenReducer", "src/pumer_hf/reducers/base.py"),
        ("ReductionConfig", "src/pumer_hf/reducers/base.py"),
        ("SCHEDULES", "tests/tiny_models.py"),
        ("FAMILIES", "tests/tiny_models.py"),
        ("FAMILIES", "src/pumer_hf/models/families.py"),
        ("Task", "src/pumer_hf/data/task.py"),
        ("TASKS", "src/pumer_hf_cli/choices.py"),
        ("BACKBONES", "src/pumer_hf_cli/choices.py"),
    ],
)
def test_a_name_is_where_the_text_says(name, path):
    assert f"`{name}`" in ADDING
    assert path in ADDING
    code = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^(class )?{name}\b", code, re.MULTILINE)
