"""What a model asks of one of its layers."""

from dataclasses import dataclass

from ...reducers import TokenReducer


@dataclass(frozen=True)
class LayerPlan:
    """What a model asks of one of its layers, in one forward ([`PuMerPreTrainedModel.plans`]).

    The hooks with which accelerate offloads weights move any argument that has a method `to`. A plan has no such
    method, so they do not touch its reducer.
    """

    index: int
    """Index of the layer."""
    reducer: TokenReducer | None = None
    """The reducer of this layer; None if it reduces nothing."""
    num_queries: int | None = None
    """How many of the first tokens of each modality to compute; None for all. A layer that reduces computes all."""
    chunk: int | None = None
    """How many tokens a feed-forward part takes at once; None for all."""
    with_attentions: bool = False
    """Whether the layer returns its attention probabilities."""
