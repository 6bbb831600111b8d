"""What a model asks of one of its layers."""

from collections.abc import Callable
from dataclasses import dataclass

from ...tokens import Evidence, LayerTrace, TokenPair


@dataclass(frozen=True)
class LayerPlan:
    """What a model asks of one of its layers.

    No module is an argument of another module's `forward`: the hooks of accelerate, which offload weights, would move
    it like a tensor. So the layer does not get the reducer, but a function that calls it.
    """

    reduce: Callable[[TokenPair, Evidence], tuple[TokenPair, LayerTrace]] | None = None
    """Reduces the tokens in this layer; None where nothing does."""
    with_attention: bool = False
    """Whether `reduce` reads `Evidence.text_to_image`."""
    output_attentions: bool = False
    """Return the attention probabilities."""
    rows: int | None = None
    """How many tokens a feed-forward part takes at once; None for all."""
    num_queries: int | None = None
    """How many tokens of each modality to compute, the first ones; None for all. Only where nothing is reduced."""
