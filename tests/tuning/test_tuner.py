"""`pumer-hf tune` on encoders."""

import json

import pytest
from tiny import noise
from tiny_tasks import REDUCTION, save_tiny

from pumer_hf.cli import main
from pumer_hf.configuration import PuMerConfig
from pumer_hf.models.loading import load_checkpoint_model
from pumer_hf.reducers.budget import with_budget
from pumer_hf.tuning import Row, Tuned, TuneOptions, tuner
from pumer_hf.tuning.answers import Asker
from pumer_hf.tuning.candidates import candidates

LOOKAHEAD = {"method": "lookahead", "site": "inputs", "num_keep": 9, "rank": 8, "target_layer": 1}


def run(checkpoint, *flags):
    return main(["tune", checkpoint, "--batch-size", "2", "--seconds", "0.01", "--device", "cpu", *map(str, flags)])


def test_the_schedule_is_written_for_other_commands(computed_speeds, tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", "vilt")
    assert run(checkpoint, "--speed", "1.5", "-o", tmp_path / "s.json", "--results", tmp_path / "r.json") == 0
    lines = capsys.readouterr().out.splitlines()
    model = load_checkpoint_model(checkpoint)
    model.set_reduction(json.loads((tmp_path / "s.json").read_text()))
    tuned = Tuned.load(tmp_path / "r.json")
    assert tuned.reduction == model.config.reduction == json.loads(lines[-2].partition(": ")[2])
    assert 1.455 <= tuned.best.speed <= 1.545
    assert tuned.best.speed == pytest.approx(1 + 0.8 * (1 / tuned.best.flops - 1))
    assert model.config.reduction["layers"] == REDUCTION["layers"]  # the checkpoint's own schedule is scaled
    assert tuned.places[1:] == ("layer 0", "layer 1", "layer 2")
    text, image = tuned.tokens[0]
    assert list(map(tuple, tuned.best.tokens[1:])) == model.output_lengths(text, image)
    assert any(
        line.split() == ["tokens", "after", "layer", "0", "(text", "+", "image)", "40", "+", "37", *_last(model)]
        for line in lines
    )


def _last(model):
    return "{} + {}".format(*model.output_lengths(40, 37)[0]).split()


def test_a_measured_speed_out_of_reach_is_one_line(tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", "vilt", reduction=None)
    assert run(checkpoint, "--speed", "50", "--method", "tome", "--site", "inputs", "-o", tmp_path / "s.json") == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if "error:" in line)
    assert "speed=50.0: the highest measured speed is " in error
    assert "multiply-adds: " in error
    assert "batch_size" in error
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--speed", "1"], "speed=1.0: must be a number above 1"),
        (["--speed", "1.5", "--batch-size", "auto"], "--batch-size auto"),
        (["--speed", "1.5", "--method", "tome", "--reduction", "{}"], "--method and --reduction"),
        (["--speed", "1.5", "--site", "inputs"], "--site inputs: give it with --method"),
        (["--speed", "1.5", "--examples", "9", "--work", "w"], "--examples, --work: only with --data"),
        (["--speed", "1.5", "--reduction", '{"method": "pumer", "flops": 0.5}'], "reduction.flops"),
        (["--speed", "1.5", "--image-tokens", "9"], "image_tokens=9: only for decoder models"),
        (["--speed", "1.5", "-o", "nowhere/s.json"], "-o nowhere/s.json"),
    ],
)
def test_wrong_flags(flags, message, tmp_path_factory, capsys):
    folder = tmp_path_factory.getbasetemp() / "tuned-vilt"
    checkpoint = str(folder) if folder.is_dir() else save_tiny(folder, "vilt")
    assert run(checkpoint, *flags) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def few_candidates(monkeypatch):
    """Three candidates, one of which does not fit."""
    few = {
        "tome": {"method": "tome", "layers": [0, 1], "merge_ratio": 0.1},
        "slow": {"method": "random", "layers": [2], "prune_ratio": 0.1},
        "wrong": {"method": "tome", "layers": [9], "merge_ratio": 0.1},
        "pumer": {"method": "pumer", "layers": [0, 1]},
    }
    monkeypatch.setattr(tuner, "candidates", lambda config: few)


def test_candidates_are_compared_and_kept(computed_speeds, few_candidates, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    checkpoint = save_tiny(tmp_path / "model", "vilt")
    flags = ["--speed", "1.5", "--data", "digit_scenes", "--examples", "10", "--work", tmp_path / "work"]
    assert run(checkpoint, *flags, "--results", tmp_path / "r.json", "--picture", tmp_path / "p.png") == 0
    table = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    tuned = Tuned.load(tmp_path / "r.json")
    assert table[1].startswith("unreduced ") and table[1].endswith(" 100.0 % 1.00x 1.000")
    assert [line.split()[0] for line in table[2:4]] == [row.name for row in tuned.ranked]
    assert sorted(row.name for row in tuned.ranked) == ["pumer", "tome"]
    assert any(line.startswith("Out of reach: slow (") for line in table)
    assert any(line.startswith("Left out: wrong: reduction.layers=[9]") for line in table)
    assert sorted({row.target for row in tuned.rows}) == [1.2, 1.35, 1.5]
    assert (tuned.examples, len(tuned.rows)) == (10, 9)
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    assert len(list((tmp_path / "work").iterdir())) == 5

    monkeypatch.setattr(Asker, "answers", None)  # nothing is done again
    (tmp_path / "work" / next(path.name for path in (tmp_path / "work").glob("slow-*"))).unlink()
    assert run(checkpoint, *flags, "--results", tmp_path / "again.json", "--picture", tmp_path / "p.png") == 0
    assert Tuned.load(tmp_path / "again.json").rows == tuned.rows


def test_questions_without_answers(computed_speeds, tmp_path):
    """What is kept is counted, with the unreduced model's answers as the truth."""
    noise().save(tmp_path / "one.png")
    (tmp_path / "q.csv").write_text("image,question\n" + "one.png,is there a red digit?\none.png,what digit is red?\n")
    tuned = tuner.tune(
        save_tiny(tmp_path / "model", "vilt"),
        TuneOptions(1.3, reduction={"method": "random", "layers": [0]}, data=str(tmp_path / "q.csv")),
    )
    assert (tuned.examples, tuned.accuracy, tuned.best.accuracy) == (2, None, None)
    assert tuned.best.kept in (0.0, 50.0, 100.0)
    assert tuned.lines()[0].splitlines()[0].split() == ["candidate", "answers", "kept", "speed", "FLOPs"]


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_the_candidates_fit_every_encoder(backbone, tmp_path):
    """Each fits the model, and a model of three layers has no two that are equal."""
    config: PuMerConfig = load_checkpoint_model(save_tiny(tmp_path / "model", backbone, reduction=LOOKAHEAD)).config
    found = candidates(config)
    found.pop("of the checkpoint")  # a fixed number cannot be scaled
    schedules = [config.checked(with_budget(plain, 0.5)) for plain in found.values()]
    assert len(set(map(str, schedules))) == len(schedules)
    assert {"pumer", "tome", "fastv", "pumer at inputs", "lookahead", "lookahead and pumer"} <= set(found)
    assert ("tome in the tower" in found) == (backbone == "meter")
    assert found["lookahead"]["keep_ratio"] == 0.5


def test_the_front_and_the_order():
    def row(name, speed, accuracy, target=1.5, highest=3.0):
        return Row(name, target, {"method": name}, speed, 0.5, 2, highest, [], accuracy, accuracy)

    rows = [
        *(row("a", 1.5, 90.0), row("b", 1.49, 91.0), row("c", 1.6, 95.0), row("d", 1.1, 99.0, highest=1.1)),
        *(row("a", 1.2, 92.0, 1.2), row("b", 1.21, 89.0, 1.2)),
    ]
    tuned = Tuned("model", 1.5, tuple(rows), (), [], None, None)
    assert [one.name for one in tuned.ranked] == ["b", "a", "c"]  # c is off its speed, d does not reach it
    assert [(one.name, one.speed) for one in tuned.front] == [("c", 1.6)]
    without = Tuned("model", 1.5, (rows[0], rows[4], rows[5]), (), [], None, None)
    assert [(one.name, one.speed) for one in without.front] == [("a", 1.2), ("a", 1.5)]
