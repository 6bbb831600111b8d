"""`pumer-hf bench`."""

import json

import pytest
from tiny_tasks import REDUCTION, save_tiny

from pumer_hf.bench.run import bench_checkpoint
from pumer_hf.cli import main


@pytest.mark.parametrize("task", ["vqa", "nlvr2", "snli_ve", "retrieval"])
@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_any_head_against_itself_unreduced(backbone, task, tmp_path):
    checkpoint = save_tiny(tmp_path / "model", backbone, task)
    lines = bench_checkpoint(checkpoint, batch_size=2, text_length=8, seconds=0.01, output=tmp_path / "out.json")
    report = json.loads(lines[-1])
    assert json.loads((tmp_path / "out.json").read_text()) == report
    assert report["throughput"]["batch_size"] == 2
    assert report["gflops"]["ratio"] > 1
    first, last = report["tokens_per_layer"]["unreduced"], report["tokens_per_layer"]["reduced"]
    assert first[0][0] == 8  # as long as asked for
    assert len(set(map(tuple, first))) == 1
    assert sum(last[-1]) < sum(first[-1])
    assert report["reduction"]["layers"] == REDUCTION["layers"]


def test_the_command_prints_a_table_and_a_line_of_json(tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", "vilt", reduction=None)
    arguments = ["bench", checkpoint, "--batch-size", "1", "--seconds", "0.01", "--reduction", json.dumps(REDUCTION)]
    assert main(arguments) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert any("fewer" in line and line.startswith("GFLOPs") for line in table)
    report = json.loads(last)
    pays = report["throughput"]["ratio"] >= 1
    assert any("does not pay" in line for line in table) != pays


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the model reduces no tokens (config.reduction is None): give a schedule, such as --reduction"),
        (["-o", "no/such/out.json"], "-o no/such/out.json: there is no folder no/such"),
        (["--reduction", json.dumps(REDUCTION), "--batch-size", "0"], "batch_size=0: must be at least 1"),
        (["--reduction", json.dumps(REDUCTION), "--text-length", "999"], "text_length=999: must be at least 1 and at"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", "vilt", reduction=None)
    assert main(["bench", checkpoint, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["bench", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
