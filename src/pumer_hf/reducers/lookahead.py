"""lookahead: a small scorer predicts where a later layer will attend, and the other patches are dropped at once.

The scorer reads what is known before the first layer: the patches and the words. It learns from the attention of one
layer of the unreduced model, or of all its layers (PuMer, Eq. 1), without labels, while the model stays frozen. It is
this project's own method, after the idea of TiP's learned pruners (the draft before
https://aclanthology.org/2023.acl-long.721).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair
from .base import Layout, gradients_error
from .keeping import KEPT, with_prefix
from .mass import check_fixed_lengths, numbers_by_mass
from .scoring import ScoringConfig, ScoringReducer

ALL_LAYERS = "all"
"""The target of a scorer that predicts the mean attention of all layers."""
TargetLayer = int | str
"""What a scorer predicts: the attention of the layer with this index, or [`ALL_LAYERS`]."""


@dataclass(frozen=True)
class LookaheadReductionConfig(ScoringConfig):
    """Schedule of lookahead, and the form of its scorer.

    Args:
        form: that of [`ScoringConfig`].
        rank: that of [`ScoringConfig`].
        diversity: that of [`ScoringConfig`].
        p: that of [`ScoringConfig`].
        weights: that of [`ScoringConfig`].
        target_layer: the layer whose attention the scorer has learned to predict, or `"all"` for the mean of all
            layers. It is a record, and changes nothing.
        keep_mass: at site `"inputs"`, the part of the predicted attention that the kept patches hold, in (0, 1], in
            the place of `keep_ratio` or `num_keep`. Each example keeps as many patches as its highest predictions need
            to add up to this part, and a batch is padded to its longest example. So the lengths depend on the data:
            each forward waits once for their values, and code with fixed shapes (ONNX, `torch.compile` with
            `fullgraph=True`) is an error. A scorer that was trained to keep the answers too (`answer_steps`) predicts
            more sharply than the attention is, and then few patches stay: give `min_keep`.
        min_keep: the fewest patches that an example keeps with `keep_mass`, at least 1.
        max_keep: the most patches that an example keeps with `keep_mass`. None: all of them.
    """

    method: ClassVar[str] = "lookahead"
    sites: ClassVar[tuple[str, ...]] = ("inputs", "tower")
    learned: ClassVar[tuple[str, ...]] = ("form", "rank", "target_layer")
    ratios: ClassVar[tuple[str, ...]] = KEPT
    amounts: ClassVar[tuple[str, ...]] = ("keep_ratio", "num_keep", "keep_mass")

    diversity: str | None = "dpp"
    target_layer: TargetLayer | None = None
    keep_mass: float | None = field(default=None, kw_only=True)
    min_keep: int = field(default=1, kw_only=True)
    max_keep: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_mass()
        if not (self.target_layer in (None, ALL_LAYERS) or is_layer(self.target_layer)):
            raise ValueError(
                f"reduction.target_layer={self.target_layer!r}: give the index of a layer, {ALL_LAYERS!r} or null"
            )
        if self.site == "tower" and len(self.layers) != 1:
            raise ValueError(f"reduction.layers={list(self.layers)}: name the one layer of the tower that chooses")

    @classmethod
    def usual(cls, site: str, layout: Layout) -> dict[str, Any]:
        layers = {"layers": layout.quarters(site)[:1]} if site == "tower" else {}
        return {**layers, "keep_ratio": 0.5}

    @property
    def predicts(self) -> bool:
        return True

    @property
    def varies(self) -> bool:
        return self.keep_mass is not None

    def num_kept_patches(self, num_patches: int) -> int | None:
        """Return how many of `num_patches` patches stay. With `keep_mass` it is the most that may stay."""
        if self.keep_mass is None:
            return super().num_kept_patches(num_patches)
        num_patches = index(num_patches)
        return num_patches if self.max_keep is None else min(self.max_keep, num_patches)

    def with_amount(self, **amount: Any) -> "LookaheadReductionConfig":
        """Return the same part with another amount in the place of its own, such as `keep_ratio=0.5`."""
        none: dict[str, Any] = {**dict.fromkeys(self.amounts), "min_keep": 1, "max_keep": None}
        return replace(self, **{**none, **amount})

    def scaled(
        self, factors: float | Mapping[str, float], caps: Mapping[str, float] | None = None
    ) -> "LookaheadReductionConfig":
        """Return the same part with another amount ([`KeepingConfig.scaled`]).

        Raises:
            ValueError: the part has `num_keep` or `max_keep`, and the factor is not 1.
        """
        if self.max_keep is not None and not isinstance(factors, Mapping) and factors != 1:
            raise ValueError(f"reduction.max_keep={self.max_keep}: a number cannot be scaled, leave it out")
        return cast("LookaheadReductionConfig", super().scaled(factors, caps))

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        if self.min_keep == 1:
            del values["min_keep"]
        return values

    def _check_mass(self) -> None:
        """Raise `ValueError` if `keep_mass`, or what goes with it, is wrong."""
        for name, least in (("min_keep", 1), ("max_keep", self.min_keep)):
            value = getattr(self, name)
            if value is None and name == "max_keep":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"reduction.{name}={value!r}: must be an integer of at least {least}")
            if self.keep_mass is None and (name == "max_keep" or value != 1):
                raise ValueError(f"reduction.{name}={value}: goes with keep_mass alone: leave it out")
        if self.keep_mass is None:
            return
        if self.site != "inputs":
            raise ValueError(
                f"reduction.keep_mass={self.keep_mass}: is for site 'inputs' alone: give keep_ratio or num_keep"
            )
        if self.merge_rest:
            raise ValueError(
                f"reduction.merge_rest=True: with keep_mass={self.keep_mass} a batch is padded, and nothing can merge "
                "into padding: set it to false, or give keep_ratio or num_keep"
            )


def is_layer(value: object) -> bool:
    """Return whether a value is the index of a layer."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def layer_words(target: TargetLayer | None) -> str:
    """Return what a scorer predicts in words. `None`: it is not known."""
    if target is None:
        return "a later layer"
    return "all layers" if target == ALL_LAYERS else f"layer {target}"


class LookaheadReducer(ScoringReducer):
    """Keeps the patches that the text will need, as a scorer predicts.

    The tokens that are left carry the predicted attention as their `prior`. In training the choice is the same. If the
    scorer learns, each kept token has a `gate` of 1 in later attention whose gradient reaches its score.
    """

    config_class = LookaheadReductionConfig
    summary = "drop the patches to which a small scorer predicts that no later layer will attend"
    paper = "this project's own, after TiP, the draft before [PuMer](https://aclanthology.org/2023.acl-long.721)"
    learns_apart = True
    config: LookaheadReductionConfig

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        log_attention = self.log_attention(pair)
        predicted = with_prefix(log_attention.detach().exp())
        image = replace(pair.image, prior=predicted)
        if self.scorer_learns and self.config.site == "tower" and not torch.is_grad_enabled():
            raise gradients_error(self.config)  # a layer of the tower is checkpointed with its reducer
        if self.scorer_learns and log_attention.requires_grad:
            ones = (log_attention - log_attention.detach()).nan_to_num(0.0).exp()
            image = replace(image, gate=F.pad(ones, (NUM_PREFIX_TOKENS, 0), value=1.0))
        return super().forward(layer, replace(pair, image=image), evidence)

    def numbers(self, pair: TokenPair) -> Tensor | None:
        config = self.config
        if config.keep_mass is None:
            return None
        if torch.compiler.is_compiling():
            check_fixed_lengths([config], "compiled and exported code has fixed shapes")
        mask = pair.image.mask[:, NUM_PREFIX_TOKENS:]
        return numbers_by_mass(self.predicted(pair), mask, config.keep_mass, config.min_keep, config.max_keep)

    def predicted(self, pair: TokenPair) -> Tensor:
        assert pair.image.prior is not None, "`forward` has set it"
        return pair.image.prior[:, NUM_PREFIX_TOKENS:]
