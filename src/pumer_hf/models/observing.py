"""`observe` runs an unreduced model once, to see what comes into a site and where later layers attend."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .. import ops
from ..reducers import ReductionConfig, TokenReducer
from ..reducers.base import SITES
from ..reducers.lookahead import TargetLayer
from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair
from .reducible import reduction_of

See = Callable[[int, TokenPair, Evidence], None]


@dataclass(frozen=True)
class Observation:
    """What [`observe`] has seen. Nothing in it carries a gradient."""

    pair: TokenPair
    """The tokens that come into the site."""
    features: Tensor
    """float (B, P, d): what the patches are compared by there."""
    attention: Mapping[TargetLayer, Tensor]
    """By layer, float32 (B, P): how much the text attends to each patch (PuMer, Eq. 1). It sums to 1 over the patches.
    Padding has 0. `"all"` is the mean of all layers."""
    examples: Tensor
    """long (B,): the example of each image, in the batch of the model. In a decoder, an example is a prompt, which may
    have several images."""


@dataclass(frozen=True)
class WatchConfig(ReductionConfig):
    """The layers in which a [`Watcher`] sees the tokens."""

    method: ClassVar[str] = "watch"
    sites: ClassVar[tuple[str, ...]] = SITES


class Watcher(TokenReducer):
    """Reduces nothing, and shows the tokens and the evidence of its layers to a function.

    It is no method of token reduction, and stands in no schedule.

    Args:
        config: its site and its layers.
        see: what is called with the index of the layer, the tokens that come in, and the evidence.
        stops_after: see [`TokenReducer.stops_after`].
    """

    config_class = WatchConfig
    summary = "watch"
    paper = ""
    uses_text = True

    def __init__(self, config: WatchConfig, see: See, stops_after: int | None = None):
        super().__init__(config, 0)
        self.see, self.stops_after = see, stops_after
        self.uses_attention = config.site == "layers"

    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        return num_text, num_image

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        self.see(layer, pair, evidence)
        return pair, LayerTrace.of(layer, pair, site=self.config.site)


@torch.no_grad()
def observe(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    layers: Sequence[int],
    site: str = "inputs",
    tower_layer: int | None = None,
) -> Observation:
    """Run an unreduced model once. Return the tokens that come into a site, and the attention of later layers.

    The layers after the last one of `layers` do not run. The model has its own reducers again afterwards.

    Args:
        model: a model that can reduce tokens, in eval mode, with any head or none. The head does not run.
        inputs: keyword arguments of the backbone, on its device, with one image for each text.
        layers: indices of layers in which text and image meet; `()` for none.
        site: where the tokens are seen, `"inputs"` or `"tower"`.
        tower_layer: the layer of the image tower, for site `"tower"`.

    Raises:
        ValueError: the model is in training mode, or has no such site or layer.
    """
    reduction = reduction_of(model)
    backbone = reduction.model
    if backbone.training:
        raise ValueError(
            "the model is in training mode, in which its dropout changes the attention: call model.eval()"
        )
    watched = WatchConfig((), site=site) if site != "tower" else WatchConfig(_tower_layers(tower_layer), site=site)
    _check(watched, backbone.config.sites)
    seen: list[tuple[TokenPair, Tensor]] = []
    attention: dict[TargetLayer, Tensor] = {}

    def see_tokens(layer: int, pair: TokenPair, evidence: Evidence) -> None:
        seen.append((pair, evidence.image_keys[:, NUM_PREFIX_TOKENS:]))

    def see_attention(layer: int, pair: TokenPair, evidence: Evidence) -> None:
        assert evidence.text_to_image is not None, "a watcher at site 'layers' asks for it"
        attention[layer] = patch_attention(evidence.text_to_image, pair)

    last = max(layers, default=-1)
    watchers: dict[str, TokenReducer] = {site: Watcher(watched, see_tokens)}
    chosen = WatchConfig(tuple(sorted(set(layers))) or (0,), site="layers")
    _check(chosen, backbone.config.sites)
    watchers["layers"] = Watcher(chosen, see_attention, stops_after=last)
    with reduction.using(watchers):
        backbone(**inputs)
    pair, features = seen[0]
    return Observation(pair, features, attention, torch.arange(len(features), device=features.device))


def patch_attention(text_to_image: Tensor, pair: TokenPair) -> Tensor:
    """Return how much the text attends to each patch, float32 (B, P), normalised over the patches (PuMer, Eq. 1).

    Args:
        text_to_image: float (B, H, Lt, 1 + P), see [`Evidence`].
        pair: the tokens that come in.
    """
    saliency = ops.saliency_from_text(text_to_image.float(), pair.text.mask)[:, NUM_PREFIX_TOKENS:]
    saliency = saliency * pair.image.mask[:, NUM_PREFIX_TOKENS:]
    return saliency / saliency.sum(dim=1, keepdim=True).clamp(min=torch.finfo(saliency.dtype).tiny)


def _tower_layers(layer: int | None) -> tuple[int, ...]:
    if layer is None:
        raise ValueError("tower_layer=None: name the layer of the image tower")
    return (layer,)


def _check(config: WatchConfig, sites: Mapping[str, int]) -> None:
    """Raise `ValueError` if the model has no such site or layer."""
    if config.site not in sites:
        raise ValueError(f"site={config.site!r}: the model has the sites {', '.join(map(repr, sites))}")
    config.validate_depth(sites[config.site])
