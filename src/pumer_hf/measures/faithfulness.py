"""Measures whether a model answers from the tokens that its reduction keeps (TiP, Section 5.2).

The measures compare the accuracies of one model under several reducers, with the same weights:

* *sufficiency*: the accuracy that is lost when the model uses only the kept tokens. Low is good.
* *comprehensiveness*: the accuracy that is lost when the first reduction layer keeps the tokens that it would prune,
  and prunes the tokens that it would keep. High is good. The site "inputs" counts as such a layer.

Each measure is also taken with as many tokens kept or pruned at random.
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
from ..models.reducible import reduction_of
from ..reducers import ReductionConfig, TokenReducer
from ..reducers.base import SITES
from ..reducers.mass import check_fixed_lengths
from ..results import Metric
from ..tokens import Evidence, LayerTrace, Matching, TokenPair
from .report import FAITHFULNESS

StandIns = Mapping[str, TokenReducer | None]
"""Reducers by site, for [`reduced_by`]."""
MANY = 1000
"""A number of image tokens of which every choice prunes some."""


class StandIn(TokenReducer):
    """A reducer that a measure puts in the place of a model's reducer, to change its choice. No config names it.

    Args:
        reducer: the reducer of a model, or another stand-in.
        config: the schedule of the stand-in.
    """

    uses_attention = True

    def __init__(self, reducer: TokenReducer, config: ReductionConfig):
        super().__init__(config, width=0)  # it has no weights
        self.reducer = reducer
        self.uses_text = reducer.uses_text


class KeepAtRandom(StandIn):
    """A stand-in that keeps and merges as many tokens as a reducer, but draws the image tokens that it keeps.

    Like every choice in this package, the draw keeps the image [CLS] and prefers real tokens to padding. The text is
    merged as the reducer merges it. Of the image, the most similar tokens among the drawn ones are merged.

    Args:
        reducer: the reducer of a model.
        seed: the seed of the draws. It is set once, so each batch has other draws.
    """

    def __init__(self, reducer: TokenReducer, seed: int):
        super().__init__(reducer, reducer.config)
        self.generator = torch.Generator().manual_seed(seed)

    def num_keep(self, layer: int, num_image: int) -> int:
        return self.reducer.num_keep(layer, num_image)

    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        return self.reducer.output_lengths(layer, num_text, num_image)

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        """Do what [`TokenReducer`] describes."""
        reduced, trace = self.reducer(layer, pair, evidence)
        num_keep, mask = kept(trace, self.config).shape[1], pair.image.mask
        saliency = torch.rand(mask.shape, generator=self.generator).to(mask.device)
        keep = ops.keep_salient(saliency, mask, num_keep)
        keys = evidence.image_keys.gather(1, keep.unsqueeze(-1).expand(-1, -1, evidence.image_keys.shape[-1]))
        num_merge = num_keep - trace.num_image
        matching = Matching(*ops.bipartite_soft_matching(keys, mask.gather(1, keep), num_merge))
        positions = ops.follow(ops.keep_positions(keep, mask.shape[1]), matching.positions(num_keep))
        image = pair.image
        if self.config.predicts:  # a later part may read the prediction
            image = replace(image, prior=trace.saliency)
        image = image.move(positions, trace.num_image)
        trace = replace(
            trace, image_source=image.source, saliency=saliency, keep=keep, image_matching=matching, losses={}
        )
        return TokenPair(reduced.text, image), trace


class KeepPruned(StandIn):
    """A stand-in that inverts the choice of a reducer's first layer: it keeps the tokens that the reducer would prune.

    It prunes the image tokens that the reducer would keep, except the image [CLS]. It does not merge, and it reduces
    nothing in later layers. Padding that the reducer would prune stays, as padding. The image tower merges as before,
    so that the first layer chooses from the same tokens.

    Args:
        reducer: the reducer of a model, or another stand-in.
    """

    def __init__(self, reducer: TokenReducer):
        super().__init__(reducer, first_layer(reducer.config))

    def num_keep(self, layer: int, num_image: int) -> int:
        return num_image - self.reducer.num_keep(layer, num_image) + 1  # both choices keep the [CLS]

    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        return num_text, self.num_keep(layer, num_image)

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        """Do what [`TokenReducer`] describes."""
        _, trace = self.reducer(layer, pair, evidence)
        keep, num_image = kept(trace, self.reducer.config), pair.image.mask.shape[1]
        if keep.shape[1] == num_image:
            raise ValueError(
                f"{trace.place}, the first place of the reduction, none of {num_image} image tokens is pruned: there "
                "is no choice to invert; let it prune some"
            )
        pruned = ops.keep_positions(keep, num_image) < 0
        # The mask is not used here. With it, tokens that the reducer keeps would come before padding.
        keep = ops.keep_salient(pruned.float(), torch.ones_like(pruned), num_image - keep.shape[1] + 1)
        image = pair.image.move(ops.keep_positions(keep, num_image), keep.shape[1])
        pair = TokenPair(pair.text, image)
        return pair, LayerTrace.of(layer, pair, pruned.float(), keep, site=self.config.site)


def first_layer(config: ReductionConfig) -> ReductionConfig:
    """Return the same part without its later layers. A part without layers stays as it is."""
    if not config.layers:
        return config
    by_layer: dict[str, Any] = {name: value[0] for name, value in vars(config).items() if isinstance(value, tuple)}
    return replace(config, **{**by_layer, "layers": config.layers[:1]})


def kept(trace: LayerTrace, config: ReductionConfig) -> Tensor:
    """Return `trace.keep`; raise `ValueError` for a method that does not choose which tokens to keep."""
    if trace.keep is None:
        raise ValueError(
            f"reduction.method={config.method!r} prunes no image tokens in layer {trace.layer} (trace.keep is None): "
            "sufficiency and comprehensiveness need a method that does"
        )
    return trace.keep


@contextmanager
def reduced_by(model: nn.Module, reducers: StandIns | None) -> Iterator[None]:
    """Put other reducers in the places of a model's own; for None, reduce nothing. Afterwards, restore the old ones.

    Args:
        model: a model that reduces tokens.
        reducers: the other reducers by site. At a site with the value None nothing is reduced. At a site that is not
            named, the model's own reducer stays.
    """
    reduction = reduction_of(model)
    placed = {} if reducers is None else {**reduction.reducers, **reducers}
    with reduction.using({site: reducer for site, reducer in placed.items() if reducer is not None}):
        yield


def choosing_reducers(model: PuMerPreTrainedModel) -> dict[str, TokenReducer]:
    """Return the reducers of a model that choose which image tokens to keep, by site, the first site first.

    If none does, it is the last one alone, whose trace then says why it cannot be measured.

    Raises:
        ValueError: the model reduces nothing, or only merges in its image tower.
    """
    check_reduces(model)
    own = model.token_reduction.reducers
    reducers = {site: own[site] for site in SITES if site in own}
    choosing = {site: reducer for site, reducer in reducers.items() if chooses(reducer)}
    *_, last = reducers
    if not choosing and last == "tower":
        raise ValueError(f"config.reduction={model.config.reduction}: no part of it chooses which tokens to keep")
    return choosing or {last: reducers[last]}


def chooses(reducer: TokenReducer) -> bool:
    """Return whether a reducer prunes in some layer."""
    return any(reducer.num_keep(layer, MANY) < MANY for layer in reducer.config.layers or (0,))


def compared_reducers(model: PuMerPreTrainedModel, seed: int = 0) -> dict[str, StandIns | None]:
    """Return the reducers under which [`faithfulness`] compares a model, by name. [`reduced_by`] takes them.

    The random choices take the place of every choice. The inversion takes the place of the first site that chooses,
    and the later sites reduce nothing.

    Args:
        model: a model that reduces tokens, with `semantics="paper"`.
        seed: the seed of the random reducers.
    """
    choosing = choosing_reducers(model)
    check_fixed_lengths(
        (one.config for one in choosing.values()), "random choices keep as many tokens of each example"
    )
    if model.config.semantics == "release":
        raise ValueError("config.semantics='release': its choices cannot be inverted; measure with semantics='paper'")
    first = next(iter(choosing))
    later: dict[str, TokenReducer | None] = dict.fromkeys(SITES[SITES.index(first) + 1 :])
    drawn = {site: KeepAtRandom(reducer, seed) for site, reducer in choosing.items()}
    return {
        "unreduced": None,
        "reduced": {},
        "random": drawn,
        "inverted": {**later, first: KeepPruned(choosing[first])},
        "random_inverted": {**later, first: KeepPruned(KeepAtRandom(choosing[first], seed))},
    }


def faithfulness(accuracy: Mapping[str, Metric]) -> dict[str, Metric]:
    """Compute the sufficiency and the comprehensiveness (TiP, Section 5.2), and those of random choices.

    Args:
        accuracy: the accuracy on the same examples, by name of the reducer ([`compared_reducers`]).

    Returns:
        `sufficiency` and `random_sufficiency` (low is good), `comprehensiveness` and `random_comprehensiveness` (high
        is good), in points of accuracy.
    """
    reducer_of = {
        "sufficiency": "reduced",
        "random_sufficiency": "random",
        "comprehensiveness": "inverted",
        "random_comprehensiveness": "random_inverted",
    }
    full = accuracy["unreduced"].value
    return {name: FAITHFULNESS[name].of(full - accuracy[reducer].value) for name, reducer in reducer_of.items()}
