"""Several processes train like one: `recipes/accelerate/check.py` on the CPU. Each config takes half a minute."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "recipes" / "accelerate"


def check(*configs):
    command = [sys.executable, str(FOLDER / "check.py"), "--cpu", "--configs", *configs]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


def assert_same_losses(process, configs):
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0].startswith("one process: ")
    assert len(lines[0].split()) == 2 + 2 * 6  # both losses of six steps
    assert [line.split(",")[0] for line in lines[1:]] == configs


def test_two_processes_under_ddp_train_like_one():
    assert_same_losses(check("ddp"), ["ddp"])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed")
def test_two_processes_under_deepspeed_train_like_one():
    assert_same_losses(check("zero2", "zero3"), ["zero2", "zero3"])


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_launch_configs_are_about_hardware_only(path):
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {
        "compute_environment", "distributed_type", "deepspeed_config", "fsdp_config", "gpu_ids", "machine_rank",
        "mixed_precision", "num_machines", "num_processes", "rdzv_backend", "use_cpu",
    }  # fmt: skip
    assert set(config) <= known
    if "_4x" in path.name:
        assert config["num_processes"] == 4
    if path.name == "ddp_2x8xa100.yaml":
        assert (config["num_machines"], config["num_processes"]) == (2, 16)
