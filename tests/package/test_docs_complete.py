"""The pages show each command, and how it is used."""

from builds import ROOT
from page_blocks import blocks
from page_commands import commands

from pumer_hf_cli import COMMANDS


def test_a_page_shows_each_command():
    lines = [words for page in (ROOT / "docs").glob("*.md") for block in blocks(page, "sh") for words in commands(block)]
    shown = {words[1] for words in lines if words[0] == "pumer-hf"}
    assert shown == {command.name for command in COMMANDS}
