"""Patches that the text asks about and that are unlike each other.

The choice by coverage is MMTok's (https://arxiv.org/abs/2508.18264), the choice by a determinantal point process that
of CDPruner (https://arxiv.org/abs/2506.10967). Both weigh the patches by their relevance.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import ops
from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair
from .choice import choose_coverage
from .diverse import DIVERSITIES
from .keeping import KeepingConfig, KeepingReducer, with_prefix

CHOICES = {**DIVERSITIES, "coverage": choose_coverage}
"""How the choice makes the kept patches differ, by name."""


@dataclass(frozen=True)
class RelevantDiverseConfig(KeepingConfig):
    """Schedule of a choice by relevance and diversity.

    Args:
        diversity: `"coverage"` ([`choose_coverage`]), `"dpp"` ([`choose_dpp`]) or `"max_min"` ([`choose_max_min`]).
        p: exponent of the relevance, at least 0. At 0 the text has no influence.
        temperature: what the cosine of a word and a patch is divided by, above 0. The lower it is, the more the
            relevance goes to the patches that are most like the words.
    """

    method: ClassVar[str] = "relevant_diverse"

    diversity: str = field(default="coverage", kw_only=True)
    p: float = field(default=0.5, kw_only=True)
    temperature: float = field(default=0.1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._validate_weight("temperature")
        if not self.temperature:
            raise ValueError(f"reduction.temperature={self.temperature!r}: must be a number above 0")
        if self.diversity not in CHOICES:
            raise ValueError(f"reduction.diversity={self.diversity!r}: choose one of {', '.join(CHOICES)}")
        self._validate_weight("p")


class RelevantDiverseReducer(KeepingReducer):
    """Chooses patches one by one, by relevance to the power of `p`, times what each adds to those already chosen.

    The relevance is that of [`embedding_relevance`], divided by its largest value. It becomes the `prior` of the
    tokens.
    """

    config_class = RelevantDiverseConfig
    summary = "keep patches that are like the words of the text, and that differ from each other"
    paper = "[MMTok](https://arxiv.org/abs/2508.18264), [CDPruner](https://arxiv.org/abs/2506.10967)"
    uses_text = True
    config: RelevantDiverseConfig

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        relevance = embedding_relevance(pair, self.config.temperature)
        return super().forward(layer, replace(pair, image=replace(pair.image, prior=relevance)), evidence)

    def choose(self, pair: TokenPair, features: Tensor, num_keep: int) -> tuple[Tensor, Tensor | None]:
        mask = pair.image.mask[:, NUM_PREFIX_TOKENS:]
        assert pair.image.prior is not None, "`forward` has set it"
        relevance = pair.image.prior[:, NUM_PREFIX_TOKENS:]
        quality = self.quality(relevance, features, mask)
        return CHOICES[self.config.diversity](features, quality, mask, num_keep), relevance

    def quality(self, relevance: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Return what weighs the patches, float (B, P), above 0.

        Args:
            relevance: float (B, P).
            features: float (B, P, d), what the patches are compared by.
            mask: bool (B, P), True for real patches.
        """
        return quality_of(relevance, self.config.p)


def quality_of(relevance: Tensor, p: float) -> Tensor:
    """Return the relevance of patches, float (B, P), divided by its largest value, to the power of `p`."""
    return (relevance / relevance.amax(dim=1, keepdim=True)).clamp(min=1e-9) ** p


def embedding_relevance(pair: TokenPair, temperature: float) -> Tensor:
    """Return how much each image token is like the words of the text, float32 (B, Lv), before the first layer.

    Each real word gives the softmax of its cosine similarity to the patches, and the relevance is the mean over the
    words. This stands for the attention of PuMer's Eq. 1, which no layer has computed yet. The [CLS] gets the mean.
    Padding has 0.
    """
    patches = F.normalize(pair.image.states[:, NUM_PREFIX_TOKENS:].detach().float(), dim=-1)
    words = F.normalize(pair.text.states.detach().float(), dim=-1)
    mask = pair.image.mask[:, None, NUM_PREFIX_TOKENS:]
    alike = ops.exact_product(words, patches.transpose(1, 2)) / temperature
    alike = alike.masked_fill(~mask, -torch.inf).softmax(dim=-1)
    return with_prefix(ops.saliency_from_text(alike.unsqueeze(1), pair.text.mask))
