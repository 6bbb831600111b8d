"""`semantics="release"`: PuMer as its authors' released code computes it, for checkpoints trained with that code."""

from dataclasses import replace

import torch

from .. import ops
from ..tokens import Evidence, LayerTrace, TokenPair
from .pumer import PuMerReducer


class ReleaseReducer(PuMerReducer):
    """Pruning and merging as in the released ViLT. Masks are float (B, L), weights of `exp(score)` in [0, 1].

    It is Algorithm 1 on tokens that are all taken for real, so padded text has a say in the saliency, and padding is
    matched and merged like any token. Further:

    * the image [CLS] competes with the patches: index 0 is the most salient image token;
    * the mask of a merged text token is the mean of its group's, a fraction; image tokens that leave have mask 1;
    * without pruning there is no merging.
    """

    num_prefix_tokens = 0

    def counts(self, layer: int, num_text: int, num_image: int) -> tuple[int, int, int]:
        num_keep, image_merges, text_merges = super().counts(layer, num_text, num_image)
        return (num_keep, image_merges, text_merges) if num_keep < num_image else (num_image, 0, 0)

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        text_mask, image_mask = pair.text.mask, pair.image.mask
        unmasked = TokenPair(
            replace(pair.text, mask=torch.ones_like(text_mask, dtype=torch.bool)),
            replace(pair.image, mask=torch.ones_like(image_mask, dtype=torch.bool)),
        )
        reduced, trace = super().forward(layer, unmasked, evidence)
        assert trace.saliency is not None and trace.text_matching is not None
        num_text, num_image = text_mask.shape[1], image_mask.shape[1]
        positions = trace.text_matching.positions(num_text)
        weights = ops.group_weights(positions, unmasked.text.mask, trace.num_text)
        text = replace(reduced.text, mask=ops.group_sums(weights * text_mask, positions, trace.num_text))
        image = replace(reduced.image, mask=image_mask.new_ones(reduced.image.mask.shape))
        # The sum over all text tokens is divided by the number of real ones.
        trace = replace(trace, saliency=trace.saliency * num_text / text_mask.sum(dim=1, keepdim=True))
        if trace.num_image == num_image:  # untouched: not even ordered by saliency
            image = pair.image
            trace = replace(trace, keep=None, image_matching=None, image_source=image.source)
        return TokenPair(text, image), trace


class MeterReleaseReducer(ReleaseReducer):
    """Pruning and merging as in the released METER: as [`ReleaseReducer`], but

    * where it merges no image token, it forgets which ones it pruned;
    * a prune ratio above 0 lets it merge, even if that ratio is so small that it prunes nothing.
    """

    def counts(self, layer: int, num_text: int, num_image: int) -> tuple[int, int, int]:
        num_keep, image_merges, text_merges = PuMerReducer.counts(self, layer, num_text, num_image)
        if self.config.ratio("prune_ratio", layer) == 0:
            return num_image, 0, 0
        return (num_keep, image_merges, text_merges) if image_merges else (num_image, 0, text_merges)
