import pytest
from tiny_models import FAMILIES
from tiny_tasks import REDUCTION

from laboratory.methods import ABLATIONS
from laboratory.speeds import (
    changed,
    distinct_schedules,
    with_factors,
)
from pumer_hf.bench.cost import measure_size
from pumer_hf.reducers.base import HIGHEST, HIGHEST_MERGE

SCHEDULE = {
    "method": "pumer",
    "layers": [0, 2],
    "prune_ratio": [0.05, 0.4],
    "image_merge_ratio": 0.2,
    "text_merge_ratio": 0.0,
}


def test_scaled_ratios_are_capped():
    assert with_factors(SCHEDULE, 2) == {**SCHEDULE, "prune_ratio": [0.1, 0.8], "image_merge_ratio": 0.4}
    assert with_factors(SCHEDULE, 3)["prune_ratio"] == [0.15, HIGHEST]
    assert with_factors(SCHEDULE, 3)["image_merge_ratio"] == HIGHEST_MERGE
    assert with_factors(SCHEDULE, 1) == SCHEDULE
    assert with_factors(SCHEDULE, {"prune_ratio": 0.0}) == {**SCHEDULE, "prune_ratio": [0.0, 0.0]}


def test_a_variant_changes_what_it_names():
    found = {**SCHEDULE, "text_merge_ratio": 0.3}
    variants = ABLATIONS["pumer"]
    assert changed(found, variants["without_pruning"]) == {**found, "prune_ratio": [0.0, 0.0]}
    merged = changed(found, variants["without_merging"])
    assert merged == {**found, "image_merge_ratio": 0.0, "text_merge_ratio": 0.0}
    assert changed(found, variants["late_layers"]) == {**found, "layers": [3, 4]}
    assert changed(found, variants["without_distillation"]) == found


@pytest.mark.parametrize("family", FAMILIES)
def test_schedules_of_a_real_model(family):
    example = {name: value[:1] for name, value in FAMILIES[family].inputs().items()}
    student = FAMILIES[family].model(reduction=REDUCTION)
    options = distinct_schedules(student, REDUCTION, 9, FAMILIES[family].num_image)
    assert len(options) > 10
    whole = measure_size(FAMILIES[family].model(), example).gflops
    gflops = []
    for option in (options[0], options[len(options) // 2], options[-1]):
        student.set_reduction(option)
        gflops.append(measure_size(student, example).gflops)
    assert whole > gflops[0] > gflops[1] > gflops[2]
    assert max(options[-1]["prune_ratio"]) == HIGHEST
