"""What each layer took in, removed and left, in numbers and in words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..tokens import LayerTrace


@dataclass(frozen=True)
class LayerCounts:
    """Tokens of one example at one layer; padding counts too."""

    layer: int
    num_text: int
    """Text tokens that came in."""
    num_image: int
    """Image tokens that came in, [CLS] included."""
    pruned: int
    """Image tokens that were pruned."""
    image_merged: int
    """Image tokens that were merged away."""
    text_merged: int
    """The same of the text."""

    @property
    def removed(self) -> int:
        """Tokens that left."""
        return self.pruned + self.image_merged + self.text_merged

    def sentences(self) -> str:
        """The same in words, each part with the share of its tokens."""
        image = f"Of {self.num_image} image tokens, {_share(self.pruned, self.num_image)} are pruned"
        image += f" and {_share(self.image_merged, self.num_image)} merged into others"
        text = f"Of {self.num_text} text tokens, {_share(self.text_merged, self.num_text)} are merged into others"
        left = self.num_image - self.pruned - self.image_merged
        return f"{image}; {left} are left. {text}; {self.num_text - self.text_merged} are left."


def layer_counts(traces: Sequence[LayerTrace]) -> list[LayerCounts]:
    """What each layer did to one image and its text.

    Args:
        traces: those of `outputs.reduction` that are about the image, in order.
    """
    counts = []
    for index, trace in enumerate(traces):
        before = traces[index - 1] if index else None
        num_text = trace.text_source.shape[1] if before is None else before.num_text
        num_image = trace.image_source.shape[1] if before is None else before.num_image
        # METER's image tower may have merged some before the first of these layers.
        if trace.saliency is not None:
            num_image = trace.saliency.shape[1]
        elif trace.image_matching is not None:
            num_image = trace.num_image + trace.image_matching.src.shape[1]
        pruned = 0 if trace.keep is None else num_image - trace.keep.shape[1]
        merged = num_image - pruned - trace.num_image
        counts.append(LayerCounts(trace.layer, num_text, num_image, pruned, merged, num_text - trace.num_text))
    return counts


def patches_sentence(tokens: Tensor) -> str:
    """What became of the patches of an image: how many stay, share a token and are gone.

    Args:
        tokens: long (rows, columns), from [`token_map`].
    """
    sizes = Counter(tokens.flatten().tolist())
    gone = sizes.pop(-1, 0)
    shared = [size for size in sizes.values() if size > 1]
    stay = len(sizes) - len(shared)
    merged = f"{sum(shared)} share {len(shared)} {'token' if len(shared) == 1 else 'tokens'}"
    return f"of {tokens.numel()} patches, {stay} {_be(stay, 'stay')}, {merged}, {gone} {_be(gone, 'are')} gone"


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.2f})"


def _be(number: int, verb: str) -> str:
    """The verb of so many: `stay` or `stays`, `are` or `is`."""
    return verb if number != 1 else {"stay": "stays", "are": "is"}[verb]
