"""How many tokens each layer got, removed and left, in numbers and in words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..tokens import LayerTrace


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

    @property
    def removed(self) -> int:
        """How many tokens the layer removed."""
        return self.pruned + self.image_merged + self.text_merged

    def sentences(self) -> str:
        """Return the counts in words. Each count stands with the part of the tokens that it is."""
        image = f"Of {self.num_image} image tokens, {_with_fraction(self.pruned, self.num_image)} are pruned"
        image += f" and {_with_fraction(self.image_merged, self.num_image)} merged into others"
        merged = _with_fraction(self.text_merged, self.num_text)
        text = f"Of {self.num_text} text tokens, {merged} are merged into others"
        left = self.num_image - self.pruned - self.image_merged
        return f"{image}; {left} are left. {text}; {self.num_text - self.text_merged} are left."


def layer_counts(traces: Sequence[LayerTrace]) -> list[LayerCounts]:
    """Count what each layer did to one image and its text.

    Args:
        traces: the traces in `outputs.reduction` that are about the image, in their order.
    """
    counts = []
    for index, trace in enumerate(traces):
        before = traces[index - 1] if index else None
        num_text = trace.text_source.shape[1] if before is None else before.num_text
        num_image = trace.image_source.shape[1] if before is None else before.num_image
        # METER's image tower may have merged some image tokens before the first of these layers.
        if trace.saliency is not None:
            num_image = trace.saliency.shape[1]
        elif trace.image_matching is not None:
            num_image = trace.num_image + trace.image_matching.src.shape[1]
        pruned = 0 if trace.keep is None else num_image - trace.keep.shape[1]
        merged = num_image - pruned - trace.num_image
        counts.append(LayerCounts(trace.layer, num_text, num_image, pruned, merged, num_text - trace.num_text))
    return counts


def patches_sentence(tokens: Tensor) -> str:
    """Say how many patches of an image stay, how many share a token, and how many are gone.

    Args:
        tokens: long (rows, columns), from [`token_map`].
    """
    sizes = Counter(tokens.flatten().tolist())
    gone = sizes.pop(-1, 0)
    shared = [size for size in sizes.values() if size > 1]
    stay = len(sizes) - len(shared)
    merged = f"{sum(shared)} share {len(shared)} {'token' if len(shared) == 1 else 'tokens'}"
    return f"of {tokens.numel()} patches, {stay} {_be(stay, 'stay')}, {merged}, {gone} {_be(gone, 'are')} gone"


def _with_fraction(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.2f})"


def _be(number: int, verb: str) -> str:
    """Return the verb for a number of things: `stay` or `stays`, `are` or `is`."""
    return verb if number != 1 else {"stay": "stays", "are": "is"}[verb]
