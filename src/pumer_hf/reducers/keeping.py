"""The common part of the methods that choose the patches to keep, and leave the text as it is."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from operator import index
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import ops
from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair, Tokens
from .base import Layout, ReductionConfig, TokenReducer

POSITIONS = ("original", "contiguous")
"""What the positions of the kept tokens may be."""
KEPT = ("keep_ratio", "keep_mass")
"""The ratios that say how much stays. All others say how much goes."""
HIGHEST_DROP = 0.99
"""The highest part of the patches, or of the predicted attention, that scaling drops before the first layer."""


@dataclass(frozen=True)
class KeepingConfig(ReductionConfig):
    """Schedule of a method that says how many patches stay at site `"inputs"`. Give one of its amounts.

    Args:
        keep_ratio: part of the incoming patches to keep, in (0, 1]. At least one patch is kept.
        num_keep: number of patches to keep, at least 1. An image with fewer patches keeps them all.
        merge_rest: whether each dropped patch is merged into the kept patch that is most like it. A kept patch is then
            the plain mean of its group.
        positions: in decoders, the positions of the tokens after the cut. `"original"`: each kept token has the
            position that it had in the whole prompt. `"contiguous"`: the positions have no gaps.
        per_prompt: in decoders, whether the amount is that of all images of a prompt together, so that one image may
            keep more patches than another. If not, each image keeps this amount.
        reread: in decoders, what `generate` does in a later turn of a chat, with the cache of an earlier one. If not
            set, the turn goes on with the tokens that were kept for the first question. If set, it takes the whole
            chat with its images, and reads it anew into another cache. The words that the given cache does not hold,
            those of the new question, choose.
    """

    sites: ClassVar[tuple[str, ...]] = ("inputs",)
    ratios: ClassVar[tuple[str, ...]] = ("keep_ratio",)
    amounts: ClassVar[tuple[str, ...]] = ("keep_ratio", "num_keep")
    """The fields that say how much stays or goes. One of them is given."""

    keep_ratio: float | None = field(default=None, kw_only=True)
    num_keep: int | None = field(default=None, kw_only=True)
    merge_rest: bool = field(default=False, kw_only=True)
    positions: str = field(default="original", kw_only=True)
    per_prompt: bool = field(default=False, kw_only=True)
    reread: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in self.amounts if getattr(self, name) is not None]
        if len(given) != 1:
            values = " and ".join(f"{name}={getattr(self, name)!r}" for name in self.amounts)
            raise ValueError(f"reduction.{values}: give one of {len(self.amounts)}")
        in_layers = self.ratios[0]  # the amount at the other sites, if the method has its own there
        if self.site != "inputs" and in_layers != "keep_ratio" and given[0] != in_layers:
            raise ValueError(
                f"reduction.{given[0]}={getattr(self, given[0])!r}: method {self.method!r} takes it at site 'inputs' "
                f"only: give {in_layers}"
            )
        if self.num_keep is not None and (
            isinstance(self.num_keep, bool) or not isinstance(self.num_keep, int) or self.num_keep < 1
        ):
            raise ValueError(f"reduction.num_keep={self.num_keep!r}: must be an integer of at least 1")
        for name in ("merge_rest", "per_prompt", "reread"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"reduction.{name}={getattr(self, name)!r}: must be true or false")
        if self.positions not in POSITIONS:
            raise ValueError(f"reduction.positions={self.positions!r}: choose one of {', '.join(POSITIONS)}")

    def _validate_ratio(self, name: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if name not in KEPT:
            super()._validate_ratio(name)
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise ValueError(f"reduction.{name}={value!r}: the part to keep must be a number in (0, 1]")
        object.__setattr__(self, name, float(value))

    @property
    def decoder_fields(self) -> list[str]:
        """Names of the fields that are not at their default and that only decoders understand."""
        return [name for name in ("positions", "per_prompt", "reread") if name in self.to_dict()]

    def to_dict(self) -> dict[str, Any]:
        # a field that is None by default, and one of this class, are left out at their default
        own = {item.name for item in fields(KeepingConfig)} - {"layers", "site"}
        unsaid = {item.name for item in fields(self) if item.name in own and getattr(self, item.name) == item.default}
        unsaid |= {item.name for item in fields(self) if item.default is None and getattr(self, item.name) is None}
        return {name: value for name, value in super().to_dict().items() if name not in unsaid}

    @classmethod
    def usual(cls, site: str, layout: Layout) -> dict[str, Any]:
        return {"keep_ratio": 0.5} if site == "inputs" else super().usual(site, layout)

    def scaled(self, factors: float | Mapping[str, float], caps: Mapping[str, float] | None = None) -> "KeepingConfig":
        """Return the same part with another amount. Of a ratio in [`KEPT`], the part that is *not* kept is multiplied.

        Raises:
            ValueError: the part has `num_keep` and the factor is not 1.
        """
        if self.num_keep is not None and not isinstance(factors, Mapping) and factors != 1:
            raise ValueError(f"reduction.num_keep={self.num_keep}: a number cannot be scaled, give keep_ratio")
        return cast("KeepingConfig", super().scaled(factors, caps))

    def removed(self, name: str) -> list[float]:
        return [1 - item for item in super().removed(name)] if name in KEPT else super().removed(name)

    def highest(self, name: str) -> float:
        """Return the highest value that scaling gives a ratio; of one in [`KEPT`], the highest part that goes."""
        return HIGHEST_DROP if name in KEPT else super().highest(name)

    def _times(self, name: str, value: float, factor: float, cap: float) -> float:
        if name in KEPT:
            return round(1 - super()._times(name, 1 - value, factor, cap), 4)
        return super()._times(name, value, factor, cap)

    def num_kept_patches(self, num_patches: int) -> int | None:
        """Return how many of `num_patches` patches stay, by `keep_ratio` or `num_keep`; None if neither is given."""
        num_patches = index(num_patches)  # a constant in compiled code
        if self.num_keep is not None:
            return min(self.num_keep, num_patches)
        if self.keep_ratio is None:
            return None
        return max(round(self.keep_ratio * num_patches), min(1, num_patches))


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
        num_patches = self.config.num_kept_patches(num_image - NUM_PREFIX_TOKENS)
        assert num_patches is not None, "the config has one of the two"
        return NUM_PREFIX_TOKENS + num_patches

    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        return num_text, self.num_keep(layer, num_image)

    def numbers(self, pair: TokenPair) -> Tensor | None:
        """Return how many patches each example keeps, long (B,). None, the usual value: as many as the schedule says.

        With numbers, [`choose`] must begin with the patches that it would choose if fewer were kept.
        """
        return None

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        num_keep = self.num_keep(layer, pair.image.mask.shape[1])
        numbers, fewest = self.numbers(pair), num_keep
        if numbers is not None:
            known = numbers.tolist()  # the only wait for values
            fewest, num_keep = NUM_PREFIX_TOKENS + min(known), NUM_PREFIX_TOKENS + max(known)
        features = evidence.image_keys[:, NUM_PREFIX_TOKENS:]
        chosen, saliency = self.choose(pair, features, num_keep - NUM_PREFIX_TOKENS)
        if saliency is not None:
            saliency = with_prefix(saliency)
        keep, image = with_prefix_places(chosen), pair.image
        if numbers is not None and fewest < num_keep:
            keep, image = own_first(chosen, numbers, image)
        image = image.move(places_after(keep, evidence.image_keys, pair, self.config.merge_rest), num_keep)
        trace = LayerTrace.of(layer, replace(pair, image=image), saliency, keep, site=self.config.site)
        if numbers is not None:
            trace = replace(trace, image_lengths=NUM_PREFIX_TOKENS + numbers)
        return replace(pair, image=image), trace


def places_after(keep: Tensor, features: Tensor, pair: TokenPair, merge_rest: bool) -> Tensor:
    """Return where each image token goes, long (B, Lv), -1 for a token that is dropped.

    Args:
        keep: long (B, num_keep), the tokens that stay, in their new order.
        features: float (B, Lv, d), what the tokens are compared by.
        pair: the tokens that come in.
        merge_rest: whether a dropped patch goes to the kept one that is most like it.
    """
    places = ops.keep_positions(keep, pair.image.mask.shape[1])
    if not merge_rest:
        return places
    features = F.normalize(features.float(), dim=-1)
    kept = features.gather(1, keep.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
    patches = kept[:, NUM_PREFIX_TOKENS:]  # nothing merges into the [CLS]
    alike = ops.exact_product(features, patches.transpose(1, 2))
    alike = alike.masked_fill(~pair.image.mask.gather(1, keep)[:, None, NUM_PREFIX_TOKENS:], -torch.inf)
    nearest = alike.argmax(dim=-1) + NUM_PREFIX_TOKENS
    return torch.where((places < 0) & pair.image.mask, nearest, places)


def own_first(chosen: Tensor, numbers: Tensor, image: Tokens) -> tuple[Tensor, Tokens]:
    """Return the image tokens that stay if each example keeps its own number: its own ones, then padding.

    Args:
        chosen: long (B, n), the chosen patches in the order of the choice.
        numbers: long (B,), how many of them each example keeps, from 1 to n.
        image: the tokens that come in.

    Returns:
        The tokens that stay, long (B, 1 + n), the own ones of an example ascending; and the tokens that come in, in
        which those that only fill up the others count as padding.
    """
    batch, length = image.mask.shape
    surplus = torch.arange(chosen.shape[1], device=chosen.device) >= numbers.unsqueeze(1)
    ordered, order = torch.where(surplus, chosen + length, chosen).sort(dim=1)
    surplus = surplus.gather(1, order)
    patches = torch.where(surplus, ordered - length, ordered) + NUM_PREFIX_TOKENS
    keep = torch.cat([patches.new_zeros(batch, NUM_PREFIX_TOKENS), patches], dim=1)
    alive = image.mask.scatter(1, patches, image.mask.gather(1, patches) & ~surplus)
    source = ops.follow(image.source, torch.where(alive, torch.arange(length, device=alive.device), -1))
    weight = None if image.weight is None else image.weight * alive
    return keep, replace(image, mask=alive, source=source, weight=weight, padded=True)


def with_prefix(saliency: Tensor) -> Tensor:
    """Return the saliency of all image tokens, float (B, 1 + P), from that of the patches. The [CLS] gets the mean."""
    return torch.cat([saliency.mean(dim=1, keepdim=True), saliency], dim=1)


def with_prefix_places(chosen: Tensor) -> Tensor:
    """Return the image tokens that stay, long (B, 1 + n), ascending, from the chosen patches, long (B, n)."""
    ordered = chosen.sort(dim=1).values + NUM_PREFIX_TOKENS
    return torch.cat([ordered.new_zeros(ordered.shape[0], NUM_PREFIX_TOKENS), ordered], dim=1)
