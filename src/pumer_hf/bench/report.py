"""`BenchReport`: what `pumer-hf bench` writes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..results import Cost, Environment, Results, Throughput
from .break_even import BreakEven
from .contenders import BenchOptions, Contender
from .measure import pools_only

UNREDUCED, STOCK, REDUCED = "unreduced", "stock", "reduced"
"""The models by name."""


@dataclass(frozen=True)
class Conditions:
    """How the models of a benchmark ran."""

    device: str = "cpu"
    dtype: dict[str, str] = field(default_factory=dict)
    """The precision of each model, by name."""
    matmul_precision: str = "highest"
    compiled: tuple[str, ...] = ()
    """The models that were compiled."""
    pooled_only: tuple[str, ...] = ()
    """The models whose last layer computes only what is pooled."""

    @classmethod
    def of(cls, contenders: Mapping[str, Contender], options: BenchOptions) -> "Conditions":
        """Return the conditions of a benchmark."""
        return cls(
            device=options.device,
            dtype={name: str(one.eager.dtype).removeprefix("torch.") for name, one in contenders.items()},
            matmul_precision=options.matmul_precision,
            compiled=tuple(name for name, one in contenders.items() if one.run is not one.eager),
            pooled_only=tuple(name for name, one in contenders.items() if pools_only(one.eager)),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Conditions":
        """Read the conditions from the values of a file. Older files lack some of them."""
        return cls(
            device=values["device"],
            dtype=values["dtype"],
            matmul_precision=values.get("matmul_precision", "highest"),
            compiled=tuple(values["compiled"]),
            pooled_only=tuple(values.get("pooled_only", ())),
        )


@dataclass(frozen=True)
class BenchReport(Results):
    """A model that reduces tokens, measured against itself unreduced and against stock transformers."""

    source: dict[str, str]
    """Which model it is. `checkpoint` has a folder or a Hub id; `setting` names a full-size model with random weights.
    """
    reduction: dict[str, Any] | list[dict[str, Any]] | None
    """Its schedule, as `config.reduction` holds it."""
    text_length: int
    conditions: Conditions
    cost: Cost
    """The cost by name of the model: unreduced, stock (if transformers has the model) and reduced."""
    environment: Environment
    mean_image_tokens: float | None = None
    """Image tokens that an example of the batch keeps on average, where the data decide about it (`keep_mass`)."""
    break_even: BreakEven | None = None
    """Where the reduction pays. None in files of older versions."""

    @property
    def name(self) -> str:
        """The checkpoint or the setting."""
        return next(iter(self.source.values()))

    @property
    def throughput(self) -> Throughput:
        """The throughput, which is always measured."""
        assert self.cost.throughput is not None, f"{self.name}: no throughput"
        return self.cost.throughput

    @property
    def reduced(self) -> str:
        """The name of the model that the report is about. It is the last one."""
        return self.throughput.names[-1]

    @property
    def gain_over_stock(self) -> float | None:
        """How many times as fast as stock transformers the reduced model is; None without one."""
        speeds = self.throughput.speeds
        return speeds[self.reduced].ratio / speeds[STOCK].ratio if STOCK in speeds else None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BenchReport":
        return cls(
            source={name: values[name] for name in ("checkpoint", "setting") if name in values},
            reduction=values["reduction"],
            text_length=values["text_length"],
            conditions=Conditions.from_dict(values),
            cost=Cost.from_dict(values),
            environment=Environment.from_dict(values),
            mean_image_tokens=values.get("mean_image_tokens"),
            break_even=BreakEven.from_dict(values.get("break_even")),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.source,
            "reduction": self.reduction,
            "text_length": self.text_length,
            **asdict(self.conditions),
            **self.cost.to_dict(),
            **({} if self.mean_image_tokens is None else {"mean_image_tokens": self.mean_image_tokens}),
            **({} if self.break_even is None else {"break_even": self.break_even.to_dict()}),
            **self.environment.to_dict(),
        }


def mass_lines(mean_image_tokens: float | None) -> list[str]:
    """Return a line about the number of image tokens that an example keeps, where the data decide about it."""
    if mean_image_tokens is None:
        return []
    return [
        f"keep_mass: an example of the batch keeps {mean_image_tokens:.1f} image tokens on average. The inputs are "
        "random, so this number, and with it the speed, says little about real images and texts."
    ]
