import pytest

from laboratory.methods import (
    ABLATIONS,
    MAIN,
    METHODS,
    NONE,
    RESOLUTION,
    TRAINING_FREE,
    available,
    base_schedule,
    variant_of,
)
from laboratory.plan import DATA_SETS, SEEDS, SETTINGS, SPEEDS, Cell, work_list
from laboratory.speeds import changed
from pumer_hf.configuration import PuMerConfig
from pumer_hf.data.tasks import TASKS
from pumer_hf.reducers import METHODS as REDUCERS
from pumer_hf.reducers import parse_reduction

DEPTHS = {"vilt": 6, "meter": 3}


def every(backbone):
    """All methods of the table, whether the registry has them or not."""
    return [name for name, method in METHODS.items() if backbone in method.schedules]


@pytest.mark.parametrize("setting", SETTINGS)
def test_keys_are_unique_and_good_file_names(setting):
    cells = work_list(SETTINGS[setting], every)
    keys = [cell.key for cell in cells]
    assert len(set(keys)) == len(keys)
    assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.") for key in keys)
    assert not {cell.schedule_key for cell in cells} & set(keys)


def test_a_key_says_all():
    cell = Cell("digit_scenes", "vilt", "pumer", 1.7, 2)
    assert cell.key == "digit_scenes-vilt-pumer-main-1.7x-seed2"
    assert cell.schedule_key == "digit_scenes-vilt-pumer-main-1.7x-speed"
    assert Cell("easy_vqa", "vilt", "none", None).key == "easy_vqa-vilt-none-main-as_is-seed0"


def test_the_cpu_setting_has_every_method_speed_and_seed():
    cells = work_list(SETTINGS["cpu"], every)
    assert {cell.group for cell in cells} == {"digit_scenes-vilt"}
    main = {(cell.method, cell.target, cell.seed) for cell in cells if cell.variant == MAIN}
    reducing = set(every("vilt")) - {NONE}
    assert main == {(name, speed, seed) for name in reducing for speed in SPEEDS for seed in SEEDS} | {
        (NONE, None, seed) for seed in SEEDS
    }
    untrained = {cell.method for cell in cells if cell.variant == TRAINING_FREE}
    assert untrained == reducing - {"tip", "dynamicvit"}
    ablations = {(cell.method, cell.variant) for cell in cells if cell.variant not in (MAIN, TRAINING_FREE)}
    assert ablations == {(method, name) for method, variants in ABLATIONS.items() for name in variants}
    assert len(cells) == 3 + 7 * 9 + 5 * 3 + 10 + 13


def test_the_gpu_setting_begins_like_the_cpu_setting_and_has_all_data():
    cells, first = work_list(SETTINGS["gpu"], every), work_list(SETTINGS["cpu"], every)
    assert cells[: len(first)] == first
    assert cells[len(first)].group == "digit_scenes-meter"
    groups = list(dict.fromkeys(cell.group for cell in cells))
    assert set(groups) == {f"{data}-{backbone}" for data in DATA_SETS for backbone in DEPTHS} - {"easy_vqa-meter"}
    order = [cell.group for cell in cells]
    assert order == sorted(order, key=groups.index)  # a group is not left and come back to
    assert any(cell.method == RESOLUTION and cell.backbone == "meter" for cell in cells)
    # its boxes are those of the questions
    assert {cell.data for cell in cells if cell.method == "grounded"} == {"digit_scenes"}


def test_the_most_important_come_first():
    cells = work_list(SETTINGS["cpu"], every)
    number = len(every("vilt"))
    assert {(cell.seed, cell.variant) for cell in cells[:number]} == {(0, MAIN)}
    assert {cell.target for cell in cells[:number]} == {None, 1.7}
    assert [cell.seed for cell in cells[: 3 * number]] == sorted(cell.seed for cell in cells[: 3 * number])
    rest = [cell.target for cell in cells[3 * number : 3 * number + 6 * (number - 1)]]
    assert rest == sorted(rest, reverse=True)
    kinds = [{MAIN: 0, TRAINING_FREE: 1}.get(cell.variant, 2) for cell in cells]
    assert kinds == sorted(kinds)


def test_methods_join_by_the_registry(monkeypatch):
    assert available("vilt")[0] == NONE
    assert set(available("vilt")) == {name for name in METHODS if name in {NONE, RESOLUTION, *REDUCERS}}
    monkeypatch.delitem(REDUCERS, "pumer")
    assert "pumer" not in available("vilt")
    assert "pumer" not in {cell.method for cell in work_list(SETTINGS["cpu"])}


@pytest.mark.parametrize(
    ("method", "backbone"), [(name, backbone) for backbone in DEPTHS for name in available(backbone)]
)
def test_schedules_are_complete_and_fit_the_models(method, backbone):
    schedule = base_schedule(method, backbone, variant_of(method, MAIN))
    config = PuMerConfig()
    config.num_hidden_layers = DEPTHS[backbone]
    checked = config.checked(schedule)
    assert (checked is None) == (method in (NONE, RESOLUTION))
    for name, variant in ABLATIONS.get(method, {}).items() if backbone == "vilt" else ():
        own = base_schedule(method, backbone, variant)
        if not variant.schedule:
            own = changed(checked.to_dict(), variant)
        parsed = parse_reduction(own)
        parsed.at("layers").validate_depth(DEPTHS[backbone])
        assert variant.reduces_alike == (parsed == parse_reduction(schedule)), name


def test_a_variant_that_only_trains_otherwise_shares_the_schedule():
    plain = Cell("digit_scenes", "vilt", "pumer", 1.7)
    for variant, shares in {"without_distillation": True, TRAINING_FREE: True, "without_pruning": False}.items():
        cell = Cell("digit_scenes", "vilt", "pumer", 1.7, variant=variant)
        assert (cell.schedule_key == plain.schedule_key) == shares


def test_every_data_set_has_a_recipe_and_a_task():
    assert set(DATA_SETS.values()) <= set(TASKS)
