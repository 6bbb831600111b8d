"""Pruning via grounding, the baseline of TiP (Section 4.4, Appendix A.4).

Another model or a person says which parts of the image the text is about. The rest is pruned. The results show what
good pruning could reach.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..tokens import Evidence, TokenPair
from .pruning import PruningReducer, ShareConfig


@dataclass(frozen=True)
class GroundedReductionConfig(ShareConfig):
    """Schedule of pruning via grounding."""

    method: ClassVar[str] = "grounded"

    def check_training(self, *, image_saliency: bool, texts_match: bool, all_patches: bool) -> None:
        if not image_saliency:
            raise ValueError("reduction.method='grounded' needs data.image_saliency, which VQA on digit scenes has")


class GroundedReducer(PruningReducer):
    """Keeps the image tokens with the highest saliency in the model's input `image_saliency`."""

    config_class = GroundedReductionConfig
    summary = "prune the image tokens that a map from outside the model leaves out"
    paper = "a baseline of TiP, the draft before [PuMer](https://aclanthology.org/2023.acl-long.721)"
    uses_prior = True

    def saliency(self, layer: int, pair: TokenPair, evidence: Evidence) -> Tensor:
        if pair.image.prior is None:
            raise ValueError(
                "reduction.method='grounded' prunes by a map from outside: give image_saliency, float (batch, "
                "rows, columns), such as pumer_hf.grounding makes; in a recipe set data.image_saliency"
            )
        return pair.image.prior
