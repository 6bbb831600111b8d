"""The pages show each command, and how it is used."""

from builds import ROOT
from page_blocks import blocks
from page_commands import commands

from pumer_hf_cli import COMMANDS


def test_a_page_shows_each_command():
    found = [block for page in (ROOT / "docs").glob("*.md") for block in blocks(page, "sh")]
    shown = {words[1] for block in found for words in commands(block) if words[0] == "pumer-hf"}
    assert shown == {command.name for command in COMMANDS}
