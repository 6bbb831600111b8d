"""`semantics="release"`: PuMer as its authors' released code computes it, for checkpoints trained with that code."""

from dataclasses import replace

import torch

from .. import ops
from ..tokens import Evidence, LayerTrace, TokenPair, Tokens
from .pumer import PuMerReducer


class ReleaseReducer(PuMerReducer):
    """Pruning and merging as in the released ViLT. All tokens have a `weight`, in [0, 1].

    It is Algorithm 1, but all tokens count as real. So padded text counts in the saliency, and padding is matched and
    merged like any other token. There are more differences:

    * the image [CLS] competes with the patches: index 0 is the most salient image token;
    * the weight of a merged text token is the mean weight of its group, a fraction; image tokens that leave have
      weight 1;
    * without pruning there is no merging.
    """

    num_prefix_tokens = 0

    def counts(self, layer: int, num_text: int, num_image: int) -> tuple[int, int, int]:
        num_keep, image_merges, text_merges = super().counts(layer, num_text, num_image)
        return (num_keep, image_merges, text_merges) if num_keep < num_image else (num_image, 0, 0)

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        text_weight = pair.text.attention_weight
        unmasked = TokenPair(*(all_real(tokens) for tokens in (pair.text, pair.image)))
        reduced, trace = super().forward(layer, unmasked, evidence)
        assert trace.saliency is not None and trace.text_matching is not None
        num_text, num_image = text_weight.shape[1], pair.image.mask.shape[1]
        positions = trace.text_matching.positions(num_text)
        mean_weights = ops.group_weights(positions, unmasked.text.attention_weight, trace.num_text)
        weight = ops.group_sums(mean_weights * text_weight, positions, trace.num_text)
        text = replace(reduced.text, mask=weight > 0, weight=weight)
        image = all_real(reduced.image)
        image = replace(image, weight=image.attention_weight)
        # The sum over all text tokens is divided by the number of real ones.
        trace = replace(trace, saliency=trace.saliency * num_text / text_weight.sum(dim=1, keepdim=True))
        if trace.num_image == num_image:  # unchanged, and not even sorted by saliency
            image = pair.image
            trace = replace(trace, keep=None, image_matching=None, image_source=image.source)
        return TokenPair(text, image), trace


def all_real(tokens: Tokens) -> Tokens:
    """Return the same tokens, all of them real and of the same weight."""
    return replace(tokens, mask=torch.ones_like(tokens.mask), weight=None)


class MeterReleaseReducer(ReleaseReducer):
    """Pruning and merging as in the released METER. It differs from [`ReleaseReducer`]:

    * in a layer that merges no image token, all image tokens stay: the pruning has no effect;
    * a prune ratio above 0 allows merging, even if it is so small that nothing is pruned.
    """

    def counts(self, layer: int, num_text: int, num_image: int) -> tuple[int, int, int]:
        num_keep, image_merges, text_merges = PuMerReducer.counts(self, layer, num_text, num_image)
        if self.config.ratio("prune_ratio", layer) == 0:
            return num_image, 0, 0
        return (num_keep, image_merges, text_merges) if image_merges else (num_image, 0, text_merges)
