"""PuMer with one of its parts replaced, for the ablations. It is no method of the package."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pumer_hf import ops
from pumer_hf.reducers import METHODS
from pumer_hf.reducers.base import chosen_heads
from pumer_hf.reducers.pumer import PuMerReducer, PuMerReductionConfig
from pumer_hf.reducers.random import scramble
from pumer_hf.tokens import Evidence, Matching, TokenPair

PUMER_PARTS = "pumer_parts"
FUNCTION_WORDS = frozenset(["a", "an", "are", "how", "in", "is", "many", "of", "the", "there", "to", "what", "?"])
"""The words of the questions about digit scenes that say nothing about the scene. The others are content words."""


@dataclass(frozen=True)
class PuMerPartsConfig(PuMerReductionConfig):
    """Schedule of PuMer with another saliency, or without merging.

    Args:
        saliency: `"mean_head"` and `"first_head"` as in PuMer. `"random"`: random numbers, in eval mode the same for
            all examples. `"image"`: one minus the cosine of a token's key and the mean key of its image, so the text
            does not count. `"content_words"`: as `"mean_head"`, but only content words count.
        drops: whether the tokens that PuMer would merge into others are dropped.
    """

    method: ClassVar[str] = PUMER_PARTS
    saliencies: ClassVar[tuple[str, ...]] = (*PuMerReductionConfig.saliencies, "random", "image", "content_words")

    drops: bool = field(default=False, kw_only=True)


class PuMerPartsReducer(PuMerReducer):
    """PuMer with another saliency, or without merging."""

    config_class = PuMerPartsConfig
    summary = "PuMer with one of its parts replaced"
    config: PuMerPartsConfig
    content: Tensor | None = None
    """Which tokens of the texts of this batch are content words, bool (B, L0)."""

    def saliency(self, layer: int, pair: TokenPair, evidence: Evidence) -> Tensor:
        word = self.config.saliency_at(layer)
        real = pair.image.mask
        if word == "random":
            if self.training:
                return torch.rand(real.shape, device=real.device)
            return scramble(torch.arange(real.shape[1], device=real.device), layer, 0).expand(real.shape)
        if word == "image":
            keys = normalize(evidence.image_keys.float(), dim=-1)
            middle = normalize((keys * real.unsqueeze(-1)).sum(dim=1, keepdim=True), dim=-1)
            return 1 - (keys * middle).sum(dim=-1)
        if word == "content_words":
            assert self.content is not None and evidence.text_to_image is not None, "`watch_words` sets it"
            return ops.saliency_from_text(chosen_heads(evidence.text_to_image, "mean_head"), self.asking(pair))
        return super().saliency(layer, pair, evidence)

    def asking(self, pair: TokenPair) -> Tensor:
        """Return which text tokens hold a content word, bool (B, Lt). In a text without any, all real tokens do."""
        assert self.content is not None, "`watch_words` sets it"
        held = torch.zeros_like(pair.text.mask, dtype=torch.long)
        held.scatter_add_(1, pair.text.source.clamp(min=0), (self.content & (pair.text.source >= 0)).long())
        found = held > 0
        return torch.where(found.any(dim=1, keepdim=True), found, pair.text.mask)

    def places(self, matching: Matching, length: int) -> Tensor:
        places = super().places(matching, length)
        return places.scatter(1, 2 * matching.src, -1) if self.config.drops else places


def register() -> None:
    """Let schedules name this method. It is not among those of the package otherwise."""
    METHODS.setdefault(PUMER_PARTS, PuMerPartsReducer)


def content_ids(tokenizer: Any) -> Tensor:
    """Return for each token of a vocabulary whether it is a content word, bool (number of tokens,)."""
    found = torch.zeros(len(tokenizer), dtype=torch.bool)
    for word, number in tokenizer.get_vocab().items():
        found[number] = word.removeprefix("Ġ") not in FUNCTION_WORDS
    found[tokenizer.all_special_ids] = False
    return found


def watch_words(model: nn.Module, tokenizer: Any) -> None:
    """Let the reducers of a model see which tokens of its texts are content words."""
    table = content_ids(tokenizer)

    def look(module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids")
        for reducer in model.modules():
            if isinstance(reducer, PuMerPartsReducer) and ids is not None:
                reducer.content = table.to(ids.device)[ids]

    model.register_forward_pre_hook(look, with_kwargs=True)
