"""FastV (https://arxiv.org/abs/2403.06764): prune the image tokens to which the last text token hardly attends.

In a decoder the last text token of the prompt predicts the answer. In an encoder it is the [SEP].
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .. import ops
from ..tokens import Evidence, TokenPair
from .base import Layout, Ratios
from .pruning import PruningConfig, PruningReducer


@dataclass(frozen=True)
class FastVReductionConfig(PruningConfig):
    """Schedule of FastV. Its paper prunes 0.5 after 2 of the 32 layers of LLaVA, which is `layers: [1]` here.

    Args:
        layers: index of the only layer that reduces.
        prune_ratio: part of the incoming image tokens that this layer prunes, in [0, 1).
    """

    method: ClassVar[str] = "fastv"

    prune_ratio: Ratios = 0.5

    @classmethod
    def usual(cls, site: str, layout: Layout) -> dict[str, Any]:
        return {**super().usual(site, layout), "layers": layout.quarters(site)[:1]}

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layers) != 1:
            raise ValueError(
                f"reduction.layers={list(self.layers)}: method 'fastv' prunes in one layer: name one, or take method "
                "'pyramid'"
            )


class FastVReducer(PruningReducer):
    """Keeps the image tokens to which the last real text token attends most, in the mean of all heads.

    Deviation: the text of the paper takes the mean over all tokens that attend to an image token. Its code takes the
    last token alone, as others do who compare with FastV.
    """

    config_class: ClassVar[type[PruningConfig]] = FastVReductionConfig
    summary = "prune the image tokens to which the last text token hardly attends"
    paper = "[FastV](https://arxiv.org/abs/2403.06764)"
    uses_attention = True

    def saliency(self, layer: int, pair: TokenPair, evidence: Evidence) -> Tensor:
        assert evidence.text_to_image is not None, "`uses_attention` asks for it"
        return evidence.rounded(ops.saliency_from_token(evidence.text_to_image, pair.text.last))
