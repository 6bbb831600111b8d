"""TiP before the first layer: a scorer that reads image and text decides, and learns with the model.

TiP (the draft before https://aclanthology.org/2023.acl-long.721) prunes in layers, where the states of the image know
the text already. Before the first layer they do not, so its pruner would not know what the text asks about. Here the
scorer of `lookahead` takes its place, which reads the words too. It may begin with the weights of one that was trained
apart. From TiP are the draw in training and the sparsity loss. Two of its losses are left out. The contrastive loss is
there to tell the pruner about the text, which the scorer reads itself. The continuity loss needs a grid.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair
from .base import gradients_error
from .pruning import draw, masked
from .scoring import ScoringConfig, ScoringReducer
from .tip_losses import sparsity_loss

MARGIN = 12.0
"""How far the threshold may be from all scores. At this distance, the probability to keep or to drop is 6e-6."""
HALVINGS = 40
"""How often the range is halved in which the threshold lies. Then it is exact in float32."""


@dataclass(frozen=True)
class TipInputsConfig(ScoringConfig):
    """Schedule of TiP at site `"inputs"`. Give `keep_ratio` or `num_keep`.

    Args:
        form: that of [`ScoringConfig`].
        rank: that of [`ScoringConfig`].
        diversity: that of [`ScoringConfig`]. It is for eval mode. In training each patch is drawn by its score alone.
        p: that of [`ScoringConfig`].
        weights: a folder or a Hub id with a scorer of `lookahead`, to begin from its weights. Without it, the scorer
            that the model has at this place goes on. If there is none, it begins at random.
        sparsity_weight: weight of the sparsity loss (TiP, Eq. 6), at least 0. The draw needs no loss to keep the
            wanted number. So this loss only holds the probabilities together.
    """

    method: ClassVar[str] = "tip"

    sparsity_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._validate_weight("sparsity_weight")
        if self.merge_rest:
            raise ValueError(
                "reduction.merge_rest=True: method 'tip' learns with patches that are masked, which merge into none: "
                "leave it out"
            )


class TipInputsReducer(ScoringReducer):
    """Keeps the patches of highest score. In training all stay, but those that are not drawn are masked.

    A patch is drawn with the probability `sigmoid(score - threshold)`. The threshold of an image is such that the
    probabilities of its patches add up to the number that is kept in eval mode. A patch that is not drawn gets weight
    0 in the attention of all later layers, so its score learns from the loss of the task. A frozen scorer cuts in
    training as in eval mode.
    """

    config_class = TipInputsConfig
    summary = "drop the patches that a scorer of image and text, trained with the model, finds not to matter"
    paper = "TiP, the draft before [PuMer](https://aclanthology.org/2023.acl-long.721)"
    config: TipInputsConfig

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        if not self.scorer_learns:
            return super().forward(layer, pair, evidence)
        if not torch.is_grad_enabled():
            raise gradients_error(self.config)
        mask = pair.image.mask
        num_keep = self.num_keep(layer, mask.shape[1]) - NUM_PREFIX_TOKENS
        patches = mask[:, NUM_PREFIX_TOKENS:]
        num_patches = patches.sum(dim=1, keepdim=True)
        wanted = num_patches.clamp(max=num_keep)
        log_probabilities = keep_probabilities(self.log_attention(pair), patches, wanted)
        probabilities = log_probabilities[..., 0].exp()
        loss = sparsity_loss(probabilities, patches, wanted / num_patches.clamp(min=1))
        drawn = draw(F.pad(log_probabilities, (0, 0, NUM_PREFIX_TOKENS, 0)), pair.image)
        pair = replace(pair, image=masked(pair.image, drawn))
        saliency = F.pad(probabilities.detach(), (NUM_PREFIX_TOKENS, 0), value=1.0)
        trace = LayerTrace.of(layer, pair, saliency, site=self.config.site)
        return pair, replace(trace, losses={"sparsity_loss": self.config.sparsity_weight * loss})


def keep_probabilities(scores: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
    """Return the log of the probabilities to keep and to drop each patch, float32 (B, P, 2).

    Args:
        scores: float (B, P), of any scale, for real patches.
        mask: bool (B, P), True for real patches.
        wanted: number (B, 1): how many real patches of each image should stay on average, at most all of them.
    """
    scores = torch.where(mask, scores, 0.0)
    threshold = threshold_of(scores.detach(), mask, wanted)
    return torch.stack([F.logsigmoid(scores - threshold), F.logsigmoid(threshold - scores)], dim=-1)


def threshold_of(scores: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
    """Return the threshold of each image, float (B, 1), for which the probabilities add up to `wanted`.

    Arguments: see [`keep_probabilities`]. The threshold is at most [`MARGIN`] away from the scores.
    """
    low = scores.amin(dim=1, keepdim=True) - MARGIN
    high = scores.amax(dim=1, keepdim=True) + MARGIN
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        too_many = ((scores - middle).sigmoid() * mask).sum(dim=1, keepdim=True) > wanted
        low, high = torch.where(too_many, middle, low), torch.where(too_many, high, middle)
    return (low + high) / 2
