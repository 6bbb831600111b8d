"""The common part of the methods that choose patches by a small scorer, which reads the patches and the words."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from .. import ops
from ..tokens import NUM_PREFIX_TOKENS, TokenPair
from .base import ReductionConfig
from .choice import Pick, choose_best, first_highest
from .diverse import DIVERSITIES
from .keeping import KeepingConfig, KeepingReducer
from .scorer import FORMS


@dataclass(frozen=True)
class ScoringConfig(KeepingConfig):
    """Schedule of a method that keeps patches by a scorer, and the form of the scorer.

    Args:
        form: the network of the scorer, one of [`FORMS`]. A trained scorer has its own form and rank. They need not be
            given with it, and any value but the default must be the same.
        rank: width of the scorer, at least 1.
        diversity: how the kept patches are made to differ: `"dpp"`, `"max_min"`, or None to keep the highest scores.
        p: exponent of the predicted attention beside the diversity, at least 0. At 0 the scorer has no influence.
        weights: a folder or a Hub id with a trained scorer, to load it once. A saved model has it inside, so that
            this field is then None.
    """

    learned: ClassVar[tuple[str, ...]] = ("form", "rank")
    """The fields that a trained scorer brings with it."""

    form: str = "gated"
    rank: int = 64
    diversity: str | None = None
    p: float = 0.25
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

    def with_learned(self, known: Sequence[ReductionConfig]) -> ReductionConfig:
        for other in known:
            if isinstance(other, ScoringConfig) and self.weights is None and self.place == other.place:
                return self.with_form_of(other)
        return self

    def with_form_of(self, other: "ScoringConfig") -> "ScoringConfig":
        """Return this part with the form of another one, where it has none of its own."""
        unsaid = [
            item.name
            for item in fields(self)
            if item.name in self.learned and getattr(self, item.name) == item.default
        ]
        return replace(self, **{name: getattr(other, name) for name in unsaid if name in other.learned})

    @property
    def place(self) -> tuple[str, tuple[int, ...]]:
        """The site and the layers, which belong to a scorer."""
        return self.site, self.layers


class ScoringReducer(KeepingReducer):
    """Keeps the patches of which a scorer thinks most."""

    learns = True
    uses_text = True
    config: ScoringConfig

    def __init__(self, config: ScoringConfig, width: int, text_width: int | None = None):
        super().__init__(config, width)
        self.scorer = FORMS[config.form](width, text_width or width, config.rank)

    @property
    def scorer_learns(self) -> bool:
        """Whether the model is in training and the scorer is not frozen."""
        return self.training and any(weight.requires_grad for weight in self.scorer.parameters())

    def accepts(self, config: ReductionConfig) -> bool:
        return super().accepts(config) and self.has_form_of(config)

    def has_form_of(self, config: ReductionConfig) -> bool:
        """Return whether a scorer for a part has the same form and the same place, so that weights fit."""
        own = self.config
        return isinstance(config, ScoringConfig) and (config.form, config.rank, config.place) == (
            own.form,
            own.rank,
            own.place,
        )

    def log_attention(self, pair: TokenPair) -> Tensor:
        """Return the log of the predicted attention to each patch, float32 (B, P). Padding has -inf."""
        mask = pair.image.mask[:, NUM_PREFIX_TOKENS:]
        scores = self.scorer(pair.image.states[:, NUM_PREFIX_TOKENS:], pair.text.states, pair.text.mask)
        return scores.float().masked_fill(~mask, -torch.inf).log_softmax(dim=-1)

    def choose(self, pair: TokenPair, features: Tensor, num_keep: int) -> tuple[Tensor, Tensor | None]:
        mask, attention = pair.image.mask[:, NUM_PREFIX_TOKENS:], self.predicted(pair)
        if self.config.diversity is None:
            return ops.keep_salient(attention, mask, num_keep, num_prefix_tokens=0), attention
        return self.choose_by(attention, features, mask, num_keep), attention

    def predicted(self, pair: TokenPair) -> Tensor:
        """Return the predicted attention by which patches are chosen, float32 (B, P), without a gradient."""
        return self.log_attention(pair).detach().exp()

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
