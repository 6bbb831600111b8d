"""The messages on docs/troubleshooting.md are raised here, in the order of the page: it has them as they are now."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from builds import ROOT
from page_blocks import FENCE, agrees
from tiny import vilt_fields
from transformers import AutoConfig, AutoModelForVisualQuestionAnswering, AutoProcessor, ViltConfig
from transformers import ViltForQuestionAnswering as StockVilt

import pumer_hf
from pumer_hf import Encoder, PuMerViltForQuestionAnswering, remote_code
from pumer_hf.bench.contenders import BenchOptions, contender
from pumer_hf.cli import main
from pumer_hf.example import MODEL
from pumer_hf.export.onnx_file import require_onnx
from pumer_hf.models import families
from pumer_hf.models.loading import load_checkpoint
from pumer_hf.models.scorers import save_scorer
from pumer_hf.recipes.program import exit_on_user_error
from pumer_hf.recipes.stages import check_new_run
from pumer_hf.training.trainer import check_devices

PAGE = ROOT / "docs" / "troubleshooting.md"
SHOWN = [code for language, code in FENCE.findall(PAGE.read_text(encoding="utf-8")) if language == "text"]
AT_INPUTS = {"method": "lookahead", "site": "inputs"}


@pytest.fixture(scope="module")
def model():
    return AutoModelForVisualQuestionAnswering.from_pretrained(MODEL)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def schedule(**part):
    """The error of a model that gets a schedule."""
    return lambda model, patch: model.set_reduction(part)


def command(*words):
    return lambda model, patch: main([*words])


def without_import(model, patch):
    """The same as for a type that no package registers."""
    Path("config.json").write_text(json.dumps({"model_type": "pumer_vilt_unknown"}))
    try:
        AutoConfig.from_pretrained(".")
    except ValueError as error:
        raise ValueError(str(error).replace("_unknown", "")) from None


def not_installed(model, patch):
    patch.setitem(sys.modules, "pumer_hf", None)
    exec(remote_code.source("PuMerViltForQuestionAnswering"), {})


def without_an_extra(model, patch):
    patch.setitem(sys.modules, "onnx", None)
    require_onnx()


def older_transformers(model, patch):
    patch.setattr(families, "DECODERS", {})
    pumer_hf.reduced(StockVilt(ViltConfig(**vilt_fields())), {**AT_INPUTS, "keep_ratio": 0.3}).__enter__()


def untrained_scorer(model, patch):
    PuMerViltForQuestionAnswering(type(model.config)(**vilt_fields())).set_reduction({**AT_INPUTS, "keep_ratio": 0.3})


def other_scorer(model, patch):
    save_scorer(model, "outputs/my-scorer", trained_on="digit scenes", steps=1)
    other = PuMerViltForQuestionAnswering(type(model.config)(**vilt_fields()))
    other.set_reduction({**AT_INPUTS, "keep_ratio": 0.3, "weights": "outputs/my-scorer"})


def varying_lengths(model, patch):
    varying = AutoModelForVisualQuestionAnswering.from_pretrained(MODEL, reduction={**AT_INPUTS, "keep_mass": 0.8})
    contender(varying, 12, BenchOptions(compile=True))


def not_empty(model, patch):
    patch.setattr(sys, "argv", ["train_vqa.py"])
    Path("outputs/digit-scenes/teacher").mkdir(parents=True)
    check_new_run(SimpleNamespace(output_dir="outputs/digit-scenes", resume=False))


def launched(model, patch):
    patch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    patch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    with exit_on_user_error():
        raise ValueError("training.max_steps: what is wrong")


CASES = [
    without_import,
    not_installed,
    without_an_extra,
    older_transformers,
    lambda model, patch: load_checkpoint("nobody/no-model"),
    schedule(method="pummer", layers=[1]),
    schedule(method="pumer", layers=[1], prune=0.1, image_merge_ratio=0.3),
    schedule(method="pumer", layers=[1], prune_ratio=0.1),
    schedule(method="pumer", layers=[1], prune_ratio=30, image_merge_ratio=0.3),
    schedule(method="pumer", layers=[2, 5, 8], prune_ratio=0.1, image_merge_ratio=0.3),
    schedule(method="fastv", site="inputs", prune_ratio=0.5),
    untrained_scorer,
    other_scorer,
    schedule(method="pumer", flops=0.05),
    varying_lengths,
    lambda model, patch: Encoder.of(model, AutoProcessor.from_pretrained(MODEL), max_text_length=40),
    command("train", "vqa", "--max_stepz", "3"),
    command("train", "vqa", "--train_file", "a.jsonl", "--validation_file", "b.jsonl"),
    not_empty,
    lambda model, patch: check_devices(SimpleNamespace(n_gpu=4)),
    launched,
]


def test_each_message_has_a_case():
    assert len(CASES) == len(SHOWN)


@pytest.mark.parametrize(("case", "shown"), list(zip(CASES, SHOWN, strict=False)), ids=SHOWN[: len(CASES)])
def test_the_page_has_the_message(case, shown, model, monkeypatch):
    with pytest.raises((ValueError, OSError, ImportError, SystemExit)) as raised:
        case(model, monkeypatch)
    message = str(raised.value)
    if isinstance(raised.value, SystemExit):
        message = message.partition("error: ")[2]
    assert agrees(message, shown), message
