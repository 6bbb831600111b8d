"""ToMe (https://arxiv.org/abs/2210.09461): merge similar tokens at every layer, of text and image alike."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor

from .. import ops
from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, Matching, TokenPair, Tokens
from .base import HIGHEST, Layout, Ratios, TokenReducer, num_tokens_of
from .keeping import KeepingConfig

ROUND = 0.1
"""The part of the tokens that a round merges at most, by default. A round of a half would merge what is not alike."""


@dataclass(frozen=True)
class ToMeReductionConfig(KeepingConfig):
    """Schedule of ToMe, whose paper merges in every layer.

    It can also work inside an image tower (`site="tower"`) and before the first layer (`site="inputs"`). There it
    merges image tokens alone.

    Args:
        layers: indices of the layers that reduce, ascending. At site `"tower"` they may be left out for every layer.
        merge_ratio: part of the incoming tokens that a layer merges away, the same for text and image, in [0, 1): one
            number for all layers, or one per entry of `layers`. A layer can merge at most half of the tokens. Before
            the first layer there is no such limit: the tokens are merged in several rounds. There, `keep_ratio` or
            `num_keep` may be given in its place.
        round_ratio: at site `"inputs"`, the part of the tokens that one round merges at most, in (0, 0.5]. A round of
            a half merges every other token, also where no partner is like it. Rounds of a tenth, the default, merge
            what is alike.
    """

    method: ClassVar[str] = "tome"
    sites: ClassVar[tuple[str, ...]] = ("layers", "tower", "inputs")
    ratios: ClassVar[tuple[str, ...]] = ("merge_ratio", "keep_ratio")
    amounts: ClassVar[tuple[str, ...]] = ("merge_ratio", "keep_ratio", "num_keep")

    merge_ratio: Ratios | None = None
    round_ratio: float = field(default=ROUND, kw_only=True)

    @classmethod
    def usual(cls, site: str, layout: Layout) -> dict[str, Any]:
        if site == "inputs":
            return super().usual(site, layout)
        return {"layers": layout.all_layers(site), "merge_ratio": ROUND}

    def highest(self, name: str) -> float:
        return HIGHEST if name == "merge_ratio" and self.site == "inputs" else super().highest(name)

    def __post_init__(self) -> None:
        super().__post_init__()
        value = self.round_ratio
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 0.5:
            raise ValueError(f"reduction.round_ratio={value!r}: must be a number in (0, 0.5]")
        if self.site != "inputs" and value != ROUND:
            raise ValueError(f"reduction.round_ratio={value!r}: only site 'inputs' merges in rounds: leave it out")
        if self.merge_rest:
            raise ValueError("reduction.merge_rest=True: leave it out: method 'tome' merges all that it does not keep")

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        if self.round_ratio == ROUND:
            del values["round_ratio"]
        return values


class ToMeReducer(TokenReducer):
    """Bipartite soft matching with tracked sizes and proportional attention (ToMe, Section 3).

    A merged token is the mean of all tokens that it holds. Its weight in attention is its size, the number of these
    tokens: `exp(score)` is multiplied by the size, which is ToMe's `+ log s`.

    Deviation: a token merges within its own modality, at the same ratio in both. ToMe would match text with image. But
    METER has no joint sequence, and in ViLT the number of remaining text tokens would depend on the values.
    """

    config_class = ToMeReductionConfig
    summary = "merge similar tokens"
    paper = "[ToMe](https://arxiv.org/abs/2210.09461)"
    config: ToMeReductionConfig

    def num_merges(self, layer: int, length: int) -> int:
        """Return how many of `length` tokens `layer` merges away."""
        num_patches = self.config.num_kept_patches(length - NUM_PREFIX_TOKENS)
        if num_patches is not None:
            return max(length - NUM_PREFIX_TOKENS - num_patches, 0)
        most = length - 2 if self.config.site == "inputs" else ops.max_merges(length)
        counted = length - self.num_empty
        return max(min(num_tokens_of(self.config.ratio("merge_ratio", layer), counted), most), 0)

    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        if self.config.site != "inputs" and not self.in_decoder:
            num_text -= self.num_merges(layer, num_text)
        return num_text, num_image - self.num_merges(layer, num_image)

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        if self.config.site == "inputs":
            image = merge_in_rounds(
                pair.image, self.num_merges(layer, pair.image.mask.shape[1]), self.config.round_ratio
            )
            pair = replace(pair, image=image)
            return pair, LayerTrace.of(layer, pair, site="inputs")
        text, text_matching = (pair.text, None)
        if not self.in_decoder:
            text, text_matching = self.merge(layer, pair.text, evidence.text_keys)
        image, image_matching = self.merge(layer, pair.image, evidence.image_keys)
        pair = TokenPair(text, image)
        trace = LayerTrace.of(layer, pair, image_matching=image_matching, text_matching=text_matching)
        return pair, replace(trace, site=self.config.site)

    def merge(self, layer: int, tokens: Tokens, keys: Tensor) -> tuple[Tokens, Matching | None]:
        """Merge the tokens of one modality. Without tokens, as for the text inside an image tower, nothing merges."""
        num_tokens = tokens.mask.shape[1]
        return merge_similar(tokens, keys, self.num_merges(layer, num_tokens)) if num_tokens else (tokens, None)


def merge_similar(tokens: Tokens, keys: Tensor, num_merge: int) -> tuple[Tokens, Matching]:
    """Merge the most similar tokens of one modality.

    A merged token is the mean of all original tokens that it holds, and its weight is their number. Tokens that have
    a weight already keep it, and it adds up. Padding leaves first, and token 0 stays.

    Args:
        tokens: the tokens of the modality.
        keys: float (B, L, d), compared by cosine.
        num_merge: tokens to merge away, from 0 to [`ops.max_merges`].
    """
    length = tokens.mask.shape[1]
    matching = Matching(*ops.bipartite_soft_matching(keys, tokens.mask, num_merge))
    sized = tokens if tokens.weight is not None else replace(tokens, weight=tokens.size.float())
    return sized.move(matching.positions(length), length - num_merge), matching


def merge_in_rounds(tokens: Tokens, num_merge: int, most: float = ROUND) -> Tokens:
    """Merge more tokens than one matching can, in rounds. Each round compares the states of the merged tokens.

    Args:
        tokens: the tokens of the modality.
        num_merge: tokens to merge away.
        most: the part of the tokens that a round merges at most, in (0, 0.5]. A round of a half merges each token of
            the even set, also where no partner is like it.
    """
    while num_merge > 0:
        length = tokens.mask.shape[1]
        merged = min(num_merge, ops.max_merges(length), max(int(most * length), 1))
        tokens, _ = merge_similar(tokens, tokens.states.detach(), merged)
        num_merge -= merged
    return tokens
