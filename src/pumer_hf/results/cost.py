"""What models cost: speed, FLOPs, tokens and memory, each by name of the model, the baseline first."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

REGIMES = ("inference", "training")
"""Two kinds of runs: a forward under `inference_mode`, and a step of training (forward and backward)."""
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
    """The median over the rounds of this model's speed over the baseline's."""


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
        """How many times as fast as the baseline the last model is."""
        return self.speeds[self.names[-1]].ratio

    @property
    def note(self) -> str:
        """How the speed was measured."""
        return f"{self.regime}, batch {self.batch_size}, {self.rounds} interleaved rounds"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Throughput":
        """From a file, in which the models stand beside the other fields."""
        return cls(values["batch_size"], values["rounds"], values["regime"], _by_name(Speed, values))

    def to_dict(self) -> dict[str, Any]:
        """For a file."""
        return {"batch_size": self.batch_size, "rounds": self.rounds, "regime": self.regime, **_plain(self.speeds)}


@dataclass(frozen=True)
class Latency:
    """The time of a forward of one model, in milliseconds."""

    p50: float
    p90: float
    p99: float
    ratio: float
    """The median over the rounds of the baseline's time over this model's."""


@dataclass(frozen=True)
class Latencies:
    """The latency of several models in one interleaved run."""

    rounds: int
    models: dict[str, Latency]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Latencies":
        """From a file, in which the models stand beside the other fields."""
        return cls(values["rounds"], _by_name(Latency, values))

    def to_dict(self) -> dict[str, Any]:
        """For a file."""
        return {"rounds": self.rounds, **_plain(self.models)}


@dataclass(frozen=True)
class Memory:
    """The peak bytes of activations in both regimes, by name of the model."""

    batch_size: int
    inference: dict[str, int]
    training: dict[str, int]

    def peaks(self, regime: str) -> dict[str, int]:
        """The peaks of one of the `REGIMES`."""
        return {"inference": self.inference, "training": self.training}[regime]

    def share(self, regime: str, name: str) -> float:
        """A model's peak as a part of the baseline's."""
        peaks = self.peaks(regime)
        return peaks[name] / peaks[next(iter(peaks))]


@dataclass(frozen=True)
class Cost:
    """What models cost. What was not measured is None or empty."""

    throughput: Throughput | None = None
    latency: Latencies | None = None
    """At batch 1."""
    gflops: dict[str, float] = field(default_factory=dict)
    """Multiply-adds of one example, in 10^9."""
    tokens_per_layer: dict[str, TokenCounts] = field(default_factory=dict)
    reduction_share: dict[str, float] = field(default_factory=dict)
    """The part of a forward's time that goes into reducing tokens, of the models that reduce."""
    memory: Memory | None = None

    @property
    def gflops_gain(self) -> float:
        """How many times fewer FLOPs than the baseline the last model needs."""
        counts = list(self.gflops.values())
        return counts[0] / counts[-1]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Cost":
        """The cost that stands among the values of a file."""
        throughput, latency, memory = (values.get(name) for name in ("throughput", "latency", "memory"))
        tokens: dict[str, Any] = values.get("tokens_per_layer", {})
        return cls(
            throughput=None if throughput is None else Throughput.from_dict(throughput),
            latency=None if latency is None else Latencies.from_dict(latency),
            gflops={name: count for name, count in values.get("gflops", {}).items() if name != "ratio"},
            tokens_per_layer={name: _token_counts(name, layers) for name, layers in tokens.items()},
            reduction_share=dict(values.get("reduction_share", {})),
            memory=None if memory is None else Memory(**memory),
        )

    def to_dict(self) -> dict[str, Any]:
        """For a file. `throughput` and `gflops` also have `ratio`, the gain of the last model over the first."""
        values: dict[str, Any] = {}
        if self.throughput is not None:
            values["throughput"] = {"ratio": self.throughput.gain, **self.throughput.to_dict()}
        if self.latency is not None:
            values["latency"] = self.latency.to_dict()
        if self.gflops:
            values["gflops"] = {"ratio": self.gflops_gain, **self.gflops}
        if self.tokens_per_layer:
            layers = {name: [list(counts) for counts in own] for name, own in self.tokens_per_layer.items()}
            values["tokens_per_layer"] = layers
        if self.reduction_share:
            values["reduction_share"] = self.reduction_share
        if self.memory is not None:
            values["memory"] = asdict(self.memory)
        return values


def _token_counts(model: str, layers: Any) -> TokenCounts:
    """The tokens per layer of a model, from a file."""
    for counts in layers:
        if not isinstance(counts, (list, tuple)) or len(counts) != 2 or not all(isinstance(n, int) for n in counts):
            raise ValueError(
                f"tokens_per_layer.{model}: {counts!r}: each layer has two integers, of text and of image"
            )
    return [(text, image) for text, image in layers]


def _by_name(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: kind(**own) for name, own in values.items() if isinstance(own, Mapping)}


def _plain(models: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(own) for name, own in models.items()}
