"""What reports say of the command that made them."""

from pumer_hf.bench.environment import command_line, environment


def test_a_command_is_told_without_its_folder_and_without_tokens():
    words = ["/a/b/train.py", "--hub_token", "hf_1", "--layers", "0", "1", "--push_to_hub_token=hf_2", "--seed", "3"]
    assert command_line(words) == "train.py --hub_token ... --layers 0 1 --push_to_hub_token=... --seed 3"
    assert command_line(["train.py"]) == "train.py"


def test_of_several_processes_it_says_how_many(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert "processes" not in environment()["machine"]
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert environment()["machine"]["processes"] == 4
