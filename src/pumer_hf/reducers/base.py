"""The interface of a token reduction method: a config dataclass and a module."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from operator import index
from typing import Any, ClassVar

from torch import Tensor, nn

from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair

Ratios = float | tuple[float, ...]

SITES = ("tower", "inputs", "layers")
"""Where a model can reduce tokens, in the order in which tokens pass there.

* `"tower"`: in the layers of the image tower, before the image meets the text.
* `"inputs"`: before the first layer in which image and text meet. It counts as one layer, of index 0.
* `"layers"`: in the layers in which image and text meet.
"""

HEADS = ("mean_head", "first_head")
"""Whose attention counts: the mean of all heads, or the first head alone."""
HIGHEST, HIGHEST_MERGE = 0.95, 0.4
"""The highest ratios that scaling gives: of pruning, and of merging.

A matching pairs at most half of the tokens, so the second is four fifths of those that can merge. Closer to all of
them, tokens merge because they must, not because they are similar."""


@dataclass(frozen=True)
class Layout:
    """What the usual schedule of a method depends on ([`ReductionConfig.usual`])."""

    depths: Mapping[str, int]
    """How many layers each site of the model has."""
    first_layer: int = 0
    """The first layer of the site `"layers"` in which an early cut does no harm."""
    in_decoder: bool = False

    def all_layers(self, site: str) -> list[int]:
        """Return the layers of a site in which a cut makes sense. In a decoder, nothing runs after the last one."""
        last = self.depths.get(site, 1) - (self.in_decoder and site == "layers")
        return list(range(self.first_layer if site == "layers" else 0, last))

    def quarters(self, site: str) -> list[int]:
        """Return the layers after which at least a quarter, a half and three quarters of a site's layers have run.

        The last layer is not among them if there is another. The numbers are rounded up, because a cut in a
        layer in which the image has hardly met the text costs most accuracy.
        """
        number = self.depths.get(site, 1)
        first = min(self.first_layer, number - 1) if site == "layers" else 0
        last = max(number - 2, first)
        return sorted({min(max(-(-number * stage // 4) - 1, first), last) for stage in (1, 2, 3)})


PAPER_LAYOUT = Layout({"tower": 12, "inputs": 1, "layers": 12})
"""The layout that is assumed where the model is not known yet: the towers and the layers of the paper's models."""


@dataclass(frozen=True)
class ReductionConfig:
    """One part of a schedule. It says at which site and in which layers a method reduces. Subclasses say how much.

    Args:
        layers: indices of the layers that reduce, ascending. `()` means every layer of an image tower. It is also the
            value for the site `"inputs"`, which has no layers.
        site: where the method works, one of [`SITES`].
    """

    method: ClassVar[str]
    sites: ClassVar[tuple[str, ...]] = ("layers",)
    """Sites at which the method can work."""
    ratios: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that hold a ratio in [0, 1): one number for all layers, or one per entry of `layers`."""

    layers: tuple[int, ...]
    site: str = field(default="layers", kw_only=True)

    def __post_init__(self) -> None:
        if self.site not in self.sites:
            raise ValueError(
                f"reduction.site={self.site!r}: method {self.method!r} works at {', '.join(map(repr, self.sites))}"
            )
        object.__setattr__(self, "layers", _as_layers(self.layers, self.site))
        for name in self.ratios:
            self._validate_ratio(name)

    @property
    def predicts(self) -> bool:
        """Whether the method predicts an attention, as `lookahead` does."""
        return False

    @property
    def varies(self) -> bool:
        """Whether it depends on the data how many tokens stay, so that no length is fixed."""
        return False

    @property
    def needs_prediction(self) -> bool:
        """Whether the method reads the attention that `lookahead` predicts."""
        return False

    @property
    def given_ratios(self) -> tuple[str, ...]:
        """Names of the ratios that have a value."""
        return tuple(name for name in self.ratios if getattr(self, name) is not None)

    @property
    def decoder_fields(self) -> list[str]:
        """Names of the fields that are not at their default and that only decoders understand."""
        return []

    @property
    def parts(self) -> tuple["ReductionConfig", ...]:
        """The parts of a schedule that this object stands for: itself, unless several work at the same site."""
        return (self,)

    def with_learned(self, known: Sequence["ReductionConfig"]) -> "ReductionConfig":
        """Return this part for a model that has learned others: a scorer that was trained apart keeps its form.

        Args:
            known: the parts that the model has learned, the latest first.
        """
        return self

    def for_reducer_stage(self) -> "ReductionConfig":
        """Return this part as the stage uses it in which only the reducers and the head learn."""
        return self

    def reduces(self, layer: int) -> bool:
        """Return whether the layer with this index reduces tokens."""
        return not self.layers or layer in self.layers

    def validate_depth(self, num_layers: int) -> None:
        """Raise `ValueError` if a layer does not exist at a site of `num_layers` layers."""
        if self.layers and self.layers[-1] >= num_layers:
            raise ValueError(
                f"reduction.layers={list(self.layers)} names layer {self.layers[-1]}, "
                f"but the model has layers 0 to {num_layers - 1} at site {self.site!r}"
            )

    def check_training(self, *, image_saliency: bool, texts_match: bool, all_patches: bool) -> None:
        """Raise `ValueError` if the method cannot be trained with such data or such a model.

        Args:
            image_saliency: whether the data have a map that shows what each text is about.
            texts_match: whether each text of a batch is about its image.
            all_patches: whether the model takes all patches of an image.
        """

    def check_decoder(self) -> None:
        """Raise `ValueError` if a field asks for what no method can do in a decoder."""

    def to_dict(self) -> dict[str, Any]:
        """Return the config as plain JSON types, with `method`. Site `"layers"` and empty `layers` are left out."""
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        if self.site == "layers":
            del fields["site"]
        if not self.layers:
            del fields["layers"]
        return {"method": self.method, **fields}

    def ratio(self, name: str, layer: int) -> float:
        """Return the value of the per-layer field `name` at `layer`. A single number holds for every layer."""
        value = getattr(self, name)
        return value[self.layers.index(layer)] if isinstance(value, tuple) else value

    @classmethod
    def usual(cls, site: str, layout: Layout) -> dict[str, Any]:
        """Return the schedule to begin with where only a budget is given: the layers, and the ratios to scale."""
        layers = {} if site == "inputs" else {"layers": layout.quarters(site)}
        return {**layers, **dict.fromkeys(cls.ratios[:1], 0.5)}

    def scaled(
        self, factors: float | Mapping[str, float], caps: Mapping[str, float] | None = None
    ) -> "ReductionConfig":
        """Return the same part with its ratios multiplied by a factor, and rounded to four decimals.

        No ratio becomes higher than its cap, but one that is higher already stays.

        Args:
            factors: one number of at least 0 for all ratios, or one for each ratio to change, by name.
            caps: the highest value of ratios by name; default: [`highest`].
        """
        by_name = factors if isinstance(factors, Mapping) else dict.fromkeys(self.given_ratios, factors)
        changes: dict[str, Any] = {}
        for name, factor in by_name.items():
            if factor != 1:
                value, cap = getattr(self, name), (caps or {}).get(name, self.highest(name))
                times = [self._times(name, item, factor, cap) for item in as_list(value)]
                changes[name] = tuple(times) if isinstance(value, tuple) else times[0]
        return replace(self, **changes)

    def removed(self, name: str) -> list[float]:
        """Return what a factor multiplies: the values of a ratio, one for each layer or one for all."""
        return as_list(getattr(self, name))

    def highest(self, name: str) -> float:
        """Return the highest value that scaling gives a ratio."""
        return HIGHEST_MERGE if "merge" in name else HIGHEST

    def _times(self, name: str, value: float, factor: float, cap: float) -> float:
        """Return a value of a ratio, multiplied."""
        return min(round(min(factor * value, max(cap, value)), 4), max(cap, value))

    def _validate_weight(self, name: str) -> None:
        """Check a field that holds the weight of a loss, and store it as a float."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ValueError(f"reduction.{name}={value!r}: must be a number of at least 0")
        object.__setattr__(self, name, float(value))

    def _validate_ratio(self, name: str) -> None:
        """Check a per-layer ratio field and store it as a float or as a tuple with one float per layer."""
        value = getattr(self, name)
        values = as_list(value)
        if not values:
            raise ValueError(f"reduction.{name}={value!r}: give one number, or at least one in a list")
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
    """A method of token reduction. In eval mode `forward` is pure: the same tokens and evidence give the same result.

    A subclass sets `config_class`, `summary`, `paper` and, if it reads `Evidence.text_to_image`, `uses_attention`.

    Args:
        config: the schedule.
        width: D, the width of the token states.
        text_width: the width of the text tokens, for a method with `uses_text`; None if it is the same.
    """

    config_class: ClassVar[type[ReductionConfig]]
    summary: ClassVar[str]
    """What the layers with this method do, for cards and pages: they "prune ..."."""
    paper: ClassVar[str]
    """The source of the method, as a link in Markdown."""
    uses_prior: bool = False
    """Whether the model needs `image_saliency`."""
    learns: bool = False
    """Whether the method has weights, which must be trained."""
    learns_apart: bool = False
    """Whether the method must have learned before the model uses it. Its weights are trained beside a frozen model."""
    uses_text: bool = False
    """Whether the method reads the text tokens at a site before text and image meet."""
    uses_attention: bool = False
    """Whether the method reads `Evidence.text_to_image`."""
    in_decoder: bool = False
    """Whether the model is a decoder. A decoder has no image [CLS]: image token 0 is empty, and `mask` calls it
    padding. No ratio counts it, and at least one other image token stays. The text of a decoder stays as it is."""
    stops_after: int | None = None
    """The last layer at site `"layers"` that the model runs. None, the value of all methods, runs every layer."""

    def __init__(self, config: ReductionConfig, width: int, text_width: int | None = None):
        super().__init__()
        self.config = config

    def accepts(self, config: ReductionConfig) -> bool:
        """Return whether this module can be reused with another config.

        A method that learns can be reused if the same parts of it learn.
        """
        return type(config) is type(self.config)

    def use(self, config: ReductionConfig) -> None:
        """Reduce by another config from now on, one that the method [`accepts`]."""
        self.config = config

    @property
    def num_empty(self) -> int:
        """How many leading image tokens are empty, so that no ratio counts them."""
        return NUM_PREFIX_TOKENS if self.in_decoder else 0

    @property
    def parts(self) -> tuple["TokenReducer", ...]:
        """The reducers of single parts of a schedule: itself, unless several parts work at the same site."""
        return (self,)

    def at(self, layer: int) -> "TokenReducer":
        """Return the reducer of the part that works in a layer."""
        return self

    @abstractmethod
    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        """Return how many text and image tokens leave `layer` when `num_text` and `num_image` come in.

        The lengths depend on nothing else. They are those of eval mode: in training, a method that learns where to
        prune may mask tokens instead of removing them. Of a part that varies ([`ReductionConfig.varies`]), they are
        the most that may leave.
        """

    def num_keep(self, layer: int, num_image: int) -> int:
        """Return how many of `num_image` image tokens the pruning of `layer` keeps, before any of them merge."""
        return num_image

    @abstractmethod
    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        """Reduce the tokens of `layer`, between its attention residual and its feed-forward part."""


def gradients_error(config: ReductionConfig) -> ValueError:
    """Make the error for a method that learns in training, in a layer without gradients."""
    return ValueError(
        f"reduction.method={config.method!r} learns where to prune, which needs gradients: checkpoint activations "
        "with use_reentrant=False, and use the model in eval mode (model.eval()) to infer"
    )


def num_tokens_of(ratio: float, length: int) -> int:
    """Return the number of tokens that is the part `ratio`, in [0, 1), of `length` tokens. Halves round to even.

    `index` makes the length a constant in compiled code. Otherwise the lengths of all later layers would be
    expressions of this one, which take minutes to compile. The batch size may still vary.
    """
    return round(ratio * index(length))


def num_kept(prune_ratio: float, length: int) -> int:
    """Return how many of `length` image tokens are left after pruning; at least one."""
    return max(length - num_tokens_of(prune_ratio, length), 1)


def chosen_heads(attention: Tensor, heads: str) -> Tensor:
    """Return the heads of `attention`, float (B, H, Lt, Lv), that count. `heads` is one of [`HEADS`]."""
    return attention[:, :1] if heads == "first_head" else attention


def as_list(value: Any) -> list[Any]:
    """Return the values of a field that holds one number or several."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _as_layers(layers: Any, site: str) -> tuple[int, ...]:
    """Check the indices of the layers that reduce at a site, and return them."""
    if not isinstance(layers, (list, tuple)) or (not layers and site == "layers"):
        raise ValueError(f"reduction.layers={layers!r}: give a list with at least one layer index")
    if layers and site == "inputs":
        raise ValueError(f"reduction.layers={layers!r}: leave it out: site 'inputs' lies before the layers")
    if any(isinstance(layer, bool) or not isinstance(layer, int) or layer < 0 for layer in layers):
        raise ValueError(f"reduction.layers={layers!r}: a layer index must be an integer of at least 0")
    if list(layers) != sorted(set(layers)):
        raise ValueError(f"reduction.layers={layers!r}: layer indices must ascend without repeats")
    return tuple(layers)
