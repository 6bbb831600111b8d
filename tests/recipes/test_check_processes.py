"""Several processes train like one: `recipes/accelerate/check.py` on the CPU. Each config takes half a minute."""

import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

FOLDER = Path(__file__).parents[2] / "recipes" / "accelerate"


def check(*configs):
    command = [sys.executable, str(FOLDER / "check.py"), "--cpu", "--configs", *configs]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture
def launches(monkeypatch, tmp_path):
    """`check.py` as a module with the runs that it would start replaced: the words of each, and an outcome for it."""
    started = []

    def run(words, **_):
        started.append(words)
        student = Path(words[words.index("--output_dir") + 1]) / "student"
        student.mkdir(parents=True)
        steps = [{"loss": 1.0, "task_loss": 0.5, "distillation_loss": 0.25}]
        (student / "trainer_state.json").write_text(json.dumps({"log_history": steps}))
        save_file({"weight": torch.zeros(1)}, student / "model.safetensors")
        return subprocess.CompletedProcess(words, 0, "", "")

    module = runpy.run_path(str(FOLDER / "check.py"))
    monkeypatch.setattr(module["subprocess"], "run", run)
    return module["main"], started


def config_names(started):
    return [Path(words[words.index("--config_file") + 1]).name for words in started]


def test_without_gpus_the_configs_run_on_the_cpu(launches, monkeypatch, capsys):
    main, started = launches
    monkeypatch.setattr(sys, "argv", ["check.py"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setitem(main.__globals__, "is_deepspeed_available", lambda: True)
    main()
    assert config_names(started) == ["cpu.yaml", "ddp_4xa100.yaml", "zero2_4xa100.yaml", "zero3_4xa100.yaml"]
    assert all(words[words.index("--use_cpu") + 1] == "true" for words in started)
    assert "no GPU" in capsys.readouterr().out


def test_deepspeed_is_left_out_where_it_is_not_installed(launches, monkeypatch, capsys):
    main, started = launches
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setitem(main.__globals__, "is_deepspeed_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["check.py"])
    main()
    assert config_names(started) == ["cpu.yaml", "ddp_4xa100.yaml"]
    printed = capsys.readouterr().out
    assert "zero2" in printed
    assert "pip install deepspeed" in printed
    monkeypatch.setattr(sys, "argv", ["check.py", "--configs", "zero2"])
    with pytest.raises(SystemExit):
        main()
    assert "pip install deepspeed" in capsys.readouterr().err
    assert len(started) == 2


def test_with_gpus_every_config_runs_on_them(launches, monkeypatch, capsys):
    main, started = launches
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setitem(main.__globals__, "is_deepspeed_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["check.py"])
    main()
    assert config_names(started)[0] == "single_gpu.yaml"
    assert len(started) == 5
    assert not any("--use_cpu" in words for words in started)
    monkeypatch.setattr(sys, "argv", ["check.py", "--num_processes", "4"])
    with pytest.raises(SystemExit):
        main()
    message = capsys.readouterr().err
    assert "--num_processes 4" in message
    assert "--cpu" in message


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="is about a machine without GPUs")
def test_the_command_of_the_readme_runs_without_gpus():
    process = subprocess.run(
        [sys.executable, str(FOLDER / "check.py")], capture_output=True, text=True, timeout=900, check=False
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    found = [line.split(",")[0] for line in lines if "largest relative difference" in line]
    assert found == (["ddp", "zero2", "zero3"] if importlib.util.find_spec("deepspeed") else ["ddp"])


def assert_same_losses(process, configs):
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0].startswith("one process: ")
    assert len(lines[0].split()) == 2 + 2 * 6  # both losses of six steps
    assert [line.split(",")[0] for line in lines[1:]] == configs


@pytest.mark.slow
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
