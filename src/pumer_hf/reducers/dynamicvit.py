"""DynamicViT (https://arxiv.org/abs/2106.02034): prune image tokens that a learned predictor finds uninformative.

The predictor sees no text.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..tokens import Evidence, TokenPair
from .pruning import KeepLogits, LearnedPruningReducer, PruningConfig, learnable


@dataclass(frozen=True)
class DynamicViTReductionConfig(PruningConfig):
    """Schedule of DynamicViT. Its paper prunes in 3 stages, 0.3 of the tokens in each.

    Args:
        ratio_weight: weight of the ratio loss, at least 0.
    """

    method: ClassVar[str] = "dynamicvit"

    ratio_weight: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._validate_weight("ratio_weight")


class Predictor(nn.Module):
    """Scores each token from its own features and from the mean features of all tokens (DynamicViT, Eq. 1 to 4)."""

    def __init__(self, width: int, prune_ratio: float):
        super().__init__()
        self.num_local = width - width // 2
        self.local = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        hidden, quarter = max(width // 2, 1), max(width // 4, 1)
        self.decide = nn.Sequential(
            *(nn.Linear(width, hidden), nn.GELU()),
            *(nn.Linear(hidden, quarter), nn.GELU()),
            KeepLogits(quarter, prune_ratio),
        )

    def forward(self, states: Tensor, weight: Tensor) -> Tensor:
        """Return the logits to keep and to prune each token, (B, L, 2).

        Args:
            states: float (B, L, D).
            weight: float (B, L), the weight of each token in the mean.
        """
        features = self.local(states)
        local, whole = features[..., : self.num_local], features[..., self.num_local :]
        weight = weight.unsqueeze(-1).to(whole.dtype)
        total = weight.sum(dim=1, keepdim=True)
        # in a decoder, an earlier layer may have masked all image tokens of an example
        mean = (whole * weight).sum(dim=1, keepdim=True) / total.masked_fill(total == 0, 1.0)
        return self.decide(torch.cat([local, mean.expand_as(whole)], dim=-1))


class DynamicViTReducer(LearnedPruningReducer):
    """Keeps the tokens that a predictor per layer finds most informative (DynamicViT, Section 3.2).

    The predictors are trained by the task, by the distillation of the trainer, and by the ratio loss. DynamicViT's
    second distillation, of the token states, is left out, because auxiliary losses get no teacher.
    """

    config_class = DynamicViTReductionConfig
    summary = "prune the image tokens that learned predictors find uninformative"
    paper = "[DynamicViT](https://arxiv.org/abs/2106.02034)"
    config: DynamicViTReductionConfig

    def new_pruner(self, width: int, prune_ratio: float) -> nn.Module:
        return Predictor(width, prune_ratio)

    def log_probabilities(self, layer: int, pair: TokenPair, evidence: Evidence) -> Tensor:
        logits = self.pruners[str(layer)](pair.image.states, pair.image.attention_weight)
        return logits.float().log_softmax(dim=-1)

    def losses(self, layer: int, pair: TokenPair, log_probabilities: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        kept = 1 - self.config.ratio("prune_ratio", layer)
        loss = ratio_loss(drawn, learnable(pair.image.mask), kept)
        return {"ratio_loss": self.config.ratio_weight * loss}


def ratio_loss(drawn: Tensor, mask: Tensor, kept: float) -> Tensor:
    """Return the ratio loss, a scalar (DynamicViT, Eq. 8).

    It is the squared difference between the part of the tokens that is kept and the wanted part. The part is taken per
    example, and the loss is the mean over the batch.

    Args:
        drawn: float (B, L), 1 for tokens that are kept, 0 for others.
        mask: bool (B, L), True for the tokens that came into the stage. DynamicViT counts all tokens instead, with the
            same wanted lengths.
        kept: the wanted part, in (0, 1].
    """
    part = torch.where(mask, drawn, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return ((part - kept) ** 2).mean()
