"""`pumer-hf tune` on decoders."""

import json

from tiny import noise
from tiny_llava import CHAT_TEMPLATE, save_tiny_llava

from pumer_hf.cli import main
from pumer_hf.models.decoder_loading import load_decoder
from pumer_hf.tuning import TuneOptions, tune
from pumer_hf.tuning.candidates import candidates


def test_before_the_decoder_and_inside_it(tmp_path, capsys):
    """Its measured speed is out of reach; the stopwatch and the profile run."""
    source = str(save_tiny_llava(tmp_path / "llava"))
    flags = ["--speed", "40", "--seconds", "0.01", "--device", "cpu"]
    assert main(["tune", source, *flags]) == 2
    assert "speed=40.0: the highest measured speed is " in capsys.readouterr().err


def test_generated_answers_are_compared(computed_speeds, tmp_path):
    source = str(save_tiny_llava(tmp_path / "llava", CHAT_TEMPLATE, num_layers=4))
    noise().save(tmp_path / "one.png")
    row = {"image": "one.png", "question": "what digit is red?", "answer": "zebra"}  # a word that it cannot say
    (tmp_path / "q.jsonl").write_text("\n".join(json.dumps(row) for _ in range(2)) + "\n")
    tuned = tune(
        source, TuneOptions(1.2, reduction={"method": "tome", "site": "inputs"}, data=str(tmp_path / "q.jsonl"))
    )
    assert tuned.accuracy == 0.0
    assert tuned.best.accuracy == 0.0
    assert 0.0 <= tuned.best.kept <= 100.0
    assert tuned.best.is_close
    model = load_decoder(source)
    model.set_reduction(tuned.reduction)
    assert {"pumer", "fastv", "diverse at inputs"} <= set(candidates(model.config))
