"""The command `pumer-hf`."""

import json
import platform
import runpy
import sys
from argparse import Namespace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny_checkpoints as tiny
from huggingface_hub.constants import HF_HUB_OFFLINE
from tiny import PUMER
from transformers import AutoModel

import pumer_hf
from pumer_hf import editable, wheel
from pumer_hf.cli import COMMANDS, main
from pumer_hf_cli.command import schedule


@pytest.fixture
def released(tmp_path):
    tiny.save_released(tmp_path / "in", "meter", ["vqa_classifier"])
    return str(tmp_path / "in")


def test_help_gives_an_example_of_each_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert command.example.startswith(f"pumer-hf {command.name} ")
        assert command.example in text
        with pytest.raises(SystemExit):
            main([command.name, "--help"])
        assert command.example in capsys.readouterr().out


@pytest.mark.parametrize("as_file", [False, True])
def test_convert(as_file, released, tmp_path, capsys):
    config = json.dumps({"co_attention": "parallel"})
    if as_file:
        (tmp_path / "config.json").write_text(config)
        config = str(tmp_path / "config.json")
    dest = tmp_path / "out"
    arguments = ["--kind", "released_meter", "--task", "vqa2", "--image-size", "24", "--no-processor"]
    assert main(["convert", released, str(dest), *arguments, "--config", config]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if "real_accelerator" not in line]  # DeepSpeed's
    assert printed == [f"Written to {dest}"]
    loaded = AutoModel.from_pretrained(dest).config
    assert (loaded.co_attention, loaded.image_size) == ("parallel", 24)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "ve"], "task='snli_ve': "),
        (["--config", "{"], "--config='{': "),
        (["--config", "nowhere.json"], "nowhere.json"),
        (["--processor", "no/such"], "processor='no/such'"),
    ],
)
def test_errors(arguments, message, released, tmp_path, capsys):
    assert main(["convert", released, str(tmp_path / "out"), *arguments]) == 2
    captured = capsys.readouterr()
    assert "pumer-hf convert: error: " in captured.err
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [[], ["compress"], ["convert", "in"]])
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: pumer-hf" in capsys.readouterr().err


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    def interrupted(self, args):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(next(one for one in COMMANDS if one.name == "card")), "run", interrupted)
    assert main(["card", "folder"]) == 130
    assert capsys.readouterr().err == "pumer-hf card: interrupted\n"


def test_as_a_module(tmp_path, monkeypatch, capsys):
    """In this process; `test_quick.py` starts the package as a module in one of its own."""
    monkeypatch.delitem(sys.modules, "pumer_hf.cli")
    monkeypatch.setattr(sys, "argv", ["cli.py", "convert", str(tmp_path / "nothing"), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("pumer_hf.cli", run_name="__main__", alter_sys=True)
    assert ended.value.code == 2
    assert "pumer-hf convert: error: source=" in capsys.readouterr().err


def test_env_says_what_the_report_of_a_bug_needs(capsys):
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"- torch: {version('torch')}" in lines
    assert any(line.startswith("- processor: ") for line in lines)
    assert f"- pumer-hf: {pumer_hf.__version__}" in lines
    assert f"- platform: {platform.platform()}" in lines
    assert f"- offline: {'yes' if HF_HUB_OFFLINE else 'no'}" in lines
    for package in ("transformers", "accelerate", "peft", "onnxruntime", "gradio", "deepspeed"):
        assert any(line.startswith(f"- {package}: ") for line in lines) == (find_spec(package) is not None)
    assert all(line.startswith("- ") for line in lines if "real_accelerator" not in line)  # DeepSpeed's


def test_env_tells_nobody_who_and_where_somebody_is(capsys):
    assert main(["env"]) == 0
    printed = capsys.readouterr().out
    for private in (str(Path.home()), str(Path.cwd()), sys.prefix, platform.node()):
        assert private not in printed


@pytest.mark.parametrize(
    ("origin", "has_wheel", "kind"),
    [
        (None, True, "wheel"),
        ('{"dir_info": {"editable": true}, "url": "CLONE"}', True, "editable"),
        ('{"dir_info": {"editable": true}, "url": "file:///another/clone"}', False, "not installed"),
        (None, False, "not installed"),  # the folder that setuptools leaves in a clone
    ],
)
def test_env_says_how_the_package_was_installed(monkeypatch, origin, has_wheel, kind):
    class Installed:
        def read_text(self, name):
            return {"direct_url.json": origin and origin.replace("CLONE", editable.CLONE.as_uri())}.get(
                name, "Wheel-Version: 1.0" if has_wheel else None
            )

        def locate_file(self, path):
            return editable.CLONE / "src" / path

    monkeypatch.setattr(wheel, "distributions", lambda name: [Installed()])
    assert wheel.installation_kind() == kind


def test_a_budget_goes_with_the_schedule_that_it_scales(tmp_path):
    def asked(reduction, flops, checkpoint=None):
        return schedule(Namespace(reduction=reduction, flops=flops, checkpoint=checkpoint))

    assert asked(None, None) == {}
    assert asked("null", None) == {"reduction": None}
    assert asked('{"method": "tome"}', 0.5) == {"reduction": {"method": "tome", "flops": 0.5}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "pumer_vilt", "reduction": PUMER}))
    assert asked(None, 0.5, str(tmp_path)) == {"reduction": {**PUMER, "flops": 0.5}}
    with pytest.raises(ValueError, match="--flops 0.5: the model has no schedule to scale"):
        asked("null", 0.5, str(tmp_path))
