import platform
from dataclasses import asdict
from functools import partial
from itertools import cycle
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pumer_hf.bench import throughput
from pumer_hf.bench.throughput import (
    MIN_ROUNDS,
    compare_latency,
    compare_throughput,
    interleaved_times,
    keep_freed_memory,
)


@pytest.fixture
def worker(monkeypatch):
    """A model whose forward takes so many seconds, of a clock that only such models move."""
    now = 0.0
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: now))

    class Worker(nn.Module):
        def __init__(self, *seconds):
            super().__init__()
            self.seconds = cycle(seconds)

        def forward(self, x):
            nonlocal now
            assert torch.is_inference_mode_enabled()
            now += next(self.seconds)
            return x

    return Worker


def test_calls_alternate():
    order = []
    times = interleaved_times({name: lambda name=name: order.append(name) for name in "ab"}, warmup=1, seconds=0)
    assert order == ["a", "b"] * 6
    assert [len(values) for values in times.values()] == [5, 5]


def test_ratio_and_examples_per_second(worker):
    models = {"slow": worker(3.0, 3.0, 6.0), "fast": worker(1.0, 1.0, 4.0)}
    report = compare_throughput(models, {"x": torch.zeros(4, 2)}, warmup=0, seconds=30)
    assert (report.batch_size, report.rounds) == (4, 6)
    speeds = {name: asdict(speed) for name, speed in report.speeds.items()}
    slow, fast = (pytest.approx(values) for values in ((4 / 3, 4 / 6, 4 / 3), (4.0, 1.0, 4.0)))
    assert [speeds["slow"][name] for name in ("examples_per_second", "slowest", "fastest")] == slow
    assert [speeds["fast"][name] for name in ("examples_per_second", "slowest", "fastest")] == fast
    assert (speeds["slow"]["ratio"], speeds["fast"]["ratio"], report.gain) == (1, pytest.approx(3), pytest.approx(3))


def test_at_least_five_rounds(worker):
    assert compare_throughput({"one": worker(50.0)}, {"x": torch.zeros(4, 2)}, seconds=30).rounds == 5


def test_a_model_may_take_inputs_of_its_own():
    seen = {}

    class Recorder(nn.Module):
        def forward(self, x):
            seen[self] = x.shape

    models = {"whole": Recorder(), "small": Recorder()}
    compare_throughput(
        models, {"x": torch.zeros(4, 2)}, own_inputs={"small": {"x": torch.zeros(4, 1)}}, warmup=0, seconds=0
    )
    assert {name: seen[model] for name, model in models.items()} == {"whole": (4, 2), "small": (4, 1)}


def test_latency_in_percentiles(worker):
    models = {"slow": worker(3.0), "fast": worker(*range(1, 12))}
    inputs = {name: {"x": torch.zeros(1, 2)} for name in models}
    report = compare_latency(models, inputs, warmup=0, seconds=11 * 3 + sum(range(1, 12)) - 0.5)
    assert report.rounds == 11
    slow, fast = report.models["slow"], report.models["fast"]
    assert [slow.p50, slow.p90, slow.p99] == pytest.approx([3000] * 3)
    assert [fast.p50, fast.p90, fast.p99] == pytest.approx([6000, 10000, 10900])
    assert fast.ratio == pytest.approx(3 / 6)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="elsewhere the allocator stays as it is")
def test_freed_memory_is_kept():
    resource = pytest.importorskip("resource")
    keep_freed_memory()
    torch.ones(10_000_000)  # 40 MB: some 10,000 pages each time, if it were given back

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(10_000_000)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 20_000


def test_what_is_called_after_each_round_is_outside_the_timed_calls():
    seen = []
    calls = {name: partial(seen.append, name) for name in "ab"}
    times = interleaved_times(calls, warmup=1, seconds=0, on_round=lambda: seen.append("round"))
    assert seen == ["a", "b", *(["a", "b", "round"] * MIN_ROUNDS)]
    assert [len(own) for own in times.values()] == [MIN_ROUNDS, MIN_ROUNDS]
