"""Random pruning, the baseline of TiP (Section 4.4). The schedule is the same, but random patches stay."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..tokens import Evidence, TokenPair
from .pruning import PruningReducer, ShareConfig


@dataclass(frozen=True)
class RandomReductionConfig(ShareConfig):
    """Schedule of random pruning.

    Args:
        seed: an integer of at least 0. In eval mode, another seed prunes other positions.
    """

    method: ClassVar[str] = "random"

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"reduction.seed={self.seed!r}: must be an integer of at least 0")


class RandomReducer(PruningReducer):
    """Prunes random image tokens.

    In training it draws new ones for every example. In eval mode it prunes the same positions in all examples, so that
    results repeat.
    """

    config_class = RandomReductionConfig
    summary = "prune random image tokens"
    paper = "a baseline of TiP, the draft before [PuMer](https://aclanthology.org/2023.acl-long.721)"
    config: RandomReductionConfig

    def saliency(self, layer: int, pair: TokenPair, evidence: Evidence) -> Tensor:
        if self.training:
            return torch.rand(pair.image.mask.shape, device=pair.image.mask.device)
        place = torch.arange(pair.image.mask.shape[1], device=pair.image.mask.device)
        return scramble(place, layer, self.config.seed).expand(pair.image.mask.shape)


def scramble(place: Tensor, layer: int, seed: int) -> Tensor:
    """Return numbers that look random, float32 in [0, 1), one for each of `place`, long (L,).

    They are computed and not drawn, so that the function compiles and exports. The bits of an integer are mixed in 32
    bits, with the factors of MurmurHash3's finisher.
    """
    value = (place + 1) * 0x9E3779B1 + (layer + 1) * 0x85EBCA77 + (seed + 1) * 0xC2B2AE3D
    for factor in (0x85EBCA6B, 0xC2B2AE35):
        value = value & 0xFFFFFFFF
        value = ((value ^ (value >> 16)) * factor) & 0xFFFFFFFF
    value = value ^ (value >> 16)
    return (value & 0xFFFFFF).float() / 0x1000000
