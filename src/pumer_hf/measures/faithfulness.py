"""Whether a model answers from what its reduction keeps: sufficiency and comprehensiveness (TiP, Section 5.2).

The measures compare accuracies of one model under several reducers, with the same weights:

* *sufficiency*: what is lost when only the kept tokens are used. Low is good.
* *comprehensiveness*: what is lost when the first reduction layer keeps what it would prune, and the other way round.
  High is good.

Beside each stands the same with as many tokens kept or pruned at random.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..explain.pictures import check_reduces
from ..models.encoders.base import PuMerPreTrainedModel
from ..reducers import ReductionConfig, TokenReducer
from ..results import Metric
from ..tokens import Evidence, LayerTrace, Matching, TokenPair
from .report import FAITHFULNESS


class KeepAtRandom(nn.Module):
    """Stands in for a reducer: keeps and merges as many tokens as it does, but which image tokens stay is drawn.

    Like every choice in this package, the draw keeps the image [CLS] and prefers real tokens to padding. What the
    reducer merges of the text stays as it is; of the image it is the most similar tokens among those that were drawn.

    Args:
        reducer: the reducer of a model.
        seed: of the draws, which go on from batch to batch.
    """

    uses_attention = True

    def __init__(self, reducer: TokenReducer, seed: int):
        super().__init__()
        self.reducer = reducer
        self.config = reducer.config
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        """As of [`TokenReducer`]."""
        reduced, trace = self.reducer(layer, pair, evidence)
        num_keep, mask = kept(trace, self.config).shape[1], pair.image.mask
        saliency = torch.rand(mask.shape, generator=self.generator).to(mask.device)
        keep = ops.keep_salient(saliency, mask, num_keep)
        keys = evidence.image_keys.gather(1, keep.unsqueeze(-1).expand(-1, -1, evidence.image_keys.shape[-1]))
        num_merge = num_keep - trace.num_image
        matching = Matching(*ops.bipartite_soft_matching(keys, mask.gather(1, keep), num_merge))
        positions = ops.follow(ops.keep_positions(keep, mask.shape[1]), matching.positions(num_keep))
        image = pair.image.move(positions, trace.num_image)
        trace = replace(
            trace, image_source=image.source, saliency=saliency, keep=keep, image_matching=matching, losses={}
        )
        return TokenPair(reduced.text, image), trace


class KeepPruned(nn.Module):
    """Stands in for a reducer: keeps the image tokens that it would prune in its first layer, prunes those that it
    would keep, and reduces nothing else, there or later.

    The image [CLS] stays. The padding that the reducer drops is kept here, and it is still marked as padding. The
    image tower merges as before, so that the first layer has the same tokens to choose from.

    Args:
        reducer: the reducer of a model, or what stands in for it.
    """

    uses_attention = True

    def __init__(self, reducer: TokenReducer | KeepAtRandom):
        super().__init__()
        self.reducer = reducer
        self.config = first_layer(reducer.config)

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        """As of [`TokenReducer`]."""
        _, trace = self.reducer(layer, pair, evidence)
        keep, num_image = kept(trace, self.reducer.config), pair.image.mask.shape[1]
        if keep.shape[1] == num_image:
            raise ValueError(
                f"layer {layer}, the first of reduction.layers, prunes none of {num_image} image tokens: there is no "
                "choice to invert; let it prune some"
            )
        pruned = ops.keep_positions(keep, num_image) < 0
        # Ranked without the mask: else tokens that the reducer keeps would come before padding.
        keep = ops.keep_salient(pruned.float(), torch.ones_like(pruned), num_image - keep.shape[1] + 1)
        image = pair.image.move(ops.keep_positions(keep, num_image), keep.shape[1])
        trace = LayerTrace(
            layer=layer,
            num_text=pair.text.mask.shape[1],
            num_image=keep.shape[1],
            text_source=pair.text.source,
            image_source=image.source,
            saliency=pruned.float(),
            keep=keep,
        )
        return TokenPair(pair.text, image), trace


def first_layer(config: ReductionConfig) -> ReductionConfig:
    """The same schedule without its later layers."""
    first = config.layers[0]
    ratios: dict[str, Any] = {name: config.ratio(name, first) for name in config.ratios}
    return replace(config, layers=(first,), **ratios)


def kept(trace: LayerTrace, config: ReductionConfig) -> Tensor:
    """`trace.keep`; raises `ValueError` for a method that makes no such choice."""
    if trace.keep is None:
        raise ValueError(
            f"reduction.method={config.method!r} prunes no image tokens in layer {trace.layer} (trace.keep is None): "
            "sufficiency and comprehensiveness need a method that does"
        )
    return trace.keep


@contextmanager
def reduced_by(model: PuMerPreTrainedModel, reducer: nn.Module | None) -> Iterator[None]:
    """The model with another reducer, or with None unreduced; afterwards it has its own again."""
    backbone = model.base_model
    own = backbone.reducer
    backbone.reducer = reducer
    try:
        yield
    finally:
        backbone.reducer = own


def compared_reducers(model: PuMerPreTrainedModel, seed: int = 0) -> dict[str, nn.Module | None]:
    """The reducers under which [`faithfulness`] compares a model, by name, for [`reduced_by`].

    Args:
        model: one that reduces tokens, with `semantics="paper"`.
        seed: of the random ones.
    """
    check_reduces(model)
    if model.config.semantics == "release":
        raise ValueError("config.semantics='release': its choices cannot be inverted; measure with semantics='paper'")
    own = model.base_model.reducer
    return {
        "unreduced": None,
        "reduced": own,
        "random": KeepAtRandom(own, seed),
        "inverted": KeepPruned(own),
        "random_inverted": KeepPruned(KeepAtRandom(own, seed)),
    }


def faithfulness(accuracy: Mapping[str, Metric]) -> dict[str, Metric]:
    """Sufficiency and comprehensiveness (TiP, Section 5.2), and the same at random.

    Args:
        accuracy: of the same examples, by name of the reducer ([`compared_reducers`]).

    Returns:
        `sufficiency`, `random_sufficiency` (low is good), `comprehensiveness` and `random_comprehensiveness` (high is
        good), in points of accuracy.
    """
    of = {
        "sufficiency": "reduced",
        "random_sufficiency": "random",
        "comprehensiveness": "inverted",
        "random_comprehensiveness": "random_inverted",
    }
    full = accuracy["unreduced"].value
    return {name: FAITHFULNESS[name].of(full - accuracy[reducer].value) for name, reducer in of.items()}
