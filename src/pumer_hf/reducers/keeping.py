"""The common part of the methods that choose the patches to keep, and leave the text as it is."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from operator import index
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import ops
from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair
from .base import ReductionConfig, TokenReducer


@dataclass(frozen=True)
class KeepingConfig(ReductionConfig):
    """Schedule of a method that chooses the patches to keep. Give either `keep_ratio` or `num_keep`.

    Args:
        keep_ratio: part of the incoming patches to keep, in (0, 1]. At least one patch is kept.
        num_keep: number of patches to keep, at least 1. An image with fewer patches keeps them all.
    """

    sites: ClassVar[tuple[str, ...]] = ("inputs",)
    ratios: ClassVar[tuple[str, ...]] = ("keep_ratio",)

    keep_ratio: float | None = None
    num_keep: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.keep_ratio is None) == (self.num_keep is None):
            raise ValueError(
                f"reduction.keep_ratio={self.keep_ratio!r} and num_keep={self.num_keep!r}: give one of the two"
            )
        if self.num_keep is not None and (
            isinstance(self.num_keep, bool) or not isinstance(self.num_keep, int) or self.num_keep < 1
        ):
            raise ValueError(f"reduction.num_keep={self.num_keep!r}: must be an integer of at least 1")

    def _validate_ratio(self, name: str) -> None:
        value = self.keep_ratio
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise ValueError(f"reduction.{name}={value!r}: the part to keep must be a number in (0, 1]")
        object.__setattr__(self, name, float(value))

    def to_dict(self) -> dict[str, Any]:
        # a field that is None by default is left out where it is None
        defaults = {item.name: item.default for item in fields(self)}
        return {name: value for name, value in super().to_dict().items() if value is not None or defaults.get(name)}

    def scaled(self, factors: float | Mapping[str, float], caps: Mapping[str, float] | None = None) -> "KeepingConfig":
        """Return the same part with another `keep_ratio`: the part that is *not* kept is multiplied by the factor.

        Raises:
            ValueError: nothing would be kept, or the part has `num_keep` and the factor is not 1.
        """
        factor = factors.get("keep_ratio", 1.0) if isinstance(factors, Mapping) else factors
        if self.keep_ratio is None:
            if factor == 1:
                return self
            raise ValueError(f"reduction.num_keep={self.num_keep}: a number cannot be scaled, give keep_ratio")
        pruned = min(factor * (1 - self.keep_ratio), (caps or {}).get("keep_ratio", 1.0))
        return replace(self, keep_ratio=1 - pruned)


class KeepingReducer(TokenReducer):
    """Keeps some of the patches, in raster order. The [CLS] stays too."""

    config: KeepingConfig

    @abstractmethod
    def choose(self, pair: TokenPair, features: Tensor, num_keep: int) -> tuple[Tensor, Tensor | None]:
        """Choose the patches to keep.

        Args:
            pair: the tokens that come in, the [CLS] included.
            features: float (B, P, d), what the patches are compared by.
            num_keep: patches to keep, from 1 to P.

        Returns:
            Which patches are kept, long (B, num_keep) in [0, P), in any order; and the saliency of each, float (B, P),
            or None if the method has none.
        """

    def num_keep(self, layer: int, num_image: int) -> int:
        """Return how many of `num_image` image tokens are kept, [CLS] included."""
        num_patches = index(num_image) - NUM_PREFIX_TOKENS  # a constant in compiled code
        if self.config.num_keep is not None:
            return NUM_PREFIX_TOKENS + min(self.config.num_keep, num_patches)
        assert self.config.keep_ratio is not None, "the config has one of the two"
        return NUM_PREFIX_TOKENS + max(round(self.config.keep_ratio * num_patches), min(1, num_patches))

    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        return num_text, self.num_keep(layer, num_image)

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        num_image = pair.image.mask.shape[1]
        num_keep = self.num_keep(layer, num_image)
        features = evidence.image_keys[:, NUM_PREFIX_TOKENS:]
        chosen, saliency = self.choose(pair, features, num_keep - NUM_PREFIX_TOKENS)
        if saliency is not None:
            saliency = with_prefix(saliency)
        keep = with_prefix_places(chosen)
        image = pair.image.move(self.positions(keep, evidence.image_keys, pair), num_keep)
        pair = replace(pair, image=image)
        return pair, LayerTrace.of(layer, pair, saliency, keep, site=self.config.site)

    def positions(self, keep: Tensor, features: Tensor, pair: TokenPair) -> Tensor:
        """Return where each image token goes, long (B, Lv), -1 for a token that is dropped.

        Args:
            keep: long (B, num_keep), the tokens that stay, ascending.
            features: float (B, Lv, d), what the tokens are compared by.
            pair: the tokens that come in.
        """
        return ops.keep_positions(keep, pair.image.mask.shape[1])


def with_prefix(saliency: Tensor) -> Tensor:
    """Return the saliency of all image tokens, float (B, 1 + P), from that of the patches. The [CLS] gets the mean."""
    return torch.cat([saliency.mean(dim=1, keepdim=True), saliency], dim=1)


def with_prefix_places(chosen: Tensor) -> Tensor:
    """Return the image tokens that stay, long (B, 1 + n), ascending, from the chosen patches, long (B, n)."""
    ordered = chosen.sort(dim=1).values + NUM_PREFIX_TOKENS
    return torch.cat([ordered.new_zeros(ordered.shape[0], NUM_PREFIX_TOKENS), ordered], dim=1)
