"""What a model asks of one of its layers."""

from dataclasses import dataclass

from ...reducers import TokenReducer


@dataclass(frozen=True)
class LayerPlan:
    """What a model asks of one of its layers, in one forward ([`PuMerPreTrainedModel.plans`]).

    The hooks of accelerate, which offload weights, move any argument that has a method `to`. A plan has none, so they
    leave it and its reducer alone.
    """

    index: int
    """Index of the layer."""
    reducer: TokenReducer | None = None
    """What reduces the tokens in this layer; None if nothing does."""
    num_queries: int | None = None
    """How many tokens of each modality to compute, the first ones; None for all. A layer that reduces computes all."""
    chunk: int | None = None
    """How many tokens a feed-forward part takes at once; None for all."""
    with_attentions: bool = False
    """Whether the layer returns its attention probabilities."""
