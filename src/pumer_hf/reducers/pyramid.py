"""PyramidDrop (https://arxiv.org/abs/2410.17247): prune by FastV's saliency in several layers, each time a part."""

from dataclasses import dataclass
from typing import ClassVar

from .base import Ratios
from .fastv import FastVReducer
from .pruning import PruningConfig


@dataclass(frozen=True)
class PyramidReductionConfig(PruningConfig):
    """Schedule of PyramidDrop.

    Its paper prunes 0.5 after 8, 16 and 24 of the 32 layers of LLaVA, which is `layers: [7, 15, 23]` here.

    Args:
        layers: indices of the layers that reduce, ascending.
        prune_ratio: part of the image tokens left that a layer prunes, in [0, 1): one number for all layers, or one
            per entry of `layers`.
    """

    method: ClassVar[str] = "pyramid"

    prune_ratio: Ratios = 0.5


class PyramidReducer(FastVReducer):
    """Keeps, at each stage, the image tokens to which the last real text token attends most (Section 3.2)."""

    config_class = PyramidReductionConfig
    summary = "prune, stage by stage, the image tokens to which the last text token hardly attends"
    paper = "[PyramidDrop](https://arxiv.org/abs/2410.17247)"
