"""Speeds and FLOPs that are computed from numbers of tokens."""

import pytest

from pumer_hf.models.budget import Search, Spent
from pumer_hf.tuning.subjects import Subject

EFFICIENCY = 0.8
"""The part of the saved FLOPs that becomes speed."""


@pytest.fixture
def computed_speeds(monkeypatch):
    """Tiny models have speeds, although no reduction makes them faster, and their FLOPs need not be counted."""

    def part(search, index):
        found = 0.1 + 0.9 * search.tokens[index] / search.start
        search.known[index] = Spent(round(1000 * found), 100)
        return found

    def stopwatch(self, search, on_round=None):
        return lambda wanted: [1 + EFFICIENCY * (1 / search.part(index) - 1) for index in wanted]

    monkeypatch.setattr(Search, "part", part)
    monkeypatch.setattr(Subject, "stopwatch", stopwatch)
