"""A method of another package, or of a notebook, works as the methods of the table do."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from tiny_models import FAMILIES

import pumer_hf
from pumer_hf.reducers import METHODS, parse_reduction
from pumer_hf.reducers.keeping import KeepingConfig, KeepingReducer
from pumer_hf.reducers.random import RandomReducer

SCHEDULE = {"method": "first", "site": "inputs", "num_keep": 3}


@dataclass(frozen=True)
class FirstConfig(KeepingConfig):
    method: ClassVar[str] = "first"


class FirstReducer(KeepingReducer):
    config_class = FirstConfig
    summary = "keep the first patches"
    paper = "a test"

    def choose(self, pair, features, num_keep):
        return torch.arange(num_keep).expand(len(features), -1), None


@pytest.fixture(autouse=True)
def table(monkeypatch):
    monkeypatch.setattr("pumer_hf.reducers.METHODS", known := dict(METHODS))
    return known


def test_a_registered_method_reduces():
    with pytest.raises(ValueError, match="method='first'"):
        parse_reduction(SCHEDULE)
    assert pumer_hf.register_method(FirstReducer) is FirstReducer
    family = FAMILIES["vilt"]
    model = family.model_class(family.config(reduction=SCHEDULE)).eval()
    (trace,) = model(**family.inputs()).reduction
    assert trace.keep.tolist() == [[0, 1, 2, 3]] * 3


def test_the_name_of_another_method_is_refused():
    class OtherRandom(RandomReducer):
        pass

    with pytest.raises(ValueError, match="method='random'.*RandomReducer"):
        pumer_hf.register_method(OtherRandom)
    pumer_hf.register_method(RandomReducer)


def test_a_cell_that_runs_again_takes_the_place_of_its_class(table):
    pumer_hf.register_method(FirstReducer)
    again = type(FirstReducer)("FirstReducer", (FirstReducer,), {"__module__": __name__})
    pumer_hf.register_method(again)
    assert table["first"] is again


class NoName(FirstReducer):
    config_class = KeepingConfig


class NoneName(FirstReducer):
    class config_class(FirstConfig):
        method = "none"


@pytest.mark.parametrize(("reducer", "message"), [(NoName, "KeepingConfig.method"), (NoneName, "method='none'")])
def test_a_method_that_would_never_be_found_is_refused(reducer, message, table):
    with pytest.raises(ValueError, match=message):
        pumer_hf.register_method(reducer)
    assert table == METHODS
