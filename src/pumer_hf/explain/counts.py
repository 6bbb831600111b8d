"""How many tokens each layer got, removed and left, in numbers and in words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..tokens import LayerTrace, place_in_words


@dataclass(frozen=True)
class LayerCounts:
    """How many tokens of one example a layer got and removed. Padding counts too."""

    layer: int
    num_text: int
    """Text tokens before the layer."""
    num_image: int
    """Image tokens before the layer, with the [CLS]."""
    pruned: int
    """Image tokens that were pruned."""
    image_merged: int
    """Image tokens that were merged into others."""
    text_merged: int
    """Text tokens that were merged into others."""
    site: str = "layers"
    """Where the layer is, one of [`reducers.base.SITES`]."""
    padding_merged: int = 0
    """How many of the merged text tokens were padding."""

    @property
    def place(self) -> str:
        """The place in words ([`place_in_words`])."""
        return place_in_words(self.site, self.layer)

    @property
    def removed(self) -> int:
        """How many tokens the layer removed."""
        return self.pruned + self.image_merged + self.text_merged

    def sentences(self) -> str:
        """Return the counts in words. Each count stands with the part of the tokens that it is.

        Nothing is said about the text where there is none, as in an image tower.
        """
        image = f"Of {self.num_image} image tokens, {_with_fraction(self.pruned, self.num_image)} are pruned"
        image += f" and {_with_fraction(self.image_merged, self.num_image)} merged into others"
        left = self.num_image - self.pruned - self.image_merged
        sentences = f"{image}; {left} are left."
        if not self.num_text:
            return sentences
        merged = _with_fraction(self.text_merged, self.num_text)
        if self.padding_merged:
            all_of_them = self.padding_merged == self.text_merged
            merged += f", {'all' if all_of_them else self.padding_merged} of them padding,"
        text = f"Of {self.num_text} text tokens, {merged} are merged into others"
        return f"{sentences} {text}; {self.num_text - self.text_merged} are left."


def layer_counts(traces: Sequence[LayerTrace]) -> list[LayerCounts]:
    """Count what each layer did to one image and its text.

    Args:
        traces: the traces in `outputs.reduction` that are about the image, in their order.
    """
    counts: list[LayerCounts] = []
    before: LayerTrace | None = None
    num_text = padding = 0
    for trace in traces:
        in_tower = trace.site == "tower"
        if not in_tower and (before is None or before.site == "tower"):
            num_text, padding = trace.text_source.shape[1], int((trace.text_source[0] < 0).sum())
        num_image = _num_image_before(trace, before)
        pruned = 0 if trace.keep is None else num_image - trace.keep.shape[1] - _merged_rest(trace, before)
        image_merged = num_image - pruned - trace.num_image
        one = LayerCounts(trace.layer, 0, num_image, pruned, image_merged, 0, trace.site)
        if not in_tower:
            merged, padding_merged = num_text - trace.num_text, padding - text_padding(trace)
            one = replace(one, num_text=num_text, text_merged=merged, padding_merged=padding_merged)
            num_text, padding = trace.num_text, text_padding(trace)
        counts.append(one)
        before = trace
    return counts


def text_padding(trace: LayerTrace) -> int:
    """Return how many text tokens of the first example are padding after a layer."""
    source = trace.text_source[0]
    return trace.num_text - len(source[source >= 0].unique())


def _num_image_before(trace: LayerTrace, before: LayerTrace | None) -> int:
    """Return how many image tokens came into a layer; `before` is the trace of the reduction before it."""
    # METER's image tower may have merged some image tokens before the first of these layers.
    if trace.saliency is not None:
        return trace.saliency.shape[1]
    if trace.image_matching is not None:
        return trace.num_image + trace.image_matching.src.shape[1]
    return trace.image_source.shape[1] if before is None else before.num_image


def _merged_rest(trace: LayerTrace, before: LayerTrace | None) -> int:
    """Return how many tokens that were not chosen are held by chosen ones, as with `merge_rest` of `lookahead`."""
    assert trace.keep is not None, "the layer chooses"
    after = trace.image_source[0]
    if before is None:
        if trace.saliency is None or trace.saliency.shape[1] != len(after):
            return 0
        token = torch.arange(len(after), device=after.device)
    else:
        token = before.image_source[0]
    held = (after >= 0) & ~torch.isin(token, trace.keep[0])
    return len(token[held].unique())


def patches_sentence(tokens: Tensor) -> str:
    """Say how many patches of an image stay, how many share a token, and how many are gone.

    What is true of no patch is left out.

    Args:
        tokens: long (rows, columns), from [`token_map`].
    """
    sizes = Counter(tokens.flatten().tolist())
    gone = sizes.pop(-1, 0)
    shared = [size for size in sizes.values() if size > 1]
    stay = len(sizes) - len(shared)
    parts = {
        f"{stay} {_be(stay, 'stay')}": stay,
        f"{sum(shared)} share {len(shared)} {'token' if len(shared) == 1 else 'tokens'}": len(shared),
        f"{gone} {_be(gone, 'are')} gone": gone,
    }
    return ", ".join([f"of {tokens.numel()} patches", *(words for words, number in parts.items() if number)])


def _with_fraction(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.2f})"


def _be(number: int, verb: str) -> str:
    """Return the verb for a number of things: `stay` or `stays`, `are` or `is`."""
    return verb if number != 1 else {"stay": "stays", "are": "is"}[verb]
