"""`pumer-hf train-scorer` from begin to end, on tiny models and few rows."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file
from tiny import noise
from tiny_tasks import save_tiny
from transformers import TrainerCallback

from pumer_hf.models.loading import load_checkpoint_model
from pumer_hf.recipes import scorer as scorer_module
from pumer_hf.recipes.train_scorer import ScorerOptions
from pumer_hf.reducers.base import SITES
from pumer_hf.reducers.diverse import DIVERSITIES
from pumer_hf.reducers.scorer import FORMS
from pumer_hf.results import ScorerReport
from pumer_hf.training.scorer import lookahead_of
from pumer_hf_cli import choices, main

TEXTS = ["what digit is red?", "is there a red digit?", "what digit is blue?"]
QUICK = [
    "--steps",
    "3",
    "--answer-steps",
    "2",
    "--batch-size",
    "4",
    "--rank",
    "4",
    "--training",
    '{"use_cpu": true, "disable_tqdm": true}',
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("base") / "model", "vilt")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for index in range(12):
        noise().save(folder / f"{index}.png")
        lines.append(json.dumps({"image": f"{index}.png", "question": TEXTS[index % 3]}))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "rows.jsonl")


@pytest.fixture(autouse=True)
def quick_speed(monkeypatch):
    monkeypatch.setattr(scorer_module, "SPEED_SECONDS", 0.01)


def command(base, data, out, *more):
    return main(["train-scorer", base, "--data", data, "--out", str(out), *QUICK, *more])


def test_a_scorer_is_trained_and_loaded(base, data, tmp_path, capsys):
    out = tmp_path / "scorer"
    assert command(base, data, out) == 0
    printed = capsys.readouterr().out
    report = ScorerReport.load(out / "results.json")
    assert set(report.layers) == {"0", "1", "2", "all"}
    assert f"{report.target_layer}  " in printed
    assert "chosen" in printed
    for line in report.lines():
        assert line in printed
    assert (report.examples, report.batch_size) == (2, 2)
    assert "2 more are held out" in printed
    record = json.loads((out / "reducer.json").read_text())
    assert record["steps"] == 3 + 2  # of both stages
    assert record["part"]["target_layer"] == report.target_layer
    assert record["base"] == base
    assert "10 examples" in record["trained_on"]
    assert "1/9" in (out / "README.md").read_text()
    model = load_checkpoint_model(base, {"method": "lookahead", "site": "inputs", "num_keep": 5, "weights": str(out)})
    weights = load_file(out / "reducer.safetensors")
    for name, value in lookahead_of(model).state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_the_same_seed_gives_the_same_scorer(base, data, tmp_path):
    flags = ("--target_layer", "1")
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert command(base, data, tmp_path / name, *flags, "--seed", seed) == 0
    first, same, other = (load_file(tmp_path / name / "reducer.safetensors") for name in "abc")
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert ScorerReport.load(tmp_path / "a" / "results.json").layers == {}


class StopAt(TrainerCallback):
    """Presses Ctrl-C after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def heeds_ctrl_c():
    """A process in the background may ignore Ctrl-C. Here it is heeded."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(base, data, tmp_path, monkeypatch, capsys, heeds_ctrl_c):
    more = ("--target-layer", "1", "--training", '{"use_cpu": true, "disable_tqdm": true, "save_steps": 1}')
    assert command(base, data, tmp_path / "whole", *more) == 0
    with monkeypatch.context() as patch:
        patch.setattr(scorer_module, "TimeLeftCallback", lambda: StopAt(2))
        with pytest.raises(SystemExit) as ended:
            command(base, data, tmp_path / "stopped", *more)
    assert ended.value.code == 130
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Stopped by" in line]
    assert "stopped was at step 2 of 3" in line
    assert command(base, data, tmp_path / "stopped", *more) == 2
    assert "--resume" in capsys.readouterr().err
    assert command(base, data, tmp_path / "stopped", *more, "--resume") == 0
    whole, stopped = (load_file(tmp_path / name / "reducer.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_another_scorer_is_not_resumed(base, data, tmp_path, capsys):
    assert command(base, data, tmp_path / "out", "--target-layer", "1") == 0
    assert command(base, data, tmp_path / "out", "--target-layer", "1", "--form", "bag", "--resume") == 2
    assert "part=" in capsys.readouterr().err


def test_digit_scenes(base, tmp_path):
    assert command(base, "digit_scenes", tmp_path / "out", "--max-examples", "30", "--eval-examples", "10") == 0
    assert ScorerReport.load(tmp_path / "out" / "results.json").examples == 8


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "0"], "--steps 0"),
        (["--target-layer", "first"], "--target-layer first"),
        (["--target-layer", "9"], "--target-layer 9"),
        (["--rank", "0"], "reduction.rank=0"),
        (["--p", "-1"], "reduction.p=-1.0"),
        (["--site", "tower"], "--layers"),
        (["--layers", "1"], "--site tower"),
        (["--site", "tower", "--layers", "0"], "tower"),
        (["--data", "nothing.jsonl"], "nothing.jsonl"),
        (["--text-column", "words"], "'words'"),
        (["--training", '{"bf17": true}'], "bf16"),
        (["--training", "{"], "--training"),
    ],
)
def test_what_is_wrong_is_one_line(flags, message, base, data, tmp_path, capsys):
    assert command(base, data, tmp_path / "out", *flags) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert message in line


def test_a_model_of_another_task_is_refused(data, tmp_path, capsys):
    model = save_tiny(tmp_path / "model", "vilt", "retrieval")
    assert command(model, data, tmp_path / "out") == 2
    assert "PuMerViltForImageAndTextRetrieval" in capsys.readouterr().err


def test_the_choices_are_those_of_the_package():
    assert tuple(FORMS) == choices.FORMS
    assert (*DIVERSITIES, "none") == choices.DIVERSITIES
    assert set(choices.SCORER_SITES) < set(SITES)


def test_the_defaults_of_the_flags_are_those_of_the_options():
    from pumer_hf_cli import build_parser

    args = build_parser().parse_args(["train-scorer", "model", "--data", "rows.jsonl"])
    options = ScorerOptions("model", "rows.jsonl")
    for name, value in vars(options).items():
        if name != "training":
            assert getattr(args, name) == value, name
