"""TiP, Text-informed Image Pruning (the draft before PuMer, see https://aclanthology.org/2023.acl-long.721).

Learned pruners choose the image tokens. They are trained by the task, by distillation and by the losses in
`tip_losses.py` (Eq. 3).
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .. import ops
from ..tokens import Evidence, TokenPair
from .base import HEADS, HasInit, Layout, ReductionConfig, chosen_heads
from .pruning import KeepLogits, LearnedPruningReducer, PruningConfig, learnable
from .tip_losses import continuity_loss, contrastive_loss, sparsity_loss

PRUNERS = ("mlp", "linear", *HEADS)
PROJECTION_SIZE = 192
START_TEMPERATURE = 0.07
LEAST_NORM = 1e-2
"""The least norm of a projection that has a direction."""


@dataclass(frozen=True)
class TipReductionConfig(PruningConfig):
    """Schedule of TiP. Its paper prunes 0.5 at three layers of each backbone (Section 4.3).

    Args:
        pruner: what decides (Table 3). `"mlp"` and `"linear"` read the states of an image token. `"mean_head"` and
            `"first_head"` are a linear layer on the attention from the text to the token: the mean of all heads, or
            the first head alone.
        sparsity_weight: weight of the sparsity loss (Eq. 6), at least 0.
        contrastive_weight: weight of the text-informed contrastive loss (Eq. 2), at least 0; 0 leaves its projections
            out. It must be 0 for retrieval with several candidates, where most texts of a batch do not match.
        continuity_weight: weight of the continuity loss (Eq. 7), lambda in Eq. 3, at least 0. It must be 0 in a
            decoder, whose images have no common grid. The same holds for `contrastive_weight`.
    """

    method: ClassVar[str] = "tip"

    pruner: str = "mlp"
    sparsity_weight: float = 1.0
    contrastive_weight: float = 1.0
    continuity_weight: float = 1.0

    @classmethod
    def usual(cls, site: str, layout: Layout) -> dict[str, Any]:
        weights = dict.fromkeys(("contrastive_weight", "continuity_weight"), 0.0) if layout.in_decoder else {}
        return {**super().usual(site, layout), **weights}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pruner not in PRUNERS:
            raise ValueError(f"reduction.pruner={self.pruner!r}: choose one of {', '.join(PRUNERS)}")
        for name in ("sparsity_weight", "contrastive_weight", "continuity_weight"):
            self._validate_weight(name)

    def for_reducer_stage(self) -> "TipReductionConfig":
        return replace(self, continuity_weight=0.0)  # TiP, Appendix A.1

    def check_decoder(self) -> None:
        if self.continuity_weight > 0:
            raise ValueError(
                f"reduction.continuity_weight={self.continuity_weight!r}: the images of a decoder have no common "
                "grid, so no token has neighbours: set it to 0"
            )
        if self.contrastive_weight > 0:
            raise ValueError(
                f"reduction.contrastive_weight={self.contrastive_weight!r}: prompts of a decoder are reduced in "
                "groups of equally many image tokens, so a batch has no common contrast: set it to 0"
            )

    def check_training(self, *, image_saliency: bool, texts_match: bool, all_patches: bool) -> None:
        if self.contrastive_weight > 0 and not texts_match:
            raise ValueError(
                "reduction.contrastive_weight: in retrieval most texts do not match the image, so set it to 0"
            )
        if self.continuity_weight > 0 and not all_patches:
            raise ValueError("reduction.continuity_weight: set it to 0, as config.max_image_length leaves patches out")


def new_pruner(kind: str, width: int, prune_ratio: float) -> nn.Module:
    """Make a token pruner (Appendix A.1).

    It gives logits (..., 2) to keep and to prune. It takes states (..., D), or the attention (..., 1).
    """
    if kind != "mlp":
        return KeepLogits(width if kind == "linear" else 1, prune_ratio)
    half, quarter = max(width // 2, 1), max(width // 4, 1)
    return nn.Sequential(
        nn.LayerNorm(width),
        *(nn.Linear(width, width), nn.GELU()),
        *(nn.Linear(width, half), nn.GELU()),
        *(nn.Linear(half, quarter), nn.GELU()),
        KeepLogits(quarter, prune_ratio),
    )


class Contrast(nn.Module, HasInit):
    """Projections of text and image to a common space, and the temperature of their similarity (Section 3.2)."""

    def __init__(self, width: int):
        super().__init__()
        self.text = nn.Linear(width, PROJECTION_SIZE)
        self.image = nn.Linear(width, PROJECTION_SIZE)
        self.log_temperature = nn.Parameter(torch.empty(1))  # FSDP takes no scalar
        self.reset()

    def reset(self) -> None:
        init.constant_(self.log_temperature, math.log(START_TEMPERATURE))

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        """Return the contrastive loss of the mean states of text and image, each float (B, D).

        Deviation: the projections are normalised, as is usual for such a loss. Eq. 2 has their plain product.
        """
        text, image = unit(self.text(text)), unit(self.image(image))
        return contrastive_loss(text, image, self.log_temperature.float().exp())


def unit(states: Tensor) -> Tensor:
    """Return states (B, d) with norm 1, float32.

    A state of almost no norm becomes 0 without a gradient. An image of which no token is drawn has such a state.
    """
    states = states.float()
    norm = states.norm(dim=-1, keepdim=True)
    return torch.where(norm > LEAST_NORM, states / norm.clamp(min=LEAST_NORM), 0.0)


class TipReducer(LearnedPruningReducer):
    """Keeps the image tokens that a pruner per layer finds most salient (TiP, Section 3.1)."""

    config_class = TipReductionConfig
    summary = "prune the image tokens that learned pruners find not to matter for the text"
    paper = "TiP, the draft before [PuMer](https://aclanthology.org/2023.acl-long.721)"
    config: TipReductionConfig

    def __init__(self, config: TipReductionConfig, width: int):
        super().__init__(config, width)
        names = [str(layer) for layer in config.layers] if config.contrastive_weight > 0 else []
        self.contrasts = nn.ModuleDict({name: Contrast(width) for name in names})

    def new_pruner(self, width: int, prune_ratio: float) -> nn.Module:
        return new_pruner(self.config.pruner, width, prune_ratio)

    @property
    def uses_attention(self) -> bool:  # type: ignore[override]
        return self.config.pruner in HEADS

    def accepts(self, config: ReductionConfig) -> bool:
        return (
            isinstance(config, TipReductionConfig)
            and super().accepts(config)
            and config.pruner == self.config.pruner
            and (config.contrastive_weight > 0) == bool(self.contrasts)
        )

    def log_probabilities(self, layer: int, pair: TokenPair, evidence: Evidence) -> Tensor:
        features = pair.image.states
        if self.uses_attention:
            assert evidence.text_to_image is not None, "`uses_attention` asks for it"
            heads = chosen_heads(evidence.text_to_image, self.config.pruner)
            # The attention is multiplied by the number of remaining tokens, so that its mean does not depend on it.
            num_left = pair.image.mask.sum(dim=1, keepdim=True)
            attention = ops.saliency_from_text(heads, pair.text.mask) * num_left
            features = attention.unsqueeze(-1).to(pair.image.states.dtype)
        return self.pruners[str(layer)](features).float().log_softmax(dim=-1)

    def losses(self, layer: int, pair: TokenPair, log_probabilities: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        config, mask = self.config, learnable(pair.image.mask)
        probabilities = log_probabilities[..., 0].exp()
        kept = 1 - config.ratio("prune_ratio", layer)
        losses = {"sparsity_loss": config.sparsity_weight * sparsity_loss(probabilities, mask, kept)}
        if config.contrastive_weight > 0:
            text = weighted_mean(pair.text.states, pair.text.attention_weight)
            image = weighted_mean(pair.image.states, drawn)
            losses["contrastive_loss"] = config.contrastive_weight * self.contrasts[str(layer)](text, image)
        if config.continuity_weight > 0:
            if pair.image.grid is None:
                raise ValueError(
                    "reduction.continuity_weight: config.max_image_length leaves patches out, so none has neighbours: "
                    "set continuity_weight=0 or max_image_length=-1"
                )
            loss = continuity_loss(probabilities[:, 1:], mask[:, 1:], pair.image.grid)
            losses["continuity_loss"] = config.continuity_weight * loss
        return losses


def weighted_mean(states: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of the states (B, L, D) with weights (B, L): float (B, D). It is 0 if all weights are."""
    total = weight.sum(dim=1, keepdim=True)
    weight = (weight / total.masked_fill(total == 0, 1.0)).to(states.dtype)
    return (weight.unsqueeze(1) @ states).squeeze(1)
