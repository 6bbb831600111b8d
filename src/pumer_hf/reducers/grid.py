"""An even sample of the patches: every n-th one in raster order. It is the simplest baseline at site `"inputs"`."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..tokens import NUM_PREFIX_TOKENS, TokenPair
from .keeping import KeepingConfig, KeepingReducer


@dataclass(frozen=True)
class GridReductionConfig(KeepingConfig):
    """Schedule of an even sample."""

    method: ClassVar[str] = "grid"


class GridReducer(KeepingReducer):
    """Keeps patches at even distances in raster order. The places depend on the number of real patches alone."""

    config_class = GridReductionConfig
    summary = "keep an even sample of the patches"
    paper = "a baseline, as the sampling in Section 4 of [DivPrune](https://arxiv.org/abs/2503.02175)"

    def choose(self, pair: TokenPair, features: Tensor, num_keep: int) -> tuple[Tensor, Tensor | None]:
        mask = pair.image.mask[:, NUM_PREFIX_TOKENS:]
        # stable, so that the real patches keep their order
        real_first = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        num_real = mask.sum(dim=1, keepdim=True)
        wanted = torch.arange(num_keep, device=mask.device).unsqueeze(0)
        # the middle of each of `num_keep` parts of the real patches
        spread = ((2 * wanted + 1) * num_real).div(2 * num_keep, rounding_mode="floor")
        return real_first.gather(1, torch.where(num_real > num_keep, spread, wanted)), None
