"""ONNX files of all heads and methods. An export takes seconds, so most of them are slow tests."""

import pytest
import torch
from tiny_models import FAMILIES, NUM_TEXT, REDUCTIONS, depth_of, schedule
from torch import nn

from pumer_hf.export.checkpoint import padded_inputs
from pumer_hf.export.onnx_file import OnnxModel, export_onnx, quantize_onnx
from pumer_hf.models.encoders.embeddings import PatchProjection

onnx = pytest.importorskip("onnx", reason="ONNX needs its extra: pip install -e '.[onnx]'")
pytest.importorskip("onnxruntime", reason="ONNX needs its extra: pip install -e '.[onnx]'")

HEADS = ("model_class", "entailment_class", "retrieval_class", "images_class")
QUICK = {
    ("vilt", "images_class", "none"),
    ("meter", "retrieval_class", "pumer-small"),
    ("vilt", "model_class", "lookahead-small"),
}
"""What `test_checkpoint.py` does not try."""
CASES = [
    pytest.param(family, head, reduction, id="-".join(case), marks=[] if case in QUICK else pytest.mark.slow)
    for family in FAMILIES
    for head in HEADS
    for reduction in REDUCTIONS
    if (case := (family, head, reduction)) and (head == "model_class" or reduction.startswith(("none", "pumer")))
]


def new_model(family, head="model_class", reduction=None, **config):
    torch.manual_seed(0)
    model_class = getattr(FAMILIES[family], head)
    images = {"num_images": 2, "modality_type_vocab_size": 3} if head == "images_class" else {}
    return model_class(FAMILIES[family].config(reduction=reduction, **images, **config)).eval()


@pytest.mark.parametrize(("family", "head", "reduction"), CASES)
def test_a_file_computes_what_the_model_does_on_any_batch(family, head, reduction, tmp_path):
    reduction = REDUCTIONS[reduction]
    model = new_model(family, head, reduction, num_hidden_layers=depth_of(reduction))
    export_onnx(model, tmp_path / "model.onnx", NUM_TEXT)
    assert b"site-packages" not in (tmp_path / "model.onnx").read_bytes()  # no stack traces
    exported = OnnxModel(tmp_path / "model.onnx")
    for batch_size in (1, 2, 5):
        inputs = padded_inputs(model, batch_size, NUM_TEXT)
        with torch.inference_mode():
            expected = model(**inputs).logits
        torch.testing.assert_close(exported(**inputs), expected, atol=1e-4, rtol=1e-4)


MERGING = {"method": "tome", "site": "tower", "merge_ratio": 0.25}
CHOICE = {"method": "lookahead", "site": "tower", "layers": [0], "num_keep": 5, "rank": 8}


@pytest.mark.slow
@pytest.mark.parametrize(
    "reduction",
    [[MERGING], [CHOICE, {**MERGING, "layers": [1]}]],
    ids=["merges", "chooses by the text and merges"],
)
def test_a_tower_that_reduces_takes_any_batch(reduction, tmp_path):
    model = new_model("meter", reduction=reduction, num_hidden_layers=1)
    export_onnx(model, tmp_path / "model.onnx", NUM_TEXT)
    exported = OnnxModel(tmp_path / "model.onnx")
    for batch_size in (1, 3):
        inputs = padded_inputs(model, batch_size, NUM_TEXT)
        with torch.inference_mode():
            expected = model(**inputs).logits
        torch.testing.assert_close(exported(**inputs), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"semantics": "release"}, {"pooled_only": True}])
@pytest.mark.parametrize("family", FAMILIES)
def test_variants_of_the_config(family, fields, tmp_path):
    model = new_model(family, reduction=schedule("pumer", "small"), **fields)
    export_onnx(model, tmp_path / "model.onnx", NUM_TEXT)
    inputs = padded_inputs(model, 3, NUM_TEXT)
    with torch.inference_mode():
        expected = model(**inputs).logits
    torch.testing.assert_close(OnnxModel(tmp_path / "model.onnx")(**inputs), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_int8_is_in_every_linear_layer(family, tmp_path):
    model = new_model(family, reduction=schedule("pumer", "small"), initializer_range=0.1)
    path, dest = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    export_onnx(model, path, NUM_TEXT)
    quantize_onnx(path, dest)
    operations = [node.op_type for node in onnx.load(dest).graph.node]
    linear = sum(isinstance(module, (nn.Linear, PatchProjection)) for module in model.modules())
    assert operations.count("MatMulInteger") == linear
    inputs = padded_inputs(model, 3, NUM_TEXT)
    exact, rough = OnnxModel(path)(**inputs), OnnxModel(dest)(**inputs)
    assert 0 < (rough - exact).abs().max() < 0.2 * exact.std()


def test_a_model_is_exported_in_eval_mode_and_keeps_its_own(tmp_path, monkeypatch):
    model, modes = new_model("vilt", reduction=schedule("dynamicvit", "small")).train(), []

    def fail(exported, **options):
        modes.extend(module.training for module in exported.modules())
        raise RuntimeError("no export")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(RuntimeError, match="no export"):
        export_onnx(model, tmp_path / "model.onnx", NUM_TEXT)
    assert not any(modes)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("dest", "options", "error", "message"),
    [
        ("model.pt", {}, ValueError, r"model\.pt.*\.onnx"),
        ("no/such/model.onnx", {}, FileNotFoundError, "no folder .*no/such"),
        ("model.onnx", {"text_length": 13}, ValueError, "text_length=13: .*1 .*12"),
        ("model.onnx", {"text_length": 0}, ValueError, "text_length=0: .*1 .*12"),
    ],
)
def test_a_bad_argument_is_named(dest, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        export_onnx(new_model("vilt"), tmp_path / dest, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_head_or_not_in_float32_is_named(tmp_path):
    with pytest.raises(ValueError, match="PuMerViltModel .*no logits: .*head"):
        export_onnx(new_model("vilt", "base_class"), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="torch.bfloat16: .*float32, .*model.fl"):
        export_onnx(new_model("vilt").bfloat16(), tmp_path / "model.onnx")
