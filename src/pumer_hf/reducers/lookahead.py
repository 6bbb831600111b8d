"""lookahead: a small scorer predicts where a later layer will attend, and the other patches are dropped at once.

The scorer reads what is known before the first layer: the patches and the words. It learns from the attention of one
layer of the unreduced model, or of all its layers (PuMer, Eq. 1), without labels, while the model stays frozen. It is
this project's own method, after the idea of TiP's learned pruners (the draft before
https://aclanthology.org/2023.acl-long.721).
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair
from .base import Layout, gradients_error
from .keeping import with_prefix
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
        diversity: that of [`ScoringConfig`], with another default.
        p: that of [`ScoringConfig`].
        weights: that of [`ScoringConfig`].
        target_layer: the layer whose attention the scorer has learned to predict, or `"all"` for the mean of all
            layers. It is a record, and changes nothing.
    """

    method: ClassVar[str] = "lookahead"
    sites: ClassVar[tuple[str, ...]] = ("inputs", "tower")
    learned: ClassVar[tuple[str, ...]] = ("form", "rank", "target_layer")

    diversity: str | None = "dpp"
    target_layer: TargetLayer | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def predicted(self, pair: TokenPair) -> Tensor:
        assert pair.image.prior is not None, "`forward` has set it"
        return pair.image.prior[:, NUM_PREFIX_TOKENS:]
