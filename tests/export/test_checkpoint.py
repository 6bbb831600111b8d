"""`pumer-hf export`."""

import json
import math
import sys

import numpy as np
import pytest
from readable import unreadable
from tiny_tasks import REDUCTION, save_tiny, tiny
from torch import nn

from pumer_hf import Encoder, EncodingRecord
from pumer_hf.cli import main
from pumer_hf.export.checkpoint import difference, require_same
from pumer_hf.export.onnx_file import OnnxModel
from pumer_hf.export.report import Difference, ExportReport
from pumer_hf.models.encoders.embeddings import PatchProjection
from pumer_hf.models.encoders.heads import LogitsLinear

onnx = pytest.importorskip("onnx", reason="ONNX needs its extra: pip install -e '.[onnx]'")
pytest.importorskip("onnxruntime", reason="ONNX needs its extra: pip install -e '.[onnx]'")
QUICKLY = ["--seconds", "0.01", "--batch-size", "2", "--text-length", "8"]


@pytest.mark.slow
def test_a_reduced_model_with_int8(tmp_path, capsys):
    small = {"reduction": {**REDUCTION, "layers": [0], "prune_ratio": 0.3}, "num_hidden_layers": 2}
    checkpoint = save_tiny(tmp_path / "model", "vilt", **small)
    dest, output = tmp_path / "out.onnx", tmp_path / "out.json"
    assert main(["export", checkpoint, str(dest), "--int8", "-o", str(output), *QUICKLY]) == 0
    printed = capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if "real_accelerator" not in line]  # DeepSpeed's
    assert f"Writing {dest}, " in printed.err
    assert "Timing 6 models at batch 2: about " in printed.err
    report = json.loads(output.read_text())
    assert unreadable(lines) == []
    assert lines[-1] == f"Written to {output}"
    labels = [line.split("  ")[0] for line in lines[1:7]]
    assert labels == [
        "stock transformers",
        "PyTorch, unreduced",
        "PyTorch",
        "onnxruntime, unreduced",
        "onnxruntime",
        "onnxruntime, int8",
    ]
    assert any(line.startswith("In onnxruntime, the reduction makes the model ") for line in lines)
    assert report["files"]["onnxruntime"] == {"name": str(dest), "mib": dest.stat().st_size / 2**20}
    assert report["files"]["int8"]["name"] == str(tmp_path / "out.int8.onnx")
    exact, int8 = report["difference"]["onnxruntime"], report["difference"]["int8"]
    assert exact["examples"] == int8["examples"] == 16
    assert exact["median"] <= exact["largest"] < 1e-4
    assert exact["same_argmax"] == 1
    assert int8["median"] > exact["median"]
    model, processor = tiny("vilt", **small)
    operations = [node.op_type for node in onnx.load(tmp_path / "out.int8.onnx").graph.node]
    linear = sum(type(module) in (nn.Linear, LogitsLinear, PatchProjection) for module in model.modules())
    assert operations.count("MatMulInteger") == linear
    assert report["throughput"]["batch_size"] == 2
    assert report["text_length"] == 8
    for path in (dest, dest.with_suffix(".int8.onnx")):
        assert OnnxModel(path).record == EncodingRecord(8)
    encoder = Encoder(processor, OnnxModel(dest).record)
    inputs = encoder([np.zeros((40, 80, 3), np.uint8)], ["what digit is red?"])
    for own in OnnxModel(dest).session.get_inputs():
        assert list(inputs[own.name].shape[1:]) == own.shape[1:]
    assert {"torch", "onnx", "onnxruntime", "onnxscript"} <= set(report["versions"])
    assert ExportReport.load(output).to_dict() == report


@pytest.mark.slow
def test_a_method_that_needs_a_map(tmp_path):
    checkpoint = save_tiny(tmp_path / "model", "meter", "retrieval")
    reduction = json.dumps({"method": "grounded", "layers": [1], "prune_ratio": 0.5})
    output = tmp_path / "out.json"
    arguments = ["--reduction", reduction, "-o", str(output), *QUICKLY]
    assert main(["export", checkpoint, str(tmp_path / "out.onnx"), *arguments]) == 0
    report = json.loads(output.read_text())
    assert report["reduction"]["method"] == "grounded"
    assert report["difference"]["onnxruntime"]["same_argmax"] is None  # one logit
    assert "int8" not in report["files"]


@pytest.mark.slow
def test_an_unreduced_model(tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", "vilt", "snli_ve", reduction=None)
    output = tmp_path / "out.json"
    assert main(["export", checkpoint, str(tmp_path / "out.onnx"), "-o", str(output), *QUICKLY]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any("unreduced" in line or "In onnxruntime" in line for line in lines)
    assert json.loads(output.read_text())["reduction"] is None


@pytest.mark.parametrize(
    ("dest", "arguments", "message"),
    [
        ("out.pt", [], "ends in .onnx"),
        ("no/such/out.onnx", [], "no folder"),
        ("out.onnx", ["-o", "no/such/out.json"], "-o no/such/out.json: "),
        ("out.onnx", ["--batch-size", "0"], "batch_size=0: "),
        ("out.onnx", ["--text-length", "999"], "text_length=999: "),
    ],
)
def test_a_bad_argument_is_named(dest, arguments, message, tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", "vilt")
    assert main(["export", checkpoint, str(tmp_path / dest), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_a_package_the_error_says_what_to_install(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", "nothing", str(tmp_path / "out.onnx")]) == 2
    captured = capsys.readouterr()
    assert "ONNX needs onnx, onnxscript and onnxruntime: pip install " in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("median", [0.5, math.nan])
def test_a_file_with_other_logits_is_removed(median, tmp_path):
    path = tmp_path / "out.onnx"
    path.touch()
    with pytest.raises(ValueError, match="out.onnx .*removed: .*logits differ"):
        require_same(path, Difference(16, median, median, 1.0, None))
    assert not path.exists()


def test_a_file_that_errs_on_one_batch_size_is_found():
    model, _ = tiny("vilt")

    def right(**inputs):
        return model(**inputs).logits

    def wrong(**inputs):
        return right(**inputs) + (len(inputs["input_ids"]) == 1)

    assert difference(right, model, 8).largest < 1e-4
    found = difference(wrong, model, 8)
    assert found.median == pytest.approx(1, abs=1e-4)
    assert found.same_argmax == 1
