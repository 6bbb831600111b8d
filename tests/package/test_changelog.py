"""CHANGELOG.md, CITATION.cff and the code agree about the version."""

import datetime
import re
from pathlib import Path

import yaml

import pumer_hf
from pumer_hf.release import REPOSITORY

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]  # of Keep a Changelog, in its order


def entries():
    """The headings of the versions, the newest first, each with its date and its text; "Unreleased" has no date."""
    parts = re.split(r"^## \[?([^\]\s]+)\]?(?: - (\S+))?\n", re.sub(r"(?m)^\[.*\n?", "", TEXT), flags=re.MULTILINE)
    return list(zip(parts[1::3], parts[2::3], parts[3::3], strict=True))


def test_what_is_not_released_is_above_the_versions():
    (name, date, _), *versions = entries()
    assert (name, date) == ("Unreleased", None)
    dates = [datetime.date.fromisoformat(date) for _, date, _ in versions]
    assert dates == sorted(dates, reverse=True)


def test_the_newest_entry_is_that_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version, date, text = entries()[1]
    assert version == pumer_hf.__version__ == citation["version"]
    assert datetime.date.fromisoformat(date) == citation["date-released"]
    assert re.search(r"^- ", text, re.MULTILINE)


def test_changes_are_grouped_and_none_is_said_twice():
    for version, _, text in entries():
        found = re.findall(r"^### (.+)$", text, re.MULTILINE)
        assert found == [kind for kind in KINDS if kind in found], version
        changes = re.findall(r"^- (.*)$", text, re.MULTILINE)
        assert len(changes) == len(set(changes)), version


def test_the_headings_lead_to_the_changes_of_the_code():
    links = dict(re.findall(r"^\[(.+)\]: (.+)$", TEXT, re.MULTILINE))
    version = pumer_hf.__version__
    assert links["Unreleased"] == f"{REPOSITORY}/compare/v{version}...HEAD"
    assert links[version].endswith(f"v{version}")
    assert set(re.findall(r"^## \[(.+?)\]", TEXT, re.MULTILINE)) == set(links)
