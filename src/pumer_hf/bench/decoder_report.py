"""`DecoderReport`: what `pumer-hf bench` writes about a decoder model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from ..results import Environment, Results
from .break_even import BreakEven

UNREDUCED, REDUCED = "unreduced", "reduced"
"""The two forms of the model by name."""
FORMS = (UNREDUCED, REDUCED)
ANNOUNCED, MEASURED = "announced", "measured"
"""What the schedule says about the tokens of each layer, and what the run has."""


@dataclass(frozen=True)
class Work:
    """The multiply-adds of the prefill of one prompt, in 10^9, counted from a run: image tower and decoder."""

    unreduced: float
    reduced: float
    image_tower: float
    """Those of the image tower and the projector, which a cut behind them cannot reach."""
    text: float
    """Those of the decoder for the same prompt without its images, which no cut of image tokens can reach either."""
    first_layers: float = 0.0
    """Those for the image tokens in the layers before the first cut, which it cannot reach. 0 with a cut before the
    decoder."""

    @property
    def ratio(self) -> float:
        """How many times fewer the reduced model needs."""
        return self.unreduced / self.reduced

    @property
    def tower_share(self) -> float:
        """The image tower's part of the unreduced prefill, in [0, 1]."""
        return self.image_tower / self.unreduced

    @property
    def limit(self) -> float:
        """How many times fewer they would be if no image token were left after the first cut."""
        return self.unreduced / (self.image_tower + self.text + self.first_layers)

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> "Work":
        """Read it from the values of a file. Those of older versions have no cut inside the decoder."""
        names = (*FORMS, "image_tower", "text")
        return cls(**{name: values[name] for name in names}, first_layers=values.get("first_layers", 0.0))

    def to_dict(self) -> dict[str, float]:
        """Return what a file holds."""
        return {**asdict(self), "ratio": self.ratio, "tower_share": self.tower_share, "limit": self.limit}


@dataclass(frozen=True)
class Seconds:
    """The time of something in several rounds, in seconds."""

    median: float
    fastest: float
    slowest: float

    @classmethod
    def of(cls, times: Sequence[float]) -> "Seconds":
        """Make it from the time of each round."""
        return cls(median(times), min(times), max(times))


@dataclass(frozen=True)
class Compared:
    """The times of both forms of the model, measured in turn."""

    rounds: int
    unreduced: Seconds
    reduced: Seconds
    ratio: float
    """How many times as fast the reduced model is: the median over the rounds."""

    @classmethod
    def of(cls, times: Mapping[str, Sequence[float]]) -> "Compared":
        """Make it from the times of each round, by name of the form."""
        pairs = list(zip(times[UNREDUCED], times[REDUCED], strict=True))
        ratio = median(before / after for before, after in pairs)
        return cls(len(pairs), Seconds.of(times[UNREDUCED]), Seconds.of(times[REDUCED]), ratio)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Compared":
        """Read it from the values of a file."""
        return cls(values["rounds"], Seconds(**values[UNREDUCED]), Seconds(**values[REDUCED]), values["ratio"])


@dataclass(frozen=True)
class DecoderSpeed:
    """The times of a decoder model."""

    prefill: Compared
    """From the inputs to the first logits: image tower, reduction, decoder."""
    reducer: Seconds
    """The part of the reduced prefill that chooses, merges and cuts, from a profile of the model as it is before it is
    compiled."""
    reducer_share: float
    """The reducer's part of the reduced prefill, in [0, 1]."""
    first_token: Compared | None = None
    """The time of `generate` for one new token. None if nothing was generated."""
    end_to_end: Compared | None = None
    """The time of `generate` for `new_tokens` tokens."""
    per_token: Compared | None = None
    """What each token after the first one takes. None for a single new token."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DecoderSpeed":
        """Read it from the values of a file."""
        names = ("first_token", "end_to_end", "per_token")
        others = {name: Compared.from_dict(values[name]) for name in names if values.get(name) is not None}
        prefill, reducer = Compared.from_dict(values["prefill"]), Seconds(**values["reducer"])
        return cls(prefill, reducer, values["reducer_share"], **others)

    def to_dict(self) -> dict[str, Any]:
        """Return what a file holds."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class DecoderConditions:
    """How a decoder model ran."""

    device: str
    dtype: str
    attention: str
    """transformers' `attn_implementation`."""
    matmul_precision: str
    compiled: bool
    batch_size: int
    text_length: int
    """Words per prompt, without padding."""
    new_tokens: int


@dataclass(frozen=True)
class DecoderReport(Results):
    """A decoder model with fewer image tokens, measured against itself unreduced. All by name of the form."""

    source: dict[str, str]
    """Which model it is. `checkpoint` has a folder or a Hub id; `setting` names a published shape, and `shape` the
    checkpoint that has it."""
    random_weights: bool
    family: str
    reduction: dict[str, Any] | list[dict[str, Any]]
    conditions: DecoderConditions
    image_tokens: dict[str, int]
    """Image tokens per prompt that the decoder gets."""
    work: Work
    speed: DecoderSpeed
    cache_bytes: dict[str, int]
    """The bytes of keys and values of the whole batch after the prefill."""
    memory: dict[str, int] = field(default_factory=dict)
    """The peak bytes of the prefill of the whole batch beyond weights and inputs. Empty if it was not measured."""
    layer_tokens: dict[str, list[int]] = field(default_factory=dict)
    """Image tokens per prompt that each layer of the reduced decoder reads, [`ANNOUNCED`] and [`MEASURED`]. Empty in
    files of older versions."""
    weight_bytes: int = 0
    mean_image_tokens: float | None = None
    """Image tokens per prompt that the reduced decoder gets on average, where the data decide about it (`keep_mass`).
    `image_tokens` has those of the first prompt."""
    environment: Environment = field(default_factory=Environment)
    break_even: BreakEven | None = None
    """Where the reduction pays. None in files of older versions."""

    @property
    def name(self) -> str:
        """The checkpoint or the setting."""
        return next(iter(self.source.values()))

    @property
    def efficiency(self) -> float:
        """How much of the saved work became speed: the ratio of prefill times over that of multiply-adds."""
        return self.speed.prefill.ratio / self.work.ratio

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DecoderReport":
        return cls(
            source={name: values[name] for name in ("checkpoint", "setting", "shape") if name in values},
            random_weights=values["random_weights"],
            family=values["family"],
            reduction=values["reduction"],
            conditions=DecoderConditions(**values["conditions"]),
            image_tokens=dict(values["image_tokens"]),
            work=Work.from_dict(values["gmacs"]),
            speed=DecoderSpeed.from_dict(values["seconds"]),
            cache_bytes=dict(values["cache_bytes"]),
            memory=dict(values.get("memory", {})),
            layer_tokens=dict(values.get("layer_tokens", {})),
            weight_bytes=values["weight_bytes"],
            mean_image_tokens=values.get("mean_image_tokens"),
            environment=Environment.from_dict(values),
            break_even=BreakEven.from_dict(values.get("break_even")),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.source,
            "random_weights": self.random_weights,
            "family": self.family,
            "reduction": self.reduction,
            "conditions": asdict(self.conditions),
            "image_tokens": self.image_tokens,
            "layer_tokens": self.layer_tokens,
            "gmacs": self.work.to_dict(),
            "seconds": self.speed.to_dict(),
            "efficiency": self.efficiency,
            "cache_bytes": self.cache_bytes,
            "memory": self.memory,
            "weight_bytes": self.weight_bytes,
            **({} if self.mean_image_tokens is None else {"mean_image_tokens": self.mean_image_tokens}),
            **({} if self.break_even is None else {"break_even": self.break_even.to_dict()}),
            **self.environment.to_dict(),
        }
