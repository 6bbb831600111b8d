import pytest

from laboratory.ablations import ABLATIONS
from laboratory.methods import LOOKAHEAD, MAIN, METHODS, NONE, RESOLUTION, available, base_schedule, variant_of
from laboratory.plan import DATA_SETS, SEEDS, SIZES, SPEEDS, Cell, work_list
from laboratory.saliencies import PUMER_PARTS, PuMerPartsReducer
from laboratory.shards import shard_of
from pumer_hf.configuration import PuMerConfig
from pumer_hf.data.tasks import TASKS
from pumer_hf.reducers import METHODS as REDUCERS
from pumer_hf.reducers import parse_reduction

DEPTHS = {"vilt": 6, "meter": 3}


def every(backbone):
    """All methods of the table, whether the registry has them or not."""
    return [name for name, method in METHODS.items() if backbone in method.schedules]


@pytest.mark.parametrize("setting", SIZES)
def test_keys_are_unique_and_good_file_names(setting):
    cells = work_list(SIZES[setting], every)
    keys = [cell.key for cell in cells]
    assert len(set(keys)) == len(keys)
    assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.") for key in keys)
    assert not {cell.schedule_key for cell in cells} & set(keys)


def test_a_key_says_all():
    cell = Cell("digit_scenes", "vilt", "pumer", 1.7, 2, is_trained=False)
    assert cell.key == "digit_scenes-vilt-pumer-main-1.7x-untrained-seed2"
    assert cell.schedule_key == "digit_scenes-vilt-pumer-main-1.7x-speed"
    assert Cell("easy_vqa", "vilt", "none", None).key == "easy_vqa-vilt-none-main-as_is-trained-seed0"


def test_the_cpu_size_has_every_method_and_seed():
    cells = [cell for cell in work_list(SIZES["cpu"], every) if cell.group == "digit_scenes_cluttered-vilt"]
    reducing = set(every("vilt")) - {NONE}
    main = {(cell.method, cell.target, cell.seed) for cell in cells if cell.variant == MAIN and cell.is_trained}
    assert main == {(name, 1.7, seed) for name in reducing for seed in SEEDS} | {(NONE, None, seed) for seed in SEEDS}
    untrained = {(cell.method, cell.target) for cell in cells if cell.variant == MAIN and not cell.is_trained}
    assert untrained == {(name, speed) for name in reducing - {"tip", "dynamicvit"} for speed in SPEEDS}
    ablations = {(cell.method, cell.variant, cell.target) for cell in cells if cell.variant != MAIN}
    assert ablations == {(method, name, 1.7) for method, variants in ABLATIONS.items() for name in variants}


def test_the_gpu_size_has_all_data():
    cells = work_list(SIZES["gpu"], every)
    groups = list(dict.fromkeys(cell.group for cell in cells))
    missing = {"easy_vqa-meter", "digit_scenes_cluttered-meter"}  # which have no recipe
    assert set(groups) == {f"{data}-{backbone}" for data in DATA_SETS for backbone in DEPTHS} - missing
    order = [cell.group for cell in cells]
    assert order == sorted(order, key=groups.index)  # a group is not left and come back to
    # its boxes are those of the questions
    assert {cell.data for cell in cells if cell.method == "grounded"} == {"digit_scenes", "digit_scenes_cluttered"}


def test_the_cells_of_a_method_are_on_one_machine_and_none_is_lost():
    cells = work_list(SIZES["cpu"], every)
    parts = [shard_of(cells, f"{shard}/3", lambda cell: (cell.group, cell.method)) for shard in (1, 2, 3)]
    assert sorted(cell.key for part in parts for cell in part) == sorted(cell.key for cell in cells)
    owners = [{(cell.group, cell.method) for cell in part} for part in parts]
    assert not owners[0] & owners[1] | owners[0] & owners[2] | owners[1] & owners[2]
    assert max(map(len, owners)) - min(map(len, owners)) <= 1


def test_a_part_of_the_work_has_one_seed_after_the_other():
    cells = [cell for cell in work_list(SIZES["cpu"], every) if cell.group == "digit_scenes-vilt"]
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)


def test_methods_join_by_the_registry(monkeypatch):
    assert available("vilt")[0] == NONE
    assert set(available("vilt")) == set(METHODS) - {"tome_tower"}
    assert LOOKAHEAD in available("meter")
    others = {name: reducer for name, reducer in REDUCERS.items() if name != "pumer"}  # the table keeps its order
    monkeypatch.setattr("laboratory.methods.REDUCERS", others)
    assert "pumer" not in available("vilt")
    assert "pumer" not in {cell.method for cell in work_list(SIZES["cpu"])}


@pytest.mark.parametrize(
    ("method", "backbone"), [(name, backbone) for backbone in DEPTHS for name in available(backbone)]
)
def test_schedules_are_complete_and_fit_the_models(method, backbone, monkeypatch):
    monkeypatch.setitem(REDUCERS, PUMER_PARTS, PuMerPartsReducer)
    schedule = base_schedule(method, backbone, variant_of(method, MAIN))
    config = PuMerConfig()
    config.num_hidden_layers = DEPTHS[backbone]
    checked = None if method == "tome_tower" else config.checked(schedule)  # which only METER's config knows
    assert (checked is None) == (method in (NONE, RESOLUTION, "tome_tower"))
    for name, variant in ABLATIONS.get(method, {}).items() if backbone == "vilt" else ():
        own = {**base_schedule(method, backbone, variant), **variant.fields}
        parsed = parse_reduction(own)
        parsed.at("layers").validate_depth(DEPTHS[backbone])
        assert variant.reduces_alike == (parsed == parse_reduction(schedule)), name


def test_a_variant_that_only_trains_otherwise_shares_the_schedule():
    plain = Cell("digit_scenes", "vilt", "pumer", 1.7)
    for variant, shares in {"without_distillation": True, "prunes_alone": False, "drops": False}.items():
        cell = Cell("digit_scenes", "vilt", "pumer", 1.7, variant=variant)
        assert (cell.schedule_key == plain.schedule_key) == shares


def test_every_data_set_has_a_recipe_and_a_task():
    assert set(DATA_SETS.values()) <= set(TASKS)
