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
from ..models.reduction import reduction_of
from ..reducers import ReductionConfig, TokenReducer
from ..tokens import Evidence, LayerTrace, Matching, TokenPair


class StandIn(TokenReducer):
    """Stands in for a reducer, whose tokens it counts or whose choice it inverts. No config asks for it.

    Args:
        reducer: the reducer of a model, or what stands in for it.
        config: where it reduces.
    """

    uses_attention = True

    def __init__(self, reducer: TokenReducer, config: ReductionConfig):
        super().__init__(config, width=0)  # it has no weights
        self.reducer = reducer


class KeepAtRandom(StandIn):
    """Keeps and merges as many tokens as a reducer does, but which image tokens stay is drawn.

    Like every choice in this package, the draw keeps the image [CLS] and prefers real tokens to padding. What the
    reducer merges of the text stays as it is; of the image it is the most similar tokens among those that were drawn.

    Args:
        reducer: the reducer of a model.
        seed: of the draws, which go on from batch to batch.
    """

    def __init__(self, reducer: TokenReducer, seed: int):
        super().__init__(reducer, reducer.config)
        self.generator = torch.Generator().manual_seed(seed)

    def num_keep(self, layer: int, num_image: int) -> int:
        return self.reducer.num_keep(layer, num_image)

    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        return self.reducer.output_lengths(layer, num_text, num_image)

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


class KeepPruned(StandIn):
    """Keeps the image tokens that a reducer would prune in its first layer, and prunes those that it would keep. It
    reduces nothing else, there or later.

    The image [CLS] stays. Where the reducer drops padding, this one keeps it as padding. The image tower merges as
    before, so that the first layer has the same tokens to choose from.

    Args:
        reducer: the reducer of a model, or what stands in for it.
    """

    def __init__(self, reducer: TokenReducer):
        super().__init__(reducer, first_layer(reducer.config))

    def num_keep(self, layer: int, num_image: int) -> int:
        return num_image - self.reducer.num_keep(layer, num_image) + 1  # the [CLS] again

    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        return num_text, self.num_keep(layer, num_image)

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
def reduced_by(model: nn.Module, reducer: TokenReducer | None) -> Iterator[None]:
    """The model with another reducer in its layers, or with None unreduced; afterwards it has its own again."""
    reduction = reduction_of(model)
    with reduction.using({} if reducer is None else {**reduction.reducers, "layers": reducer}):
        yield


def own_reducer(model: PuMerPreTrainedModel) -> TokenReducer:
    """The reducer of the layers of a model; raises `ValueError` if nothing is reduced there."""
    check_reduces(model)
    reducers = model.token_reduction.reducers
    if "layers" not in reducers:
        raise ValueError(f"config.reduction={model.config.reduction}: no part of it has the site 'layers'")
    return reducers["layers"]


def compared_reducers(model: PuMerPreTrainedModel, seed: int = 0) -> dict[str, TokenReducer | None]:
    """The reducers under which [`faithfulness`] compares a model, by name, for [`reduced_by`].

    Args:
        model: one that reduces tokens, with `semantics="paper"`.
        seed: of the random ones.
    """
    own = own_reducer(model)
    if model.config.semantics == "release":
        raise ValueError("config.semantics='release': its choices cannot be inverted; measure with semantics='paper'")
    return {
        "unreduced": None,
        "reduced": own,
        "random": KeepAtRandom(own, seed),
        "inverted": KeepPruned(own),
        "random_inverted": KeepPruned(KeepAtRandom(own, seed)),
    }


def faithfulness(accuracy: Mapping[str, float]) -> dict[str, float]:
    """Sufficiency and comprehensiveness (TiP, Section 5.2), and the same at random.

    Args:
        accuracy: of the same examples, in percent, by name of the reducer ([`compared_reducers`]).

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
    return {name: accuracy["unreduced"] - accuracy[reducer] for name, reducer in of.items()}
