"""The common part of the methods that prune image tokens by a saliency and leave the text as it is."""

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .. import ops
from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair, Tokens
from .base import HasInit, Ratios, ReductionConfig, TokenReducer, gradients_error, num_kept
from .keeping import KeepingConfig, places_after


@dataclass(frozen=True)
class PruningConfig(ReductionConfig):
    """Schedule of a method that prunes image tokens.

    Args:
        layers: indices of the layers that reduce, ascending.
        prune_ratio: part of the incoming image tokens that a layer prunes, in [0, 1): one number for all layers, or
            one per entry of `layers`.
    """

    ratios: ClassVar[tuple[str, ...]] = ("prune_ratio",)

    prune_ratio: Ratios


@dataclass(frozen=True)
class ShareConfig(KeepingConfig):
    """Schedule of a method that prunes image tokens in layers or before the first one. Give one of its amounts.

    Args:
        layers: indices of the layers that reduce, ascending.
        prune_ratio: part of the incoming image tokens that a layer prunes, in [0, 1): one number for all layers, or
            one per entry of `layers`. At site `"inputs"`, `keep_ratio` or `num_keep` may be given in its place.
    """

    sites: ClassVar[tuple[str, ...]] = ("layers", "inputs")
    ratios: ClassVar[tuple[str, ...]] = ("prune_ratio", "keep_ratio")
    amounts: ClassVar[tuple[str, ...]] = ("prune_ratio", "keep_ratio", "num_keep")

    prune_ratio: Ratios | None = None


class PruningReducer(TokenReducer):
    """Keeps the image tokens of highest saliency."""

    config: PruningConfig | ShareConfig

    @abstractmethod
    def saliency(self, layer: int, pair: TokenPair, evidence: Evidence) -> Tensor:
        """Return the saliency of each image token, float (B, Lv), of any scale. The highest ones are kept."""

    def num_keep(self, layer: int, num_image: int) -> int:
        """Return how many of `num_image` image tokens `layer` keeps, token 0 included."""
        if isinstance(self.config, ShareConfig):
            num_patches = self.config.num_kept_patches(num_image - NUM_PREFIX_TOKENS)
            if num_patches is not None:
                return NUM_PREFIX_TOKENS + num_patches
        return self.num_empty + num_kept(self.config.ratio("prune_ratio", layer), num_image - self.num_empty)

    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        return num_text, self.num_keep(layer, num_image)

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        num_image = pair.image.mask.shape[1]
        num_keep = self.num_keep(layer, num_image)
        saliency = self.saliency(layer, pair, evidence)
        keep = ops.keep_salient(saliency, pair.image.mask, num_keep, NUM_PREFIX_TOKENS)
        merge_rest = isinstance(self.config, ShareConfig) and self.config.merge_rest
        places = places_after(keep, evidence.image_keys, pair, merge_rest)
        pair = replace(pair, image=pair.image.move(places, num_keep))
        return pair, LayerTrace.of(layer, pair, saliency, keep, site=self.config.site)


class KeepLogits(nn.Linear, HasInit):
    """The last layer of a pruner. It gives logits (..., 2) to keep and to prune.

    Its bias starts so that the pruner first keeps as many tokens as the schedule does, and not half of them.

    Args:
        width: the width of its input.
        prune_ratio: the prune ratio of the layer, in [0, 1).
    """

    def __init__(self, width: int, prune_ratio: float):
        super().__init__(width, 2)
        self.odds = (1 - prune_ratio) / max(prune_ratio, 1e-3)
        self.reset()

    def reset(self) -> None:
        init.copy_(self.bias, torch.tensor([math.log(self.odds), 0.0]))


class LearnedPruningReducer(PruningReducer):
    """Prunes with modules that learn. Each layer has one, which gives the probability to keep each image token.

    In eval mode, and if the modules are frozen, the most probable tokens stay. In training all tokens stay, but a
    token that is not drawn gets weight 0 in the attention of all later layers. The draw is a straight-through
    Gumbel-softmax. Gradients pass through the weights, so the pruners learn from the loss of the task.
    """

    learns = True
    config: PruningConfig

    def __init__(self, config: PruningConfig, width: int):
        super().__init__(config, width)
        ratios = {str(layer): config.ratio("prune_ratio", layer) for layer in config.layers}
        self.pruners = nn.ModuleDict({layer: self.new_pruner(width, ratio) for layer, ratio in ratios.items()})

    @abstractmethod
    def new_pruner(self, width: int, prune_ratio: float) -> nn.Module:
        """Make the pruner of a layer. It gives logits (B, Lv, 2) to keep and to prune, and ends in [`KeepLogits`]."""

    def accepts(self, config: ReductionConfig) -> bool:
        return super().accepts(config) and config.layers == self.config.layers

    @abstractmethod
    def log_probabilities(self, layer: int, pair: TokenPair, evidence: Evidence) -> Tensor:
        """Return the log of the probabilities to keep and to prune each image token, float32 (B, Lv, 2)."""

    @abstractmethod
    def losses(self, layer: int, pair: TokenPair, log_probabilities: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        """Return the weighted auxiliary losses, scalars by name.

        Args:
            layer: index of the layer.
            pair: the tokens that came in.
            log_probabilities: from the method of this name.
            drawn: float (B, Lv), 1 for image tokens that stay and 0 for others, with a gradient.
        """

    def saliency(self, layer: int, pair: TokenPair, evidence: Evidence) -> Tensor:
        return self.log_probabilities(layer, pair, evidence)[..., 0].exp()

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        if not self.training or not any(weight.requires_grad for weight in self.pruners.parameters()):
            return super().forward(layer, pair, evidence)
        if not torch.is_grad_enabled():
            raise gradients_error(self.config)
        log_probabilities = self.log_probabilities(layer, pair, evidence)
        drawn = draw(log_probabilities, pair.image)
        losses = self.losses(layer, pair, log_probabilities, drawn)
        pair = replace(pair, image=masked(pair.image, drawn))
        trace = LayerTrace.of(layer, pair, log_probabilities[..., 0].detach().exp())
        return pair, replace(trace, losses=losses)


def draw(log_probabilities: Tensor, image: Tokens) -> Tensor:
    """Draw which image tokens stay, by a straight-through Gumbel-softmax. The [CLS] stays.

    Args:
        log_probabilities: float32 (B, Lv, 2), the log of the probabilities to keep and to prune each token.
        image: the tokens.

    Returns:
        float (B, Lv): the weight of each token that stays, and 0 for the others, with a gradient.
    """
    drawn = F.gumbel_softmax(log_probabilities, hard=True)[..., 0]
    is_prefix = torch.arange(drawn.shape[1], device=drawn.device) < NUM_PREFIX_TOKENS
    return image.attention_weight * torch.where(is_prefix, 1.0, drawn)


def masked(image: Tokens, weight: Tensor) -> Tokens:
    """Return image tokens of which those of weight 0 are masked. The weight is that of [`draw`]."""
    mask = weight > 0
    alive = torch.where(mask, torch.arange(mask.shape[1], device=mask.device), -1)
    return replace(image, mask=mask, source=ops.follow(image.source, alive), weight=weight, padded=True)


def learnable(mask: Tensor) -> Tensor:
    """Return the image tokens that a layer decides about: the `mask`, bool (B, Lv), without the [CLS]."""
    is_prefix = torch.arange(mask.shape[1], device=mask.device) < NUM_PREFIX_TOKENS
    return mask & ~is_prefix


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `values` (B, L) where `mask` (B, L) is True, in the whole batch; 0 if it is True nowhere."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
