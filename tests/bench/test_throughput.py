import platform
import time

import pytest
import torch
from torch import nn

from pumer_hf.bench.environment import environment
from pumer_hf.bench.throughput import compare_latency, compare_throughput, interleaved_times, keep_freed_memory


class Sleeper(nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, x):
        assert torch.is_inference_mode_enabled()
        time.sleep(self.seconds)
        return x


def test_calls_alternate():
    order = []
    times = interleaved_times({name: lambda name=name: order.append(name) for name in "ab"}, warmup=1, seconds=0)
    assert order == ["a", "b"] * 6
    assert [len(values) for values in times.values()] == [5, 5]


def test_ratio_and_examples_per_second():
    models = {"slow": Sleeper(0.03), "fast": Sleeper(0.01)}
    report = compare_throughput(models, {"x": torch.zeros(4, 2)}, warmup=0, seconds=0.1)
    assert report["batch_size"] == 4
    assert report["rounds"] >= 5
    assert report["slow"]["ratio"] == 1
    assert report["fast"]["ratio"] == pytest.approx(3, rel=0.3)
    assert report["slow"]["examples_per_second"] == pytest.approx(4 / 0.03, rel=0.3)
    assert report["fast"]["slowest"] <= report["fast"]["examples_per_second"] <= report["fast"]["fastest"]


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


def test_environment_says_versions_machine_and_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/train.py", "--seed", "3"])
    found = environment()
    assert found["command"] == "train.py --seed 3"
    assert found["versions"]["torch"] == torch.__version__
    assert found["machine"]["torch_threads"] == torch.get_num_threads()


def test_latency_in_percentiles():
    models = {"slow": Sleeper(0.03), "fast": Sleeper(0.01)}
    inputs = {name: {"x": torch.zeros(1, 2)} for name in models}
    report = compare_latency(models, inputs, warmup=0, seconds=0.1)
    assert report["rounds"] >= 5
    assert report["slow"]["p50"] == pytest.approx(30, rel=0.3)
    assert report["slow"]["p50"] <= report["slow"]["p90"] <= report["slow"]["p99"]
    assert report["fast"]["ratio"] == pytest.approx(3, rel=0.3)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="elsewhere the allocator stays as it is")
def test_freed_memory_is_kept():
    resource = pytest.importorskip("resource")
    keep_freed_memory()
    torch.ones(10_000_000)  # 40 MB: some 10,000 pages each time, if it were given back

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(10_000_000)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 20_000
