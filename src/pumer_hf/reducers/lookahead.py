"""lookahead: a small scorer predicts where a later layer will attend, and the other patches are dropped at once.

The scorer reads what is known before the first layer: the patches and the words. It learns from the attention of one
layer of the unreduced model, or of all its layers (PuMer, Eq. 1), without labels, while the model stays frozen. It is
this project's own method, after the idea of TiP's learned pruners (the draft before
https://aclanthology.org/2023.acl-long.721).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import ops
from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair
from .base import ReductionConfig, gradients_error
from .choice import Pick, choose_best, first_highest
from .diverse import DIVERSITIES
from .keeping import KeepingConfig, KeepingReducer, with_prefix
from .scorer import FORMS

LEARNED = ("form", "rank", "target_layer")
"""The fields that a trained scorer brings with it."""
ALL_LAYERS = "all"
"""The target of a scorer that predicts the mean attention of all layers."""
TargetLayer = int | str
"""What a scorer predicts: the attention of the layer with this index, or [`ALL_LAYERS`]."""


@dataclass(frozen=True)
class LookaheadReductionConfig(KeepingConfig):
    """Schedule of lookahead, and the form of its scorer.

    Args:
        form: the network of the scorer, one of [`FORMS`]. A trained scorer has its own form and rank. They need not be
            given with it, and any value but the default must be the same.
        rank: width of the scorer, at least 1.
        diversity: how the kept patches are made to differ: `"dpp"`, `"max_min"`, or None to keep the highest scores.
        p: exponent of the predicted attention beside the diversity, at least 0. At 0 the scorer has no influence.
        target_layer: the layer whose attention the scorer has learned to predict, or `"all"` for the mean of all
            layers. It is a record, and changes nothing.
        weights: a folder or a Hub id with a trained scorer, to load it once. A saved model has it inside, so that
            this field is then None.
    """

    method: ClassVar[str] = "lookahead"
    sites: ClassVar[tuple[str, ...]] = ("inputs", "tower")

    form: str = "gated"
    rank: int = 64
    diversity: str | None = "dpp"
    p: float = 0.25
    target_layer: TargetLayer | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMS:
            raise ValueError(f"reduction.form={self.form!r}: choose one of {', '.join(FORMS)}")
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"reduction.rank={self.rank!r}: must be an integer of at least 1")
        if self.diversity is not None and self.diversity not in DIVERSITIES:
            raise ValueError(f"reduction.diversity={self.diversity!r}: choose {', '.join(DIVERSITIES)} or null")
        self._validate_weight("p")
        if not (self.target_layer in (None, ALL_LAYERS) or is_layer(self.target_layer)):
            raise ValueError(
                f"reduction.target_layer={self.target_layer!r}: give the index of a layer, {ALL_LAYERS!r} or null"
            )
        if self.site == "tower" and len(self.layers) != 1:
            raise ValueError(f"reduction.layers={list(self.layers)}: name the one layer of the tower that chooses")

    def with_learned(self, known: Sequence[ReductionConfig]) -> ReductionConfig:
        for other in known:
            if isinstance(other, LookaheadReductionConfig) and self.weights is None and self.place == other.place:
                defaults = {item.name: item.default for item in fields(self) if item.name in LEARNED}
                unsaid = [name for name, default in defaults.items() if getattr(self, name) == default]
                return replace(self, **{name: getattr(other, name) for name in unsaid})
        return self

    @property
    def place(self) -> tuple[str, tuple[int, ...]]:
        """The site and the layers, which belong to a scorer."""
        return self.site, self.layers

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


class LookaheadReducer(KeepingReducer):
    """Keeps the patches that the text will need, as a scorer predicts.

    The tokens that are left carry the predicted attention as their `prior`. In training the choice is the same. If the
    scorer learns, each kept token has a `gate` of 1 in later attention whose gradient reaches its score.
    """

    config_class = LookaheadReductionConfig
    summary = "drop the patches to which a small scorer predicts that no later layer will attend"
    paper = "this project's own, after TiP, the draft before [PuMer](https://aclanthology.org/2023.acl-long.721)"
    learns = True
    learns_apart = True
    uses_text = True
    config: LookaheadReductionConfig

    def __init__(self, config: LookaheadReductionConfig, width: int, text_width: int | None = None):
        super().__init__(config, width)
        self.scorer = FORMS[config.form](width, text_width or width, config.rank)

    def accepts(self, config: object) -> bool:
        own = self.config
        return isinstance(config, LookaheadReductionConfig) and (config.form, config.rank, config.place) == (
            own.form,
            own.rank,
            own.place,
        )

    def log_attention(self, pair: TokenPair) -> Tensor:
        """Return the log of the predicted attention to each patch, float32 (B, P). Padding has -inf."""
        mask = pair.image.mask[:, NUM_PREFIX_TOKENS:]
        scores = self.scorer(pair.image.states[:, NUM_PREFIX_TOKENS:], pair.text.states, pair.text.mask)
        return scores.float().masked_fill(~mask, -torch.inf).log_softmax(dim=-1)

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        log_attention = self.log_attention(pair)
        predicted = with_prefix(log_attention.detach().exp())
        image = replace(pair.image, prior=predicted)
        scorer_learns = self.training and any(weight.requires_grad for weight in self.scorer.parameters())
        if scorer_learns and self.config.site == "tower" and not torch.is_grad_enabled():
            raise gradients_error(self.config)  # a layer of the tower is checkpointed with its reducer
        if scorer_learns and log_attention.requires_grad:
            ones = (log_attention - log_attention.detach()).nan_to_num(0.0).exp()
            image = replace(image, gate=F.pad(ones, (NUM_PREFIX_TOKENS, 0), value=1.0))
        return super().forward(layer, replace(pair, image=image), evidence)

    def choose(self, pair: TokenPair, features: Tensor, num_keep: int) -> tuple[Tensor, Tensor | None]:
        mask = pair.image.mask[:, NUM_PREFIX_TOKENS:]
        assert pair.image.prior is not None, "`forward` has set it"
        attention = pair.image.prior[:, NUM_PREFIX_TOKENS:]
        if self.config.diversity is None:
            return ops.keep_salient(attention, mask, num_keep, num_prefix_tokens=0), attention
        return self.choose_by(attention, features, mask, num_keep), attention

    def choose_by(
        self, attention: Tensor, features: Tensor, mask: Tensor, num_keep: int, pick: Pick = first_highest
    ) -> Tensor:
        """Choose patches by their attention and their diversity, in steps.

        Args:
            attention: float (B, P), predicted or given.
            features: float (B, P, d), what the patches are compared by.
            mask: bool (B, P), True for real patches.
            num_keep: patches to keep.
            pick: what takes the patch of each step.

        Returns:
            long (B, num_keep), in the order of the choice.
        """
        quality = (attention / attention.amax(dim=1, keepdim=True)).clamp(min=1e-9)
        if self.config.diversity is None:
            return choose_best(features, quality, mask, num_keep, pick)
        return DIVERSITIES[self.config.diversity](features, quality**self.config.p, mask, num_keep, pick)
