"""The interface of a token reduction method: a config dataclass and a module."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from operator import index
from typing import Any, ClassVar

from torch import nn

from ..tokens import Evidence, LayerTrace, TokenPair

Ratios = float | tuple[float, ...]


@dataclass(frozen=True)
class ReductionConfig:
    """A schedule: where a method reduces, and (in its subclasses) how much.

    Args:
        layers: indices of the layers that reduce, ascending.
    """

    method: ClassVar[str]
    ratios: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that hold a ratio in [0, 1): one number for all layers or one per entry of `layers`."""

    layers: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", _as_layers(self.layers))
        for name in self.ratios:
            self._validate_ratio(name)

    def validate_depth(self, num_layers: int) -> None:
        """Raise `ValueError` if a layer does not exist in a model of `num_layers` layers."""
        if self.layers[-1] >= num_layers:
            raise ValueError(
                f"reduction.layers={list(self.layers)} names layer {self.layers[-1]}, "
                f"but the model has layers 0 to {num_layers - 1}"
            )

    def check_training(self, *, image_saliency: bool, texts_match: bool, all_patches: bool) -> None:
        """Raise `ValueError` if the method cannot be trained with such data or such a model.

        Args:
            image_saliency: whether the data have a map of what each text is about.
            texts_match: whether each text of a batch is about its image.
            all_patches: whether the model takes all patches of an image.
        """

    def to_dict(self) -> dict[str, Any]:
        """The config as plain JSON types, `method` included."""
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"method": self.method, **fields}

    def ratio(self, name: str, layer: int) -> float:
        """The value of the per-layer field `name` at `layer`: a scalar counts for every layer."""
        value = getattr(self, name)
        return value[self.layers.index(layer)] if isinstance(value, tuple) else value

    def scaled(self, factor: float) -> "ReductionConfig":
        """The same schedule with every ratio times `factor`, a number in [0, 1]."""
        if not 0 <= factor <= 1:
            raise ValueError(f"factor={factor}: must be in [0, 1]")
        ratios: dict[str, Any] = {
            name: [factor * self.ratio(name, layer) for layer in self.layers] for name in self.ratios
        }
        return replace(self, **ratios)

    def _validate_weight(self, name: str) -> None:
        """Check a field that holds the weight of a loss, and store it as a float."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ValueError(f"reduction.{name}={value!r}: must be a number of at least 0")
        object.__setattr__(self, name, float(value))

    def _validate_ratio(self, name: str) -> None:
        """Check a per-layer ratio field and store it as a float or as a tuple with one float per layer."""
        value = getattr(self, name)
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        for item in values:
            if isinstance(item, bool) or not isinstance(item, (int, float)) or not 0 <= item < 1:
                raise ValueError(f"reduction.{name}={value!r}: a ratio must be a number in [0, 1)")
        if isinstance(value, (list, tuple)) and len(values) != len(self.layers):
            raise ValueError(
                f"reduction.{name} has {len(values)} values for {len(self.layers)} layers: "
                f"give one number for all layers, or one per entry of reduction.layers={list(self.layers)}"
            )
        checked = tuple(map(float, values)) if isinstance(value, (list, tuple)) else float(value)
        object.__setattr__(self, name, checked)


class HasInit(ABC):
    """A module of a reducer that initialises some of its parameters itself, after the model's `_init_weights`."""

    @abstractmethod
    def reset(self) -> None:
        """Set the first values of its own parameters, but not those of its children."""


class TokenReducer(nn.Module, ABC):
    """A method of token reduction. In eval mode `forward` is pure: same tokens, same evidence, same result.

    A subclass sets `config_class`, `summary`, `paper` and, if it reads `Evidence.text_to_image`, `uses_attention`.

    Args:
        config: the schedule.
        width: D, the width of the token states.
    """

    config_class: ClassVar[type[ReductionConfig]]
    summary: ClassVar[str]
    """What some layers do, for cards and pages: they "prune ..."."""
    paper: ClassVar[str]
    """Where it is from, as a link in Markdown."""
    uses_prior: ClassVar[bool] = False
    """Whether the model needs `image_saliency`."""
    learns: ClassVar[bool] = False
    """Whether the method has weights, which must be trained."""
    uses_attention: bool = False

    def __init__(self, config: ReductionConfig, width: int):
        super().__init__()
        self.config = config

    def accepts(self, config: ReductionConfig) -> bool:
        """Whether this module can be reused with another config.

        A method that learns can be reused if the same parts of it learn.
        """
        return type(config) is type(self.config)

    @abstractmethod
    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        """Tokens that leave `layer` when `num_text` and `num_image` tokens come in. Depends on nothing else.

        A method that learns where to prune may mask tokens in training instead of removing them: these are the lengths
        in eval mode.
        """

    @abstractmethod
    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        """Reduce the tokens of `layer`, between its attention residual and its feed-forward part."""


def num_tokens_of(ratio: float, length: int) -> int:
    """How many of `length` tokens the part `ratio` in [0, 1) is. `round` is Python's (half to even).

    `index` makes the length a constant of compiled code. Otherwise the lengths of all later layers would be
    expressions of it, which take minutes to compile. The batch size may still vary.
    """
    return round(ratio * index(length))


def _as_layers(layers: Any) -> tuple[int, ...]:
    if not isinstance(layers, (list, tuple)) or not layers:
        raise ValueError(f"reduction.layers={layers!r}: give a list with at least one layer index")
    if any(isinstance(layer, bool) or not isinstance(layer, int) or layer < 0 for layer in layers):
        raise ValueError(f"reduction.layers={layers!r}: a layer index must be an integer of at least 0")
    if list(layers) != sorted(set(layers)):
        raise ValueError(f"reduction.layers={layers!r}: layer indices must ascend without repeats")
    return tuple(layers)
