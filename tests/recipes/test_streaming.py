"""Recipes that read their training data while they train: from parquet files, and from a zipped folder of images."""

import json
import sys
import zipfile
from pathlib import Path

import pytest
from datasets import Dataset, Features, Image, Value
from in_process import run_here
from tiny import png, undecoded
from tiny_tasks import save_tiny

ROOT = Path(__file__).parents[2]
SCRATCH = str(ROOT / "recipes" / "vilt" / "own_data" / "scratch.yaml")
LABELS = ["entailment", "neutral", "-", "contradiction"]


def write_zip(folder, split):
    """A zipped folder of images, with their texts in metadata.jsonl."""
    with zipfile.ZipFile(folder / f"{split}.zip", "w") as archive:
        rows = []
        for number, label in enumerate(LABELS):
            archive.writestr(f"{number}.png", png((60 * number, 0, 0)))
            rows.append({"file_name": f"{number}.png", "hypothesis": f"there is a {number}", "label": label})
        archive.writestr("metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(folder, split):
    columns = {
        "hypothesis": [f"there is a {number}" for number in range(len(LABELS))],
        "label": LABELS,
        "image": [undecoded((60 * number, 0, 0)) for number in range(len(LABELS))],
    }
    features = Features({"hypothesis": Value("string"), "label": Value("string"), "image": Image()})
    Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)  # newer versions

    def run(*recipe, **flags):
        values = {
            "dataset": tmp_path / "data",
            "output_dir": tmp_path / "run",
            "streaming": "true",
            "teacher": save_tiny(tmp_path / "model", "vilt", "snli_ve", reduction=None),
            "max_steps": 3,  # the second epoch too
            "max_text_length": 12,
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "benchmark_seconds": 0.05,
            "logging_steps": 1,
            "eval_strategy": "no",
            "save_strategy": "no",
            "load_best_model_at_end": "false",
            "early_stopping_patience": 0,
            "use_cpu": "true",
            "report_to": "none",
            **flags,
        }
        words = [word for name, value in values.items() if value is not None for word in (f"--{name}", str(value))]
        return run_here(
            [sys.executable, str(ROOT / "recipes" / "train_snli_ve.py"), *recipe, *words, "--layers", "0", "1"],
            tmp_path,
        )

    return run


@pytest.mark.parametrize("write", [write_parquet, pytest.param(write_zip, marks=pytest.mark.slow)])
def test_a_student_is_trained_on_a_stream(write, run, tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        write(tmp_path / "data", split)
    process = run()
    assert process.returncode == 0, process.stderr
    assert f"streamed from {tmp_path / 'data'}" in process.stdout
    assert f"3 rows of {tmp_path / 'data'}, validation; 3 labels" in process.stdout
    assert "1 rows without a label are left out" in process.stdout
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["student"]["questions"] == 3  # one of four has no label
    log = json.loads((tmp_path / "run" / "student" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "distillation_loss" in entry] == [1, 2, 3]
    (tokens,) = [entry for entry in log if "gflops_per_example" in entry]
    assert tokens["gflops_per_example"] == pytest.approx(results["gflops"]["student"])
    assert [tokens[f"image_tokens/layer_{layer}"] for layer in (0, 1)] == [
        images for _, images in results["tokens_per_layer"]["student"][:2]
    ]


@pytest.mark.parametrize(
    ("recipe", "flags", "message"),
    [
        ([], {"max_steps": -1}, "training.max_steps"),
        (
            [],
            {"teacher": None, "checkpoint": "model", "teacher_training": '{"max_steps": -1}'},
            "training.max_steps=-1 of the stage teacher",
        ),
        ([SCRATCH], {"teacher": None}, "from scratch"),
    ],
)
def test_what_does_not_go_with_a_stream_is_an_error_before_anything_is_read(recipe, flags, message, run, tmp_path):
    process = run(*recipe, **flags)
    assert process.returncode == 1
    assert process.stderr.count("\n") == 1
    assert message in process.stderr
    assert "data.streaming" in process.stderr
