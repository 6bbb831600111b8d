"""`pumer-hf bench`."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from readable import unreadable
from tiny import WIDTH
from tiny_models import FAMILIES
from tiny_tasks import REDUCTION, save_tiny, tiny
from torch import nn
from torch._inductor.utils import run_and_get_code

from pumer_hf.bench import comparison as run
from pumer_hf.bench import progress
from pumer_hf.bench.comparison import bench_checkpoint, bench_setting
from pumer_hf.bench.contenders import (
    BenchOptions,
    checked_text_length,
    compiled,
    contender,
    stock_contender,
    torch_options,
)
from pumer_hf.bench.full_size import paper_model
from pumer_hf.bench.measure import expected_of_all, grow_batch, measure_rows
from pumer_hf.bench.report import BenchReport, Conditions
from pumer_hf.cli import main
from pumer_hf.encoding import EncodingRecord, with_record
from pumer_hf.models.loading import load_checkpoint_model
from pumer_hf.results import Cost, Environment, Latencies, Latency, Memory, Speed, Throughput, text_table

QUICK = BenchOptions(batch_size=2, seconds=0.01)
WITHOUT_MEMORY = replace(QUICK, memory=False)
"""For what memory says nothing about: measuring it takes longest."""
TINY = {**WIDTH, "num_hidden_layers": 10, "vocab_size": 50}


QUICK_HEADS = [("vilt", "vqa"), ("vilt", "nlvr2"), ("vilt", "retrieval"), ("meter", "nlvr2"), ("meter", "snli_ve")]
"""Each head once, and that of two images in both families: the heads of the families are the same code."""


@pytest.mark.parametrize(
    ("backbone", "task"),
    [
        pytest.param(*case, id="-".join(case), marks=[] if case in QUICK_HEADS else pytest.mark.slow)
        for case in itertools.product(["vilt", "meter"], ["vqa", "nlvr2", "snli_ve", "retrieval"])
    ],
)
def test_any_head_against_itself_unreduced(backbone, task, tmp_path):
    checkpoint = save_tiny(tmp_path / "model", backbone, task)
    lines = bench_checkpoint(checkpoint, QUICK, text_length=8, output=tmp_path / "out.json")
    report = json.loads((tmp_path / "out.json").read_text())
    assert lines[-1] == f"Written to {tmp_path / 'out.json'}"
    names = ["unreduced", "stock", "reduced"] if backbone == "vilt" else ["unreduced", "reduced"]
    assert report["throughput"]["batch_size"] == report["memory"]["batch_size"] == 2
    for part in (report["throughput"], report["latency"], report["memory"]["inference"], report["memory"]["training"]):
        assert [name for name in part if name in names] == names
    assert report["latency"]["reduced"]["p50"] <= report["latency"]["reduced"]["p99"]
    assert report["memory"]["training"]["reduced"] < report["memory"]["training"]["unreduced"]
    assert report["gflops"]["ratio"] > 1
    if backbone == "vilt":
        assert report["gflops"]["stock"] == pytest.approx(report["gflops"]["unreduced"], rel=0.01)
    assert list(report["reduction_share"]) == ["reduced"]
    assert 0 < report["reduction_share"]["reduced"] < 1
    first, last = report["tokens_per_layer"]["unreduced"], report["tokens_per_layer"]["reduced"]
    assert first[0][0] == 8  # as long as asked for
    assert len(set(map(tuple, first))) == 1
    assert sum(last[-1]) < sum(first[-1])
    assert report["reduction"]["layers"] == REDUCTION["layers"]
    assert report["compiled"] == []


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_what_leaves_before_the_first_layer_is_counted(backbone, tmp_path):
    choice = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25, "rank": 8}
    checkpoint = save_tiny(tmp_path / "model", backbone, reduction=[choice, REDUCTION])
    table = bench_checkpoint(checkpoint, WITHOUT_MEMORY, text_length=8, output=tmp_path / "out.json")[0]
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["tokens_in"]["unreduced"], report["tokens_in"]["reduced"]) == ([8, 37], [8, 10])
    assert report["tokens_per_layer"]["unreduced"][-1] == [8, 37]
    model = load_checkpoint_model(checkpoint)
    assert [tuple(one) for one in report["tokens_per_layer"]["reduced"]] == model.output_lengths(8, 37)
    (row,) = (" ".join(line.split()) for line in table.splitlines() if line.startswith("tokens into layer 0"))
    assert row.endswith(" 8 + 37 8 + 10")
    assert 0 < report["reduction_share"]["reduced"] < 1


def test_a_scorer_of_a_setting_is_said_to_be_random_and_its_number_of_tokens_too(monkeypatch, tmp_path):
    def small(backbone, task, **choices):
        return paper_model(backbone, task, image_size=64, **choices, **TINY)

    monkeypatch.setattr(run, "paper_model", small)
    choice = {"method": "lookahead", "site": "inputs", "keep_mass": 0.5}
    lines = bench_setting("vilt/vqa", WITHOUT_MEMORY, reduction=choice, output=tmp_path / "out.json")
    assert any("scorer" in line and "random" in line for line in lines)
    mean = BenchReport.load(tmp_path / "out.json").mean_image_tokens
    assert 1 <= mean < 16
    assert any(f"keep_mass: an example of the batch keeps {mean:.1f} image tokens" in line for line in lines)
    assert not any("scorer" in line for line in bench_setting("vilt/vqa", WITHOUT_MEMORY, reduction=REDUCTION))


def test_the_text_length_of_a_record_is_checked_too(tmp_path):
    checkpoint = save_tiny(tmp_path / "model", "vilt")
    with_record(tiny("vilt")[1], EncodingRecord(60)).save_pretrained(checkpoint)
    model = load_checkpoint_model(checkpoint)
    with pytest.raises(ValueError, match="text_length=60: .*at most 40"):
        checked_text_length(model, None)
    assert checked_text_length(model, 32) == 32


def test_the_command_prints_a_table_and_no_json(tmp_path, capsys):
    checkpoint, output = save_tiny(tmp_path / "model", "vilt", reduction=None), tmp_path / "out.json"
    arguments = ["bench", checkpoint, "--batch-size", "1", "--seconds", "0.01", "--reduction", json.dumps(REDUCTION)]
    assert main([*arguments, "--no-memory", "--dtype", "bfloat16", "--device", "cpu", "-o", str(output)]) == 0
    printed = capsys.readouterr()
    table, report = printed.out.splitlines(), json.loads(output.read_text())
    assert "Measuring unreduced, stock, reduced at batch 1: about " in printed.err
    assert all(f"{part}:" in printed.err for part in ("First forward passes", "throughput", "latency"))
    assert unreadable(table) == []
    assert table[-1] == f"Written to {output}"
    assert report["dtype"] == {"unreduced": "bfloat16", "stock": "float32", "reduced": "bfloat16"}
    assert "memory" not in report
    assert not any(line.startswith("peak MiB") for line in table)
    assert any(line.startswith("time at batch 1") for line in table)


def test_reduction_that_does_not_pay_is_said():
    def report(throughput, latency):
        speeds = Throughput(4, 5, "forward", {"reduced": Speed(1.0, 1.0, 1.0, throughput)})
        latencies = Latencies(5, {"reduced": Latency(1.0, 1.0, 1.0, latency)})
        conditions = Conditions(dtype={"reduced": "float32"})
        cost = Cost(throughput=speeds, latency=latencies)
        return BenchReport({"setting": "vilt/vqav2"}, {"method": "pumer"}, 32, conditions, cost, Environment())

    def last(*ratios):
        return run.notes(report(*ratios))[-1]

    assert "does not pay at batch 4 and batch 1:" in last(0.9, 0.8)
    assert "does not pay at batch 1:" in last(1.2, 0.8)
    assert "does not pay at batch 4:" in last(0.9, 1.1)
    assert "does not pay" not in last(1.2, 1.1)


def test_times_and_figures_are_readable():
    names = ("unreduced", "reduced")
    speed = Speed(12345.678901234567, 12345.678901234567, 12345.678901234567, 1.2345678901234567)
    cost = Cost(
        throughput=Throughput(8, 5, "forward", dict.fromkeys(names, speed)),
        latency=Latencies(5, dict.fromkeys(names, Latency(1040.2, 12.345678, 61_000.0, 1.0))),
        memory=Memory(8, *(dict.fromkeys(names, 2**34 + 1) for _ in ("inference", "training"))),
        gflops={"unreduced": 1234.56789, "reduced": 0.16812345},
        tokens_per_layer={name: [(8, 30)] for name in names},
        reduction_share={"reduced": 0.0212345678901234},
    )
    rows = {row[0]: row[1:] for row in measure_rows(cost)}
    assert rows["examples/s"] == ["12,346", "12,346"]
    assert rows["time at batch 1 (p50 / p90 / p99)"] == 2 * ["1.04 s / 12.3 ms / 1 min 1 s"]
    assert rows["peak MiB, training"] == ["16,384", "16,384"]
    assert rows["GFLOPs per example"] == ["1,235", "0.1681"]
    assert rows["the reduction's own time"] == ["", "2.1 %"]
    assert unreadable(text_table(measure_rows(cost)).splitlines()) == []


def test_a_setting_of_the_paper(monkeypatch, tmp_path):
    def small(backbone, task, **choices):
        return paper_model(backbone, task, image_size=64, **choices, **TINY)

    monkeypatch.setattr(run, "paper_model", small)
    output = tmp_path / "out.json"
    bench_setting("vilt/vqa", WITHOUT_MEMORY, output=output)
    report = json.loads(output.read_text())
    assert (report["setting"], report["text_length"]) == ("vilt/vqa", 32)
    assert report["reduction"]["layers"] == [2, 5, 8]
    bench_setting("vilt/vqav2", WITHOUT_MEMORY, reduction=REDUCTION, text_length=9, output=output)
    other = json.loads(output.read_text())
    assert (other["reduction"]["layers"], other["text_length"]) == (REDUCTION["layers"], 9)
    with pytest.raises(ValueError, match="backbone='vilt', task='vq': .*vilt/vqa"):
        bench_setting("vilt/vq", QUICK)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own, in torch 2.13
@pytest.mark.slow
@torch.inference_mode()
def test_no_model_of_many_runs_uncompiled(monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "cache_size_limit", 2)
    torch._dynamo.reset()

    class Layers(nn.Module):
        def __init__(self, number):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(number))

        def forward(self, x):
            assert torch.compiler.is_compiling()
            for layer in self.layers:
                x = layer(x)
            return x

    for model in map(Layers, (1, 2, 3)):
        run = compiled(model)
        assert [run(torch.ones(size, 2)).shape for size in (3, 1)] == [(3, 2), (1, 2)]


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch was built without MKL")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(("precision", "operator"), [("highest", "mkl._mkl_linear"), ("high", "_linear_pointwise")])
@torch.inference_mode()
def test_compiled_code_packs_the_weights(precision, operator):
    torch._dynamo.reset()
    before = torch.get_float32_matmul_precision()
    linear = nn.Linear(16, 16).eval()
    run, inputs = compiled(linear), torch.randn(5, 16)
    with torch_options(BenchOptions(matmul_precision=precision)):
        found, (code, *_) = run_and_get_code(run, inputs)
    assert operator in code
    assert torch.get_float32_matmul_precision() == before
    torch.testing.assert_close(found, linear(inputs))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_contender_is_counted_eager(family):
    options = BenchOptions(compile=True)
    one = contender(FAMILIES[family].model(), 9, options)
    assert one.run is not one.eager
    stock = stock_contender(one.eager, 9, options)
    assert (stock is None) == (family == "meter")
    if stock is not None:
        assert stock.run is stock.eager
        with torch.inference_mode():
            assert stock.eager(**stock.inputs(2)).logits.shape == one.eager(**one.inputs(2)).logits.shape


def test_pooled_only_is_for_both_of_our_models(tmp_path, capsys):
    checkpoint, output = save_tiny(tmp_path / "model", "vilt"), tmp_path / "out.json"
    arguments = ["bench", checkpoint, "--batch-size", "2", "--seconds", "0.01", "--no-memory", "-o", str(output)]

    def bench(*flags):
        assert main([*arguments, *flags]) == 0
        lines = capsys.readouterr().out.splitlines()
        return json.loads(output.read_text()), [line for line in lines if ", pooled_only: " in line]

    first_layer = ["--reduction", json.dumps({**REDUCTION, "layers": [0], "prune_ratio": 0.1})]
    (plain, said), (pooled, said_too) = bench(*first_layer), bench(*first_layer, "--pooled-only")
    assert (plain["pooled_only"], said) == ([], [])
    assert pooled["pooled_only"] == ["unreduced", "reduced"]
    assert said_too[0].endswith(", pooled_only: unreduced, reduced.")
    for name in ("unreduced", "reduced"):
        assert pooled["gflops"][name] < plain["gflops"][name]
    assert pooled["gflops"]["stock"] == plain["gflops"]["stock"]
    last_layer_reduces, _ = bench("--pooled-only")
    assert last_layer_reduces["pooled_only"] == ["unreduced"]


def test_the_time_is_expected_from_one_forward_of_each():
    models = {"unreduced": tiny("vilt", reduction=None)[0], "reduced": tiny("vilt")[0]}
    options = BenchOptions(seconds=1)
    contenders = {name: contender(model, 8, options) for name, model in models.items()}
    forwards = {"unreduced": 2.0, "reduced": 1.0}

    def expected(**changes):
        return expected_of_all(contenders, forwards, replace(options, **changes), batch_size=4)

    throughput, counting, latency, profiling = 6 * 3, 2 * 3 / 4, 7 * 3 / 4, 5 * 1
    assert expected() == throughput + counting + latency + profiling + 10 * 3
    assert expected(memory=False, latency=False) == throughput + counting + profiling
    assert expected(memory=False, latency=False, seconds=100) == 100 + 3 + counting + profiling


def test_what_takes_longer_than_expected_makes_the_bar_longer(monkeypatch, capsys):
    clock = iter([100.0, 104.0, 112.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    with progress.Progress("Waiting", 8.04) as own:
        own.begin("one")
        assert (own.bar.n, own.bar.total) == (4, 8.04)
        own.move()
        assert (own.bar.n, own.bar.total) == (12, 12)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("Waiting: about 8 s\n")
    assert "one:  50%" in printed.err


def test_the_batch_grows_until_it_stops_paying():
    def speeds(table, full=None):
        def at(size):
            if size == full:
                raise torch.cuda.OutOfMemoryError
            return table[size]

        return at

    rising = {8: {"a": 1.0, "b": 1.0}, 16: {"a": 1.0, "b": 1.5}, 32: {"a": 1.1, "b": 1.5}, 64: {"a": 1.1, "b": 1.5}}
    assert grow_batch(speeds(rising)) == 32
    assert grow_batch(speeds(rising), limit=16) == 16
    assert grow_batch(speeds(rising, full=32)) == 16
    assert grow_batch(speeds({8: {"a": 2.0}, 16: {"a": 1.9}})) == 8


SCHEDULE = ["--reduction", json.dumps(REDUCTION)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the model reduces no tokens (config.reduction is None): give a schedule, such as --reduction"),
        (["-o", "no/such/out.json"], "-o no/such/out.json: there is no folder no/such"),
        ([*SCHEDULE, "--batch-size", "0"], "batch_size=0: must be at least 1"),
        ([*SCHEDULE, "--batch-size", "many"], "--batch-size many: give a number of at least 1, or auto"),
        ([*SCHEDULE, "--text-length", "999"], "text_length=999: must be at least 1 and at"),
        ([*SCHEDULE, "--dtype", "int8"], "dtype='int8': choose one of float32, bfloat16, float16"),
        ([*SCHEDULE, "--matmul-precision", "low"], "matmul_precision='low': choose one of highest, high, medium"),
        ([*SCHEDULE, "--device", "tpu"], "device='tpu': choose cpu or cuda"),
        ([*SCHEDULE, "--seconds", "0"], "seconds=0.0: must be above 0"),
    ],
)
def test_a_bad_argument_is_named(arguments, message, tmp_path, capsys):
    checkpoint = save_tiny(tmp_path / "model", "vilt", reduction=None)
    assert main(["bench", checkpoint, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--setting", "vilt/cooking"], "no preset for backbone='vilt', task='cooking'"),
        (["--table", "3"], "`python benchmarks/paper.py 3`"),
        (["--table", "7", "--text-length", "9"], "`python benchmarks/paper.py 7`"),
    ],
)
def test_a_bad_setting_is_named(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["bench", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
