"""PuMer (https://aclanthology.org/2023.acl-long.721), which prunes and then merges.

It prunes the image tokens that the text does not ask about (Section 4.1). Then it merges similar tokens within each
modality (Section 4.2). It has no parameters.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .. import ops
from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, Matching, TokenPair
from .base import HEADS, Layout, Ratios, ReductionConfig, TokenReducer, as_list, chosen_heads, num_kept, num_tokens_of

LOOKAHEAD = "lookahead"
SALIENCIES = (*HEADS, LOOKAHEAD)
PAPER_RATIOS = {"prune_ratio": 0.1, "image_merge_ratio": 0.3, "text_merge_ratio": 0.2}
"""The ratios of the paper for ViLT on VQAv2 (Table 6)."""


@dataclass(frozen=True)
class PuMerReductionConfig(ReductionConfig):
    """Schedule of PuMer (Algorithm 1). [`preset`] has the schedule of the paper for each backbone and task (Table 6).

    Each ratio is in [0, 1): one number for all layers, or one per entry of `layers`. 0 switches the step off.

    Args:
        layers: indices of the layers that reduce, ascending.
        prune_ratio: part of the image tokens to prune.
        image_merge_ratio: part of the image tokens to merge away, counted before pruning.
        text_merge_ratio: part of the text tokens to merge away. A decoder keeps its whole text.
        saliency: whose attention counts in Eq. 1: one word for all layers, or one per entry of `layers`. `"mean_head"`
            is the mean of all heads, as in the paper. `"first_head"` is the first head alone, as in the released
            command for ViLT on VQAv2. `"lookahead"` is the attention that a scorer has predicted before the first
            layer. For it, the schedule needs a part with the method `lookahead` at site `"inputs"`. It is for the
            first layers, in which the attention to the image does not yet depend on the text.
    """

    method: ClassVar[str] = "pumer"
    ratios: ClassVar[tuple[str, ...]] = ("prune_ratio", "image_merge_ratio", "text_merge_ratio")
    saliencies: ClassVar[tuple[str, ...]] = SALIENCIES
    """The words that `saliency` may be."""

    prune_ratio: Ratios
    image_merge_ratio: Ratios
    text_merge_ratio: Ratios = 0.0
    saliency: str | tuple[str, ...] = "mean_head"

    @classmethod
    def usual(cls, site: str, layout: Layout) -> dict[str, Any]:
        ratios = {"prune_ratio": 0.3, "image_merge_ratio": 0.2} if layout.in_decoder else PAPER_RATIOS
        return {"layers": layout.quarters(site), **ratios}

    def __post_init__(self) -> None:
        super().__post_init__()
        words = as_list(self.saliency)
        if not words or any(word not in self.saliencies for word in words):
            raise ValueError(f"reduction.saliency={self.saliency!r}: choose one of {', '.join(self.saliencies)}")
        if isinstance(self.saliency, (list, tuple)):
            if len(words) != len(self.layers):
                raise ValueError(
                    f"reduction.saliency has {len(words)} values for {len(self.layers)} layers: give one word for all "
                    f"layers, or one per entry of reduction.layers={list(self.layers)}"
                )
            object.__setattr__(self, "saliency", tuple(words))

    @property
    def needs_prediction(self) -> bool:
        return LOOKAHEAD in as_list(self.saliency)

    def check_decoder(self) -> None:
        if any(as_list(self.text_merge_ratio)):
            raise ValueError(
                f"reduction.text_merge_ratio={self.text_merge_ratio!r}: a decoder keeps its whole text: leave it out"
            )

    def saliency_at(self, layer: int) -> str:
        """Return the word in `saliency` that holds for a layer."""
        return self.saliency if isinstance(self.saliency, str) else self.saliency[self.layers.index(layer)]


class PuMerReducer(TokenReducer):
    """Prunes as the text says, then merges within each modality (Algorithm 1)."""

    config_class = PuMerReductionConfig
    summary = "prune the image tokens that the text does not attend to, then merge similar tokens within each modality"
    paper = "[PuMer](https://aclanthology.org/2023.acl-long.721)"
    uses_attention = True
    num_prefix_tokens = NUM_PREFIX_TOKENS
    """Leading image tokens that are never pruned."""
    config: PuMerReductionConfig

    def counts(self, layer: int, num_text: int, num_image: int) -> tuple[int, int, int]:
        """Return how many image tokens `layer` keeps, and how many image and text tokens it merges away.

        Image merges are counted from the length *before* pruning. Only this gives the FLOPs of Table 7 (pinned by
        `test_flops.py`).
        """
        num_real = num_image - self.num_empty
        num_keep = self.num_empty + num_kept(self.config.ratio("prune_ratio", layer), num_real)
        image_merges = num_tokens_of(self.config.ratio("image_merge_ratio", layer), num_real)
        text_merges = num_tokens_of(self.config.ratio("text_merge_ratio", layer), num_text)
        return num_keep, min(image_merges, ops.max_merges(num_keep)), min(text_merges, ops.max_merges(num_text))

    def num_keep(self, layer: int, num_image: int) -> int:
        return self.counts(layer, 1, num_image)[0]

    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        num_keep, image_merges, text_merges = self.counts(layer, num_text, num_image)
        return num_text - text_merges, num_keep - image_merges

    def saliency(self, layer: int, pair: TokenPair, evidence: Evidence) -> Tensor:
        """Return the saliency of each image token, float (B, Lv) (Eq. 1)."""
        word = self.config.saliency_at(layer)
        if word == LOOKAHEAD:
            assert pair.image.prior is not None, "the schedule has a part that predicts it"
            return pair.image.prior
        assert evidence.text_to_image is not None, "`uses_attention` asks for it"
        return ops.saliency_from_text(chosen_heads(evidence.text_to_image, word), pair.text.mask)

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        num_text, num_image = pair.text.mask.shape[1], pair.image.mask.shape[1]
        num_keep, image_merges, text_merges = self.counts(layer, num_text, num_image)

        saliency = evidence.rounded(self.saliency(layer, pair, evidence))
        keep = ops.keep_salient(saliency, pair.image.mask, num_keep, self.num_prefix_tokens)
        kept_mask = pair.image.mask.gather(1, keep)
        kept_keys = evidence.image_keys.gather(1, keep.unsqueeze(-1).expand(-1, -1, evidence.image_keys.shape[-1]))

        image_matching = Matching(*ops.bipartite_soft_matching(kept_keys, kept_mask, image_merges))
        text_matching = Matching(*ops.bipartite_soft_matching(evidence.text_keys, pair.text.mask, text_merges))

        image_positions = ops.follow(ops.keep_positions(keep, num_image), self.places(image_matching, num_keep))
        image = pair.image.move(image_positions, num_keep - image_merges)
        text = pair.text.move(self.places(text_matching, num_text), num_text - text_merges)
        pair = TokenPair(text, image)
        return pair, LayerTrace.of(layer, pair, saliency, keep, image_matching, text_matching)

    def places(self, matching: Matching, length: int) -> Tensor:
        """Return where each of the `length` tokens that were matched goes, long (B, length)."""
        return matching.positions(length)
