import json

import pytest

from pumer_hf.reducers import METHODS, parse_method, parse_reduction
from pumer_hf.reducers.base import HIGHEST, HIGHEST_MERGE
from pumer_hf.reducers.pumer import PuMerReducer, PuMerReductionConfig

GOOD = {
    "method": "pumer",
    "layers": [1, 3],
    "prune_ratio": 0.1,
    "image_merge_ratio": [0.3, 0.5],
    "text_merge_ratio": 0,
}


def test_a_dict_round_trips_through_json():
    config = parse_method(GOOD)
    assert config == PuMerReductionConfig((1, 3), 0.1, (0.3, 0.5), 0.0)
    assert config.to_dict() == {**GOOD, "text_merge_ratio": 0.0, "saliency": "mean_head"}  # lists, no tuples
    assert parse_method(json.loads(json.dumps(config.to_dict()))) == config


def test_a_ratio_is_a_scalar_or_one_value_per_layer():
    config = parse_method(GOOD)
    assert [config.ratio("image_merge_ratio", layer) for layer in (1, 3)] == [0.3, 0.5]
    assert [config.ratio("prune_ratio", layer) for layer in (1, 3)] == [0.1, 0.1]


def test_none_means_no_reduction():
    assert parse_reduction(None) is None
    assert parse_reduction({"method": "none"}) is None


def test_scaled_ratios():
    scaled = parse_method(GOOD).scaled(0.5)
    assert scaled.layers == (1, 3)
    assert scaled.image_merge_ratio == (0.15, 0.25)
    assert scaled.prune_ratio == 0.05
    assert parse_method(GOOD).scaled(0).image_merge_ratio == (0.0, 0.0)
    assert parse_method(GOOD).scaled(1) == parse_method(GOOD)
    some = parse_method(GOOD).scaled({"image_merge_ratio": 3}, caps={"image_merge_ratio": 0.95, "prune_ratio": 0.0})
    assert some.image_merge_ratio == (pytest.approx(0.9), 0.95)
    assert some.prune_ratio == 0.1  # not named
    capped = parse_method(GOOD).scaled(3)
    assert capped.image_merge_ratio == (HIGHEST_MERGE, 0.5)  # a ratio above its cap stays
    assert parse_method(GOOD).scaled(30).prune_ratio == HIGHEST
    with pytest.raises(ValueError, match="reduction.prune_ratio=-0.1"):
        parse_method(GOOD).scaled({"prune_ratio": -1})


def test_a_schedule_must_fit_the_depth_of_the_model():
    config = parse_method({"method": "tome", "layers": [0, 1, 3], "merge_ratio": 0.1})
    config.validate_depth(4)
    with pytest.raises(ValueError, match=r"reduction.layers=\[0, 1, 3\] .*layer 3, .*0 to 2"):
        config.validate_depth(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "pummer"}, r"reduction.method='pummer': .*'none'.*'pumer'"),
        ({"method": None}, "reduction.method=None"),
        ({"prune_ration": 0.1}, "reduction.prune_ration .*'pumer': .*prune_ratio"),
        ({"prune_ratio": 1.0}, r"reduction.prune_ratio=1.0: .*\[0, 1\)"),
        ({"prune_ratio": -0.1}, r"reduction.prune_ratio=-0.1: .*\[0, 1\)"),
        ({"prune_ratio": float("nan")}, "reduction.prune_ratio=nan"),
        ({"prune_ratio": True}, "reduction.prune_ratio=True"),
        ({"prune_ratio": "0.1"}, "reduction.prune_ratio='0.1'"),
        ({"saliency": "last_head"}, "reduction.saliency='last_head': .*mean_head, first_head"),
        ({"image_merge_ratio": [0.1]}, "reduction.image_merge_ratio .*1 values .*2 layers"),
        ({"layers": []}, r"reduction.layers=\[\]: .*at least one"),
        ({"layers": 2}, "reduction.layers=2: .*list"),
        ({"layers": [3, 1]}, r"reduction.layers=\[3, 1\].*ascend"),
        ({"layers": [1, 1]}, r"reduction.layers=\[1, 1\].*ascend"),
        ({"layers": [-1, 1]}, r"reduction.layers=\[-1, 1\].*at least 0"),
        ({"layers": [1.0, 2]}, r"reduction.layers=\[1.0, 2\].*integer"),
    ],
)
def test_a_bad_value_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        parse_reduction({**GOOD, **change})


def test_the_nearest_name_is_proposed_or_all_where_none_is_near():
    tip = {"method": "tip", "layers": [1], "prune_ratio": 0.1}
    with pytest.raises(ValueError, match=r"contrastive_weigth .*contrastive_weight\?"):
        parse_method({**tip, "contrastive_weigth": 1})
    with pytest.raises(ValueError, match="reduction.xyz .*layers .*prune_ratio .*pruner"):
        parse_method({**tip, "xyz": 1})


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match="reduction.method=None: .*pumer"):
        parse_reduction({"layers": [1]})
    with pytest.raises(ValueError, match="lacks prune_ratio, image_merge_ratio$"):
        parse_reduction({"method": "pumer", "layers": [1], "text_merge_ratio": 0.1})


def test_text_is_not_merged_unless_told():
    config = parse_method({name: value for name, value in GOOD.items() if name != "text_merge_ratio"})
    assert config.text_merge_ratio == 0.0
    assert config.to_dict() == parse_method(GOOD).to_dict()


def test_none_takes_no_other_field():
    with pytest.raises(ValueError, match="takes no other field"):
        parse_reduction({"method": "none", "layers": [1]})


def test_something_else_than_a_dict_is_refused():
    with pytest.raises(ValueError, match="dict, .*ReductionConfig .*None"):
        parse_reduction("pumer")


def test_each_method_is_registered_under_its_name():
    assert METHODS["pumer"] is PuMerReducer
    assert all(reducer.config_class.method == name for name, reducer in METHODS.items())
