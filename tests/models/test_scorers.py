"""Scorers of `lookahead` in folders of their own: saving, loading onto a model, and each error."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, vilt_config, vilt_inputs
from transformers import AutoModel, AutoModelForVisualQuestionAnswering, ViltConfig

from pumer_hf.models.encoders.vilt import PuMerViltForQuestionAnswering
from pumer_hf.models.scorers import (
    FINGERPRINT,
    SCORER_CONFIG,
    SCORER_WEIGHTS,
    ScorerRecord,
    fingerprint,
    same_base,
    save_scorer,
)
from pumer_hf.reducers import parse_method
from pumer_hf.training.scorer import add_scorer

LOOKAHEAD = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.5}
FORM = {"form": "words", "rank": 8, "target_layer": 2}
PUMER = {"method": "pumer", "layers": [1], "prune_ratio": 0.1, "image_merge_ratio": 0.2, "text_merge_ratio": 0.2}
UNTRAINED = "reduction.weights: .*'lookahead' needs a trained scorer: .*pumer-hf train-scorer .*--data"


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def save_parts(folder, name="vilt", site_fields=FORM):
    """Save an unreduced model, and a scorer that was trained behind it; returns both folders and the trained model."""
    model = FAMILIES[name].model()
    model.save_pretrained(folder / "base")
    model = type(model).from_pretrained(folder / "base")
    torch.manual_seed(3)
    add_scorer(model, {**LOOKAHEAD, **site_fields})
    save_scorer(model, folder / "scorer", trained_on="noise", steps=7)
    return str(folder / "base"), str(folder / "scorer"), kept_by(model, FAMILIES[name].inputs())


@pytest.fixture(scope="module")
def saved_vilt(tmp_path_factory):
    return save_parts(tmp_path_factory.mktemp("vilt"))


@pytest.fixture
def scorer(saved_vilt, tmp_path):
    """A copy of the scorer's folder, to spoil it."""
    return shutil.copytree(saved_vilt[1], tmp_path / "copy")


def with_weights(folder, **fields):
    return {**LOOKAHEAD, "weights": str(folder), **fields}


def kept_by(model, inputs):
    return model(**inputs).reduction[0].keep


def test_a_scorer_on_the_stock_checkpoint_chooses_the_same(tmp_path):
    """Saved apart, and loaded onto the files that transformers' own class has written."""
    torch.manual_seed(1)
    config = {**vilt_config().to_dict(), "hidden_dropout_prob": 0.0}
    for name in ("model_type", "reduction"):
        config.pop(name)
    stock = transformers.ViltForQuestionAnswering(ViltConfig(**config))
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    stock.save_pretrained(tmp_path / "stock")
    trained = PuMerViltForQuestionAnswering.from_pretrained(tmp_path / "stock")
    add_scorer(trained, {**LOOKAHEAD, **FORM})
    expected = trained(**vilt_inputs())
    save_scorer(trained, tmp_path / "scorer", trained_on="noise", steps=1)
    assert json.loads((tmp_path / "stock" / "config.json").read_text())["model_type"] == "vilt"
    loaded = PuMerViltForQuestionAnswering.from_pretrained(
        tmp_path / "stock", reduction=with_weights(tmp_path / "scorer")
    )
    found = loaded(**vilt_inputs())
    for ours, theirs in zip(found.reduction, expected.reduction, strict=True):
        assert torch.equal(ours.keep, theirs.keep)
        assert torch.equal(ours.saliency, theirs.saliency)
    assert torch.equal(found.logits, expected.logits)


def test_what_is_saved_is_the_scorer_alone(family, tmp_path):
    base, scorer, _ = save_parts(tmp_path, family.base_class.__name__[5:-5].lower())
    weights = load_file(f"{scorer}/{SCORER_WEIGHTS}")
    assert weights.pop(FINGERPRINT).dtype == torch.float32
    assert {name.split(".")[0] for name in weights} == {"scorer"}
    record = ScorerRecord.from_dict(json.loads((tmp_path / "scorer" / SCORER_CONFIG).read_text()))
    width = family.config().hidden_size
    assert (record.image_width, record.text_width) == (width, width)
    assert (record.base, record.base_type) == (base, family.config().model_type)
    assert (record.trained_on, record.steps) == ("noise", 7)
    assert record.part == parse_method({**LOOKAHEAD, **FORM}).to_dict()
    assert record.to_dict() == json.loads((tmp_path / "scorer" / SCORER_CONFIG).read_text())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_of_the_model_carries_the_scorer_inside(name, tmp_path):
    family = FAMILIES[name]
    base, scorer, kept = save_parts(tmp_path, name)
    model, report = family.model_class.from_pretrained(base, reduction=with_weights(scorer), output_loading_info=True)
    assert not any(report.values())
    expected = model(**family.inputs())
    assert torch.equal(expected.reduction[0].keep, kept)
    part = model.config.reduction
    assert (part["form"], part["rank"], part["target_layer"]) == ("words", 8, 2)
    assert "weights" not in part
    model.save_pretrained(tmp_path / "whole")
    shutil.rmtree(scorer)
    again, report = family.model_class.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(again(**family.inputs()).logits, expected.logits)
    auto = AutoModelForVisualQuestionAnswering.from_pretrained(tmp_path / "whole")
    assert torch.equal(auto(**family.inputs()).logits, expected.logits)


def test_another_budget_needs_no_new_weights(saved_vilt, tmp_path):
    base, scorer, kept = saved_vilt
    model = PuMerViltForQuestionAnswering.from_pretrained(base, reduction=with_weights(scorer))
    weights = model.base_model.inputs.reducer.state_dict()
    model.set_reduction({**LOOKAHEAD, "keep_ratio": 0.25})
    few = kept_by(model, vilt_inputs())
    assert few.shape[1] == 5
    assert model.config.reduction["form"] == "words"
    for between in (None, PUMER, {"method": "grid", "site": "inputs", "num_keep": 3}):
        model.set_reduction(between)
        model.set_reduction(LOOKAHEAD)
        assert torch.equal(kept_by(model, vilt_inputs()), kept)
    for name, value in model.base_model.inputs.reducer.state_dict().items():
        assert torch.equal(value, weights[name])
    model.save_pretrained(tmp_path)
    budget = {**LOOKAHEAD, "keep_ratio": 0.25}  # without the form, which is not the default
    for again in (
        PuMerViltForQuestionAnswering.from_pretrained(tmp_path, reduction=budget),
        AutoModelForVisualQuestionAnswering.from_pretrained(tmp_path, reduction=budget),
    ):
        assert torch.equal(kept_by(again, vilt_inputs()), few)
        assert again.config.reduction["rank"] == 8


def test_set_reduction_loads_it_and_again_without_naming_it(saved_vilt):
    base, scorer, kept = saved_vilt
    model = PuMerViltForQuestionAnswering.from_pretrained(base)
    model.set_reduction(with_weights(scorer))
    assert torch.equal(kept_by(model, vilt_inputs()), kept)
    model.base_model.set_reduction([{**LOOKAHEAD, "keep_ratio": 1.0}, {**PUMER, "saliency": "lookahead"}])
    assert [part["method"] for part in model.config.reduction] == ["lookahead", "pumer"]
    assert torch.equal(model(**vilt_inputs()).reduction[0].keep[0], torch.arange(17))


def test_one_part_of_several_and_a_model_without_a_head(saved_vilt):
    base, scorer, kept = saved_vilt
    model = AutoModel.from_pretrained(base, reduction=[with_weights(scorer), PUMER])
    first, second = model(**vilt_inputs()).reduction
    assert torch.equal(first.keep, kept)
    assert (first.site, second.site) == ("inputs", "layers")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_base_is_recognised_in_half_precision(saved_vilt, dtype):
    base, scorer, _ = saved_vilt
    model = PuMerViltForQuestionAnswering.from_pretrained(base, reduction=with_weights(scorer), dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert kept_by(model, vilt_inputs()).shape == (3, 9)


def test_weights_on_the_disk(saved_vilt, tmp_path):
    base, scorer, kept = saved_vilt
    size = sum(parameter.nbytes for parameter in FAMILIES["vilt"].model().parameters())
    model = PuMerViltForQuestionAnswering.from_pretrained(
        base,
        reduction=with_weights(scorer),
        device_map="auto",
        max_memory={"cpu": size // 2},
        offload_folder=tmp_path,
    )
    assert "disk" in model.hf_device_map.values()
    with torch.no_grad():
        assert torch.equal(kept_by(model, vilt_inputs()), kept)


def test_without_weights_it_is_an_error(family, tmp_path):
    model = family.model()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=UNTRAINED):
        family.model_class.from_pretrained(tmp_path, reduction=LOOKAHEAD)
    loaded = family.model_class.from_pretrained(tmp_path, reduction=PUMER)
    with pytest.raises(ValueError, match=f"(?s){UNTRAINED}") as caught:
        loaded.set_reduction(LOOKAHEAD)
    assert str(tmp_path) in str(caught.value)  # the command names the model
    assert loaded.config.reduction["method"] == "pumer"
    assert list(loaded.token_reduction.reducers) == ["layers"]


def test_another_form_than_the_one_that_was_learned_is_an_error(saved_vilt, tmp_path):
    base, scorer, _ = saved_vilt
    model = PuMerViltForQuestionAnswering.from_pretrained(base, reduction=with_weights(scorer))
    with pytest.raises(ValueError, match=UNTRAINED):
        model.set_reduction({**LOOKAHEAD, "form": "bag"})
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=UNTRAINED):
        PuMerViltForQuestionAnswering.from_pretrained(tmp_path, reduction={**LOOKAHEAD, "form": "block"})
    for name, value in {"form": "bag", "rank": 9}.items():
        with pytest.raises(ValueError, match=rf"reduction.{name}={value!r}: .*weights=.* has {name}="):
            model.set_reduction(with_weights(scorer, **{name: value}))


def test_a_model_from_its_config_alone(saved_vilt):
    """Random weights are allowed, to measure the speed; a trained scorer is not for them."""
    model = FAMILIES["vilt"].model(LOOKAHEAD)
    assert kept_by(model, vilt_inputs()).shape == (3, 9)
    with pytest.raises(ValueError, match="reduction.weights=.*from a config alone .*from_pretrained"):
        FAMILIES["vilt"].model(with_weights(saved_vilt[1]))
    with pytest.raises(ValueError, match="from a config alone"):
        AutoModelForVisualQuestionAnswering.from_config(vilt_config(reduction=with_weights(saved_vilt[1])))


@pytest.mark.parametrize("source", ["nowhere/at-all", "./nowhere", "no id at all"])
def test_no_such_scorer(source, saved_vilt):
    with pytest.raises(ValueError, match=f"reduction.weights='{source}': there is no scorer there: .*Hub id"):
        PuMerViltForQuestionAnswering.from_pretrained(saved_vilt[0], reduction=with_weights(source))


@pytest.mark.parametrize("name", [SCORER_CONFIG, SCORER_WEIGHTS])
def test_a_file_is_missing_or_cut_short(name, saved_vilt, scorer):
    model = PuMerViltForQuestionAnswering.from_pretrained(saved_vilt[0])
    content = (scorer / name).read_bytes()
    (scorer / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{name}"):
        model.set_reduction(with_weights(scorer))
    (scorer / name).unlink()
    with pytest.raises(ValueError, match="there is no scorer there"):
        model.set_reduction(with_weights(scorer))
    assert model.reduction is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "many"}, "reducer.json: steps='many'"),
        ({"colour": 1}, "reducer.json: .*colour is unknown"),
        ({"part": None}, "reducer.json: part=None"),
        ({"part": {**PUMER}}, "reducer.json: part.method='pumer': must be 'lookahead'"),
        ({"part": {**LOOKAHEAD, "form": "poem"}}, "reducer.json: reduction.form='poem'"),
        ({"part": {**LOOKAHEAD, **FORM, "form": "gated"}}, "does not fit reducer.json"),
        ({"part": {**LOOKAHEAD, **FORM, "rank": 9}}, "does not fit reducer.json"),
        ({"part": {**LOOKAHEAD, **FORM, "site": "tower", "layers": [1]}}, "reduction.site='inputs': .*site='tower'"),
        ({"image_width": 99}, "image tokens of width 99 .*train-scorer"),
        ({"base_type": "llava", "base": "a/b"}, "trained for 'a/b', a model of type 'llava', .*'pumer_vilt'"),
    ],
)
def test_a_record_that_is_wrong_or_of_another_model(change, message, saved_vilt, scorer):
    model = PuMerViltForQuestionAnswering.from_pretrained(saved_vilt[0])
    fields = json.loads((scorer / SCORER_CONFIG).read_text())
    (scorer / SCORER_CONFIG).write_text(json.dumps({**fields, **change}))
    with pytest.raises(ValueError, match=message):
        model.set_reduction(with_weights(scorer))


def test_a_record_without_a_field(saved_vilt, scorer):
    fields = json.loads((scorer / SCORER_CONFIG).read_text())
    for name in fields:
        with pytest.raises(ValueError, match=f"{name} is missing"):
            ScorerRecord.from_dict({key: value for key, value in fields.items() if key != name})


def test_weights_without_a_fingerprint_are_not_trusted(saved_vilt, scorer):
    weights = load_file(scorer / SCORER_WEIGHTS)
    del weights[FINGERPRINT]
    save_file(weights, scorer / SCORER_WEIGHTS)
    with pytest.raises(ValueError, match="other weights"):
        PuMerViltForQuestionAnswering.from_pretrained(saved_vilt[0], reduction=with_weights(scorer))


def test_another_base_is_an_error_that_names_both(saved_vilt, tmp_path):
    FAMILIES["vilt"].model(seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="trained for '.*base', but '.*other' has other weights: .*train-scorer"):
        PuMerViltForQuestionAnswering.from_pretrained(tmp_path / "other", reduction=with_weights(saved_vilt[1]))
    FAMILIES["vilt"].model(hidden_size=20).save_pretrained(tmp_path / "wide")
    with pytest.raises(ValueError, match="width 16 and words of width 16, but '.*wide' has 20 and 20"):
        PuMerViltForQuestionAnswering.from_pretrained(tmp_path / "wide", reduction=with_weights(saved_vilt[1]))


def test_a_fingerprint_tells_finetuned_models_apart(family):
    model = family.model().base_model
    known = fingerprint(model)
    assert known.isfinite().all()
    assert len(known) >= 256
    assert len(known.unique()) > 0.99 * len(known)
    model.set_reduction({"method": "tip", "layers": [1], "prune_ratio": 0.5})
    model.resize_images(24)
    assert torch.equal(fingerprint(model), known)
    for dtype in (torch.bfloat16, torch.float16):
        assert same_base(known, fingerprint(family.model().base_model.to(dtype)))
    assert torch.equal(known, fingerprint(family.base_class(family.config()).eval())) is False
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.02 * torch.randn(parameter.shape, generator=generator))
    assert not same_base(known, fingerprint(model))


def test_adapters_that_were_merged_are_seen(family):
    model = family.model().base_model
    known = fingerprint(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("query.weight", "q_proj.weight")):
                parameter.mul_(1.1)
    assert not same_base(known, fingerprint(model))


def test_a_model_without_a_scorer_cannot_save_one(tmp_path):
    model = FAMILIES["vilt"].model(PUMER)
    with pytest.raises(ValueError, match="site=None: the model has a scorer at no site"):
        save_scorer(model, tmp_path / "scorer", trained_on="noise", steps=1)
    model = FAMILIES["vilt"].model(LOOKAHEAD)
    with pytest.raises(ValueError, match="site='tower': .*no site"):
        save_scorer(model, tmp_path / "scorer", trained_on="noise", steps=1, site="tower")
    assert not (tmp_path / "scorer").exists()
    save_scorer(model, tmp_path / "scorer", trained_on="noise", steps=1, site="inputs")
