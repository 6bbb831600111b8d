"""Schedules of one site and of several, and the forms in which older versions wrote them."""

import json

import pytest

from pumer_hf.reducers import METHODS, Schedule, old_forms, parse_method, parse_reduction
from pumer_hf.reducers.base import HIGHEST, HIGHEST_MERGE, Layout
from pumer_hf.reducers.keeping import HIGHEST_DROP
from pumer_hf.reducers.pumer import PuMerReductionConfig
from pumer_hf.reducers.tome import ToMeReductionConfig

PUMER = {"method": "pumer", "layers": [1, 3], "prune_ratio": 0.1, "image_merge_ratio": 0.3, "text_merge_ratio": 0.2}
TOWER = {"method": "tome", "site": "tower", "merge_ratio": 0.25}
LAYERS_PART = PuMerReductionConfig((1, 3), 0.1, 0.3, 0.2)
TOWER_PART = ToMeReductionConfig((), 0.25, site="tower")


@pytest.fixture
def notes(monkeypatch):
    """What is noted about old forms."""
    found = []
    monkeypatch.setattr(old_forms.logger, "warning_once", found.append)
    return found


@pytest.mark.parametrize(
    "reduction",
    [PUMER, [PUMER], LAYERS_PART, [LAYERS_PART], (LAYERS_PART,), Schedule((LAYERS_PART,))],
    ids=["dict", "list", "config", "configs", "tuple", "schedule"],
)
def test_all_forms_of_one_part_give_the_same(reduction):
    schedule = parse_reduction(reduction)
    assert schedule == Schedule((LAYERS_PART,))
    assert schedule.to_dict() == {**PUMER, "saliency": "mean_head"}  # no list, no site
    assert schedule.at("layers") is schedule.parts[0]
    assert schedule.at("tower") is None


def test_parts_of_several_sites_are_a_list():
    schedule = parse_reduction([PUMER, TOWER])
    assert schedule == parse_reduction([TOWER, LAYERS_PART]) == Schedule((LAYERS_PART, TOWER_PART))
    assert [part.site for part in schedule.parts] == ["tower", "layers"]  # as tokens pass them
    assert schedule.to_dict() == [TOWER, {**PUMER, "saliency": "mean_head"}]
    assert parse_reduction(json.loads(json.dumps(schedule.to_dict()))) == schedule
    assert schedule.at("tower") == TOWER_PART


def test_a_schedule_is_scaled_in_all_its_parts():
    scaled = parse_reduction([PUMER, TOWER]).scaled(0.5)
    assert scaled.at("tower").merge_ratio == 0.125
    assert scaled.at("layers") == PuMerReductionConfig((1, 3), 0.05, 0.15, 0.1)
    for factor in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=f"factor={factor}: must be a number of at least 0"):
            parse_reduction(PUMER).scaled(factor)


def test_factors_go_from_almost_nothing_to_all_caps():
    schedule = parse_reduction([PUMER, TOWER, {"method": "grid", "site": "inputs", "keep_ratio": 0.75}])
    factors = schedule.factors(50)
    assert factors == sorted(factors)
    assert len(factors) == 50
    first, last = schedule.scaled(factors[0]), schedule.scaled(factors[-1])
    assert max(first.at("layers").prune_ratio, first.at("tower").merge_ratio, 1 - first.at("inputs").keep_ratio) < 0.06
    assert last.at("layers") == PuMerReductionConfig((1, 3), HIGHEST, HIGHEST_MERGE, HIGHEST_MERGE)
    assert last.at("inputs").keep_ratio == pytest.approx(1 - HIGHEST_DROP)
    with pytest.raises(ValueError, match="no ratio above 0"):
        parse_reduction({**TOWER, "merge_ratio": 0.0}).factors(9)
    with pytest.raises(ValueError, match="num_keep=3: a number cannot be scaled"):
        parse_reduction({"method": "grid", "site": "inputs", "num_keep": 3}).factors(9)


def test_a_budget_may_stand_for_layers_and_ratios():
    schedule = parse_reduction({"method": "pumer", "flops": 0.5})
    assert schedule.flops == 0.5
    assert schedule.at("layers") == PuMerReductionConfig((2, 5, 8), 0.1, 0.3, 0.2)  # 12 layers, as in the paper
    assert parse_reduction(schedule.to_dict()) == schedule
    deep = parse_reduction({"method": "fastv", "flops": 0.5}, Layout({"layers": 32}, first_layer=2, in_decoder=True))
    assert deep.at("layers").layers == (7,)
    several = parse_reduction([{"method": "diverse", "flops": 0.5}, {"method": "tome", "layers": [3]}])
    assert several.at("inputs").keep_ratio == 0.5
    assert several.at("layers").to_dict()["layers"] == [3]


def test_layers_of_a_tower_may_be_left_out_or_named():
    every = parse_method(TOWER)
    assert every.layers == ()
    assert all(every.reduces(layer) for layer in range(12))
    assert every.ratio("merge_ratio", 7) == 0.25
    some = parse_method({**TOWER, "layers": [0, 4], "merge_ratio": [0.1, 0.2]})
    assert [layer for layer in range(12) if some.reduces(layer)] == [0, 4]
    assert some.to_dict() == {"method": "tome", "site": "tower", "layers": [0, 4], "merge_ratio": [0.1, 0.2]}


@pytest.mark.parametrize(
    ("reduction", "message"),
    [
        ([], r"reduction=\[\]: give at least one"),
        ([PUMER, "tome"], "give a dict, a ReductionConfig or None, or a list of several"),
        ([PUMER, {"method": "none"}], "reduction.method='none'.* in a list"),
        ([{"method": "none"}], "reduction.method='none'.* in a list"),
        ({**TOWER, "merge_ratio": []}, r"reduction.merge_ratio=\[\]: .*at least one"),
        ({**TOWER, "layers": [], "merge_ratio": ()}, r"reduction.merge_ratio=\(\): .*at least one"),
        ({**PUMER, "method": ["pumer"]}, r"reduction.method=\['pumer'\]: choose one of"),
        ({**PUMER, "method": {}}, r"reduction.method=\{\}: choose one of"),
        ({"method": "tip", "layers": [1], "prune_ratio": 0.1, "pruner": ["mlp"]}, r"reduction.pruner=\['mlp'\]"),
        ({**PUMER, "image_tower_merge_ratio": []}, r"reduction.merge_ratio=\[\]"),
        ([PUMER, PUMER], "reduction.site='layers' stands in 2 schedules"),
        ({**PUMER, "site": "tower"}, "reduction.site='tower': method 'pumer' works at 'layers'"),
        ({**TOWER, "site": "towers"}, "reduction.site='towers': method 'tome' works at 'layers', 'tower'"),
        ({**TOWER, "site": "layers"}, r"reduction.layers=\(\): give a list with at least one layer"),
        ({**TOWER, "merge_ratio": [0.1, 0.1]}, "reduction.merge_ratio has 2 values for 0 layers: give one number"),
    ],
)
def test_a_wrong_schedule_is_named(reduction, message):
    with pytest.raises(ValueError, match=message):
        parse_reduction(reduction)


def test_every_method_works_in_the_layers_or_before_them():
    assert all({"layers", "inputs"} & set(reducer.config_class.sites) for reducer in METHODS.values())


def test_the_old_field_for_merging_in_the_tower_is_a_part_of_its_own(notes):
    old = {**PUMER, "image_tower_merge_ratio": 0.25}
    assert parse_reduction(old) == parse_reduction([PUMER, TOWER])
    (note,) = notes
    assert "reduction.image_tower_merge_ratio=0.25" in note
    assert str(TOWER) in note
    assert old["image_tower_merge_ratio"] == 0.25  # what was given stays as it is
    assert parse_reduction({**PUMER, "image_tower_merge_ratio": 0}) == parse_reduction(PUMER)
    with pytest.raises(ValueError, match=r"reduction.merge_ratio=1: a ratio must be a number in \[0, 1\)"):
        parse_reduction({**PUMER, "image_tower_merge_ratio": 1})


@pytest.mark.parametrize(
    ("old", "new"), [("mean_attention", "mean_head"), ("first_attention", "first_head"), ("mlp", "mlp")]
)
def test_old_words_for_the_heads_of_a_pruner_are_read(notes, old, new):
    schedule = parse_reduction({"method": "tip", "layers": [1], "prune_ratio": 0.1, "pruner": old})
    assert schedule.at("layers").pruner == new
    assert schedule.to_dict()["pruner"] == new
    assert len(notes) == (old != new)
