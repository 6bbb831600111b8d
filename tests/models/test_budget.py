"""A budget of FLOPs, which a schedule is scaled to."""

import pytest
import torch
from tiny import meter_fields, vilt_fields

from pumer_hf import PuMerMeterConfig, PuMerMeterModel, PuMerViltConfig, PuMerViltModel
from pumer_hf.flops import count_flops
from pumer_hf.reducers import parse_reduction
from pumer_hf.reducers.budget import with_budget
from pumer_hf.reducers.pumer import PuMerReductionConfig

PUMER = {"method": "pumer", "layers": [0, 1], "prune_ratio": 0.1, "image_merge_ratio": 0.3, "text_merge_ratio": 0.2}
SIDE = {"image_size": 96}
MODELS = {
    "vilt": lambda reduction=None: PuMerViltModel(PuMerViltConfig(**vilt_fields(**SIDE), reduction=reduction)).eval(),
    "meter": lambda reduction=None: PuMerMeterModel(
        PuMerMeterConfig(**meter_fields(vision={**SIDE, "num_hidden_layers": 2}), reduction=reduction)
    ).eval(),
}
LAYERS = ("pumer", "tip", "tome", "dynamicvit", "fastv", "pyramid", "random", "grounded")
INPUTS = ("pumer", "tip", "tome", "random", "grounded", "grid", "diverse", "relevant_diverse", "lookahead")
QUICK = [("vilt", "pumer", "layers"), ("vilt", "grid", "inputs"), ("meter", "tome", "layers")]
ALL = [
    *((backbone, method, "layers") for backbone in MODELS for method in LAYERS),
    *((backbone, method, "inputs") for backbone in MODELS for method in INPUTS),
]
PLACES = [place if place in QUICK else pytest.param(*place, marks=pytest.mark.slow) for place in ALL]


def spent(model):
    """The part of the unreduced FLOPs that a forward spends, on an input of another kind than the reference."""
    text = min(40, model.config.max_text_length)
    side = model.config.image_size
    inputs = {"input_ids": torch.ones(1, text, dtype=torch.long), "pixel_values": torch.rand(1, 3, side, side)}
    inputs["image_saliency"] = torch.rand(1, side, side)
    reducers = model.token_reduction.reducers
    with model.token_reduction.using({}):
        whole = count_flops(model, inputs)[0]
    with model.token_reduction.using(reducers):
        return count_flops(model, inputs)[0] / whole


@pytest.mark.parametrize(("backbone", "method", "site"), PLACES)
def test_each_method_meets_a_budget(backbone, method, site):
    model = MODELS[backbone]({"method": method, "site": site, "flops": 0.75})
    assert spent(model) == pytest.approx(0.75, abs=0.01)
    assert model.config.budget["spent"] == pytest.approx(spent(model), abs=0.0005)
    assert model.config.budget["image_tokens"] == 145
    assert "flops" not in model.config.reduction


@pytest.mark.parametrize("method", ["tome", pytest.param("lookahead", marks=pytest.mark.slow)])
def test_a_budget_inside_the_image_tower(method):
    model = MODELS["meter"]({"method": method, "site": "tower", "flops": 0.8})
    assert spent(model) == pytest.approx(0.8, abs=0.01)


def test_given_layers_and_ratios_keep_their_relation():
    model = MODELS["vilt"]()
    model.set_reduction(PUMER, flops=0.6)
    part = model.reduction.parts[0]
    assert part.layers == (0, 1)
    assert part.image_merge_ratio == pytest.approx(3 * part.prune_ratio, abs=1e-3)
    ratios = part
    model.set_reduction(flops=0.8)
    assert spent(model) == pytest.approx(0.8, abs=0.01)
    assert model.reduction.parts[0].prune_ratio < ratios.prune_ratio
    model.set_reduction(PUMER)
    assert model.config.budget is None
    assert model.reduction.parts[0].prune_ratio == 0.1


def test_several_parts_share_a_budget():
    model = MODELS["vilt"]()
    model.set_reduction([{"method": "grid", "site": "inputs", "keep_ratio": 0.8}, PUMER], flops=0.5)
    assert spent(model) == pytest.approx(0.5, abs=0.01)


def test_a_budget_is_saved_with_the_schedule_that_meets_it(tmp_path):
    model = MODELS["vilt"]({"method": "pumer", "flops": 0.6})
    model.save_pretrained(tmp_path)
    loaded = PuMerViltModel.from_pretrained(tmp_path)
    assert loaded.config.reduction == model.config.reduction
    assert loaded.config.budget == model.config.budget
    other = PuMerViltModel.from_pretrained(tmp_path, reduction={"method": "tome", "flops": 0.7})
    assert spent(other) == pytest.approx(0.7, abs=0.01)
    assert other.config.budget["flops"] == 0.7
    assert PuMerViltModel.from_pretrained(tmp_path, reduction=PUMER).config.budget is None


@pytest.mark.parametrize(
    ("reduction", "message"),
    [
        ({"method": "pumer", "flops": 0}, r"reduction.flops=0: must be a number in \(0, 1\)"),
        ({"method": "pumer", "flops": 1}, r"reduction.flops=1: must"),
        ({"method": "pumer", "flops": "half"}, "reduction.flops='half': must"),
        ({"method": "none", "flops": 0.5}, "method='none'"),
        ({"method": "pumer", "layers": [2], "flops": 0.1}, r"cannot spend less than 0\.\d+ .*since 0\.\d+ of them"),
        ({"method": "grid", "site": "inputs", "num_keep": 9, "flops": 0.5}, "num_keep=9: a number cannot be scaled"),
        ([{"method": "grid", "site": "inputs", "flops": 0.5}, {**PUMER, "flops": 0.5}], "flops stands 2 times"),
        ({**PUMER, "prune_ratio": 0, "image_merge_ratio": 0, "text_merge_ratio": 0, "flops": 0.5}, "no ratio above 0"),
    ],
)
def test_a_budget_that_cannot_be_met(reduction, message):
    model = MODELS["vilt"](PUMER)
    with pytest.raises(ValueError, match=message):
        model.set_reduction(reduction)
    assert model.config.reduction["prune_ratio"] == 0.1
    with pytest.raises(ValueError, match=message):
        MODELS["vilt"](reduction)


def test_a_budget_is_not_for_numbers_that_depend_on_the_data():
    with pytest.raises(ValueError, match="keep_mass=0.8: a budget is for"):
        MODELS["vilt"]({"method": "lookahead", "site": "inputs", "keep_mass": 0.8, "flops": 0.5})


def test_a_budget_between_two_numbers_of_tokens():
    model = PuMerViltModel(PuMerViltConfig(**vilt_fields(image_size=16)))
    with pytest.raises(ValueError, match=r"can spend 0\.\d+ or [01]\.\d+ of the unreduced"):
        model.set_reduction(method="grid", site="inputs", flops=0.98)


def test_the_record_of_a_budget_goes_with_its_schedule(tmp_path):
    model = MODELS["vilt"]({"method": "pumer", "flops": 0.6})
    assert model.config.to_dict()["budget"]["flops"] == 0.6
    model.resize_images(48)
    assert model.config.budget is None
    model = MODELS["vilt"]({"method": "pumer", "flops": 0.6})
    model.config.reduction = PUMER
    assert "budget" not in model.config.to_dict()
    assert model.config.schedule is not None
    assert model.config.budget is None


@pytest.mark.parametrize(
    "form", [[PuMerReductionConfig((0, 1), 0.1, 0.3, 0.2)], PuMerReductionConfig((0, 1), 0.1, 0.3, 0.2), [PUMER]]
)
def test_each_form_of_a_schedule_takes_a_budget(form):
    asked = with_budget(form, 0.6)
    assert parse_reduction(asked) == parse_reduction({**PUMER, "flops": 0.6})


def test_a_budget_needs_a_method():
    model = MODELS["vilt"]()
    with pytest.raises(ValueError, match="say which method shall meet it"):
        model.set_reduction(flops=0.5)
    with pytest.raises(ValueError, match=r"reduction.flops=1.5: must be a number in \(0, 1\)"):
        model.set_reduction(flops=1.5)
    with pytest.raises(ValueError, match="reduction='pumer': give a dict"):
        model.set_reduction("pumer", flops=0.5)
    with pytest.raises(ValueError, match="give it once"):
        model.set_reduction({"method": "pumer", "flops": 0.5}, flops=0.6)
    with pytest.raises(ValueError, match="leave `reduction` out"):
        model.set_reduction(PUMER, method="tome")
