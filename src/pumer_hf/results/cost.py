"""The cost of models: speed, FLOPs, tokens and memory. Each is stored by name of the model, the baseline first."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

REGIMES = ("inference", "training")
"""Two kinds of runs: a forward under `inference_mode`, and a training step (forward and backward)."""
TokenCounts = list[tuple[int, int]]
"""How many text and image tokens leave each layer."""


@dataclass(frozen=True)
class Speed:
    """The throughput of one model."""

    examples_per_second: float
    """The median over the rounds."""
    slowest: float
    fastest: float
    ratio: float
    """The speed of this model divided by the baseline's: the median over the rounds."""


@dataclass(frozen=True)
class Throughput:
    """The throughput of several models in one interleaved run."""

    batch_size: int
    rounds: int
    regime: str
    """What was timed, such as `"forward, inference_mode"`."""
    speeds: dict[str, Speed]

    @property
    def names(self) -> list[str]:
        """The models; the first one is the baseline."""
        return list(self.speeds)

    @property
    def gain(self) -> float:
        """The speed of the last model as a multiple of the baseline's."""
        return self.speeds[self.names[-1]].ratio

    @property
    def note(self) -> str:
        """How the speed was measured."""
        return f"{self.regime}, batch {self.batch_size}, {self.rounds} interleaved rounds"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Throughput":
        """Read the throughput from the values of a file, among which each model is one field."""
        return cls(values["batch_size"], values["rounds"], values["regime"], _by_name(Speed, values))

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds."""
        return {"batch_size": self.batch_size, "rounds": self.rounds, "regime": self.regime, **_plain(self.speeds)}


@dataclass(frozen=True)
class Latency:
    """The time of a forward of one model, in milliseconds."""

    p50: float
    p90: float
    p99: float
    ratio: float
    """The baseline's time divided by the time of this model: the median over the rounds."""


@dataclass(frozen=True)
class Latencies:
    """The latency of several models in one interleaved run."""

    rounds: int
    models: dict[str, Latency]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Latencies":
        """Read the latency from the values of a file, among which each model is one field."""
        return cls(values["rounds"], _by_name(Latency, values))

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds."""
        return {"rounds": self.rounds, **_plain(self.models)}


@dataclass(frozen=True)
class Memory:
    """The peak bytes of activations in both regimes, by name of the model."""

    batch_size: int
    inference: dict[str, int]
    training: dict[str, int]

    def peaks(self, regime: str) -> dict[str, int]:
        """Return the peaks of one of the `REGIMES`."""
        return {"inference": self.inference, "training": self.training}[regime]

    def share(self, regime: str, name: str) -> float:
        """Return the peak of a model as a part of the baseline's."""
        peaks = self.peaks(regime)
        return peaks[name] / peaks[next(iter(peaks))]


@dataclass(frozen=True)
class Cost:
    """The cost of models. A field that was not measured is None or empty."""

    throughput: Throughput | None = None
    latency: Latencies | None = None
    """The latency at batch 1."""
    gflops: dict[str, float] = field(default_factory=dict)
    """The multiply-adds of one example, in 10^9."""
    tokens_per_layer: dict[str, TokenCounts] = field(default_factory=dict)
    tokens_in: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The text and image tokens that come into the first layer, after the reduction of the inputs."""
    reduction_share: dict[str, float] = field(default_factory=dict)
    """The part of a forward's time that is spent on reducing tokens, for the models that reduce."""
    memory: Memory | None = None

    @property
    def gflops_gain(self) -> float:
        """The FLOPs of the baseline as a multiple of those of the last model."""
        counts = list(self.gflops.values())
        return counts[0] / counts[-1]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Cost":
        """Read the cost from the values of a file."""
        throughput, latency, memory = (values.get(name) for name in ("throughput", "latency", "memory"))
        tokens: dict[str, Any] = values.get("tokens_per_layer", {})
        tokens_in: dict[str, Any] = values.get("tokens_in", {})
        return cls(
            throughput=None if throughput is None else Throughput.from_dict(throughput),
            latency=None if latency is None else Latencies.from_dict(latency),
            gflops={name: count for name, count in values.get("gflops", {}).items() if name != "ratio"},
            tokens_per_layer={
                name: _token_counts("tokens_per_layer", name, layers) for name, layers in tokens.items()
            },
            tokens_in={name: _token_counts("tokens_in", name, [one])[0] for name, one in tokens_in.items()},
            reduction_share=dict(values.get("reduction_share", {})),
            memory=None if memory is None else Memory(**memory),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds. `throughput` and `gflops` also have `ratio`, the gain of the last model."""
        values: dict[str, Any] = {}
        if self.throughput is not None:
            values["throughput"] = {"ratio": self.throughput.gain, **self.throughput.to_dict()}
        if self.latency is not None:
            values["latency"] = self.latency.to_dict()
        if self.gflops:
            values["gflops"] = {"ratio": self.gflops_gain, **self.gflops}
        if self.tokens_per_layer:
            layers = {name: [list(one) for one in counts] for name, counts in self.tokens_per_layer.items()}
            values["tokens_per_layer"] = layers
        if self.tokens_in:
            values["tokens_in"] = {name: list(one) for name, one in self.tokens_in.items()}
        if self.reduction_share:
            values["reduction_share"] = self.reduction_share
        if self.memory is not None:
            values["memory"] = asdict(self.memory)
        return values


def _token_counts(field_name: str, model: str, layers: Any) -> TokenCounts:
    """The tokens per layer of a model, from a field of a file."""
    for counts in layers:
        if not isinstance(counts, (list, tuple)) or len(counts) != 2 or not all(isinstance(n, int) for n in counts):
            raise ValueError(f"{field_name}.{model}: {counts!r}: each layer has two integers, of text and of image")
    return [(text, image) for text, image in layers]


def _by_name(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: kind(**fields) for name, fields in values.items() if isinstance(fields, Mapping)}


def _plain(models: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(one) for name, one in models.items()}
