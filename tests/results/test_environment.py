"""What results say of the command that made them, and of the machine."""

import json
import shlex
from importlib.metadata import version

import pytest
import torch

from pumer_hf.results import Command, Environment, Machine

WORDS = ["/a/b/train.py", "--hub_token", "hf_1", "--layers", "0", "1", "--push_to_hub_token=hf_2", "--seed", "3"]


@pytest.fixture
def run_as(monkeypatch):
    """Make this process one that was started by these words."""
    return lambda words: monkeypatch.setattr("sys.argv", words)


def test_a_command_is_told_without_its_folder_and_without_tokens(run_as):
    run_as(WORDS)
    assert str(Command.current()) == "train.py --hub_token ... --layers 0 1 --push_to_hub_token=... --seed 3"
    run_as(["train.py"])
    assert str(Command.current()) == "train.py"


def test_the_package_as_a_module_is_told_as_its_command(run_as):
    run_as(["/a/pumer_hf/__main__.py", "train", "vqa"])
    assert str(Command.current()) == "pumer-hf train vqa"
    run_as(["/a/other/__main__.py"])
    assert str(Command.current()) == "__main__.py"


@pytest.mark.parametrize("program", ["ipykernel_launcher.py", "colab_kernel_launcher.py"])
def test_a_notebook_has_no_command(program, run_as):
    run_as([f"/a/{program}", "-f", "/b/kernel-1.json"])
    assert Environment.current().command is None
    run_as(["train.py"])
    assert Environment.current().command == Command("train.py")


def test_a_command_comes_back_from_a_file_word_by_word():
    words = ["r.yaml", "--x", '{"a": 1, "b": "it\'s"}', "--output_dir", "my folder", "--flag", "--y={}"]
    command = Command("train.py", tuple(words))
    values = json.loads(json.dumps(command.to_dict()))
    assert Command.from_dict(values) == command
    assert shlex.split(values["command"]) == values["argv"] == ["train.py", *words]
    assert command.flags == words[1:]
    assert Command("train.py", ("r.yaml",)).flags == []


def test_the_command_of_an_old_file_is_taken_apart():
    """Its words were joined by spaces, without quotes."""
    line = 'train_vqa.py r.yaml --layers 0 1 --teacher_training {"max_steps": 2, "x": 1} --resume'
    flags = ["--layers", "0", "1", "--teacher_training", '{"max_steps": 2, "x": 1}', "--resume"]
    assert Command.from_dict({"command": line}) == Command("train_vqa.py", ("r.yaml", *flags))
    assert Command.from_dict({"command": "train_vqa.py"}) == Command("train_vqa.py")
    assert Command.from_dict({}) is None


def test_an_environment_says_versions_machine_and_command(run_as):
    run_as(["/somewhere/train.py", "--seed", "3"])
    found = Environment.current()
    assert str(found.command) == "train.py --seed 3"
    assert found.versions["torch"] == version("torch")
    assert found.machine.torch_threads == torch.get_num_threads()
    assert Environment.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert Environment.from_dict({}).to_dict() == {}


def test_of_several_processes_it_says_how_many(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert "processes" not in Environment.current().to_dict()["machine"]
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Machine.current().processes == 4


def test_the_name_of_a_machine_is_its_gpu_or_its_processor_and_threads():
    machine = Machine(processor="Some CPU", torch_threads=2)
    assert Environment(machine=machine).machine_name == machine.name == "Some CPU, 2 threads"
    assert Machine(processor="Some CPU", torch_threads=2, gpu="Some GPU").name == "Some GPU"
    assert Environment().machine_name == ""
