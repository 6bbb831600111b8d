"""Patches that are unlike each other, whatever the text asks.

The choice by distance is DivPrune's (https://arxiv.org/abs/2503.02175), the choice by a determinantal point process
that of CDPruner (https://arxiv.org/abs/2506.10967) without its relevance to the text.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..tokens import NUM_PREFIX_TOKENS, TokenPair
from .choice import choose_dpp, choose_max_min
from .keeping import KeepingConfig, KeepingReducer

DIVERSITIES = {"dpp": choose_dpp, "max_min": choose_max_min}
"""How the choice makes the kept patches differ, by name."""


@dataclass(frozen=True)
class DiverseReductionConfig(KeepingConfig):
    """Schedule of a choice by diversity alone.

    Args:
        diversity: `"dpp"` for a determinantal point process ([`choose_dpp`]), `"max_min"` for the distance to the
            nearest kept patch ([`choose_max_min`]).
    """

    method: ClassVar[str] = "diverse"

    diversity: str = "dpp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.diversity not in DIVERSITIES:
            raise ValueError(f"reduction.diversity={self.diversity!r}: choose one of {', '.join(DIVERSITIES)}")


class DiverseReducer(KeepingReducer):
    """Keeps patches whose features differ most from each other."""

    config_class = DiverseReductionConfig
    summary = "keep the patches that differ most from each other"
    paper = "[DivPrune](https://arxiv.org/abs/2503.02175), [CDPruner](https://arxiv.org/abs/2506.10967)"
    config: DiverseReductionConfig

    def choose(self, pair: TokenPair, features: Tensor, num_keep: int) -> tuple[Tensor, Tensor | None]:
        mask = pair.image.mask[:, NUM_PREFIX_TOKENS:]
        quality = torch.ones(mask.shape, device=mask.device)
        return DIVERSITIES[self.config.diversity](features, quality, mask, num_keep), None
