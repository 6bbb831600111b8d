"""`Reduction`, a schedule at work in any model, and the functions that find it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from ..configuration import PuMerConfig
from ..reducers import AnyReduction, ReductionConfig, Schedule, TokenReducer, build_reducer
from ..tokens import LayerTrace
from .offload import loaded_state_dict

logger = logging.get_logger(__name__)


class HasTraces(Protocol):
    """The output of a model that can reduce tokens."""

    reduction: tuple[LayerTrace, ...] | None


class ReducerHost(Protocol):
    """A module that holds the reducer of a site as its child. The reducer is None if nothing is reduced there."""

    reducer: TokenReducer | None

    @property
    def config(self) -> Any:
        """The config of the module, with the width of the tokens, `hidden_size`."""


class Reduction:
    """A schedule at work in a model: one reducer at each site that the schedule names.

    A `Reduction` holds nothing but the model. So a new one is made for each use.

    Args:
        model: the backbone.
    """

    def __init__(self, model: "ReducibleModel"):
        self.model = model

    def build(self) -> None:
        """Give a new backbone the reducers that its config asks for.

        Their weights are a part of the model. Its `__init__` calls this method at the place where they belong.
        """
        self.model.learned = {}
        schedule = self.model.config.schedule
        if schedule is not None:
            self.model.config.check_schedule(schedule)  # other fields may have changed since it was parsed
        for site, host in self.model.reducer_hosts().items():
            part = _part(schedule, site)
            host.reducer = None if part is None else self.model.make_reducer(part)

    @property
    def reducers(self) -> dict[str, TokenReducer]:
        """The reducers at work, by site."""
        hosts = self.model.reducer_hosts()
        return {site: host.reducer for site, host in hosts.items() if host.reducer is not None}

    @property
    def schedule(self) -> Schedule | None:
        """The schedule at work: `config.schedule`, after [`scale`] in its scaled form; None if nothing is reduced."""
        parts = tuple(reducer.config for reducer in self.reducers.values())
        return Schedule(parts) if parts else None

    @property
    def uses_prior(self) -> bool:
        """Whether the model needs its input `image_saliency`."""
        return any(reducer.uses_prior for reducer in self.reducers.values())

    def set(self, reduction: AnyReduction) -> None:
        """Change how the loaded model reduces tokens. The change applies from the next forward, and is saved.

        A method that learns keeps what it has learned, even if another method was in its place for a while.

        Args:
            reduction: any form that [`parse_reduction`] takes; None switches reduction off.

        Raises:
            ValueError: the schedule is wrong, or names a site or a layer that the model does not have.
        """
        config = self.model.config
        config.schedule = config.checked(reduction)
        for site, host in self.model.reducer_hosts().items():
            self._fill(host, site, _part(config.schedule, site))

    def scale(self, factor: float) -> None:
        """Multiply the ratios of `config.reduction` by `factor` in [0, 1], for a ramp in training. It is not saved."""
        schedule = self.model.config.schedule
        if schedule is None:
            raise ValueError("config.reduction is None: there is nothing to scale")
        scaled = schedule.scaled(factor)
        for site, reducer in self.reducers.items():
            part = scaled.at(site)
            assert part is not None, "each reducer carries out a part of the schedule"
            reducer.config = part

    @contextmanager
    def using(self, reducers: Mapping[str, TokenReducer]) -> Iterator[None]:
        """Reduce with other reducers inside a `with` block, and with the model's own ones again after it.

        Args:
            reducers: the reducers by site. A site without one reduces nothing; `{}` gives the unreduced model.
        """
        before = self.reducers
        self._place(reducers)
        try:
            yield
        finally:
            self._place(before)

    def output_lengths(self, num_text: int, num_image: int) -> list[tuple[int, int]]:
        """Return how many tokens leave each layer in which text and image meet, after the reduction of the inputs.

        The numbers depend on nothing but the arguments.

        Args:
            num_text: text tokens that the model begins with.
            num_image: image tokens that the model begins with, in METER those that leave the image tower.

        Returns:
            Numbers of text tokens and of image tokens, for each layer.
        """
        return self.lengths_at("layers", *self.lengths_at("inputs", num_text, num_image)[-1])

    def lengths_at(self, site: str, num_text: int, num_image: int) -> list[tuple[int, int]]:
        """Return how many tokens leave each layer of a site.

        Args:
            site: a site of the model.
            num_text: text tokens that come into its first layer.
            num_image: image tokens that come into its first layer.

        Returns:
            Numbers of text tokens and of image tokens, for each layer.
        """
        reducer = self.reducers.get(site)
        lengths = []
        for layer in range(self.model.config.sites[site]):
            if reducer is not None and reducer.config.reduces(layer):
                num_text, num_image = reducer.output_lengths(layer, num_text, num_image)
            lengths.append((num_text, num_image))
        return lengths

    def traces(self, outputs: HasTraces) -> tuple[LayerTrace, ...]:
        """Return the trace of each layer that reduced tokens, in order, from an output of the model."""
        return outputs.reduction or ()

    def _place(self, reducers: Mapping[str, TokenReducer]) -> None:
        for site, host in self.model.reducer_hosts().items():
            host.reducer = reducers.get(site)

    def _fill(self, host: ReducerHost, site: str, part: ReductionConfig | None) -> None:
        """Give a host the reducer for a part of a schedule: the old one if it accepts the part, else a new one."""
        old = host.reducer
        if part is not None and old is not None and old.accepts(part):
            old.config = part
            return
        if old is not None:
            self.model.learned.setdefault(site, {}).update(loaded_state_dict(old))
        host.reducer = new = None if part is None else self.model.make_reducer(part)
        if new is not None:
            self._begin(new, self.model.learned.get(site, {}))

    @torch.no_grad()
    def _begin(self, reducer: TokenReducer, learned: Mapping[str, Tensor]) -> None:
        """Give a new reducer of the loaded model its first weights. Learned ones are used if they fit."""
        model = self.model
        reducer.to(device=model.device, dtype=model.dtype).train(model.training)
        reducer.apply(model._init_weights)
        wanted = reducer.state_dict()
        known = {
            name: value for name, value in learned.items() if name in wanted and value.shape == wanted[name].shape
        }
        reducer.load_state_dict(known, strict=False)
        if known.keys() < wanted.keys():
            method = reducer.config.method
            logger.warning("reduction.method=%r has parts that must learn: train the model", method)


class ReducibleModel(PreTrainedModel):
    """The base of the models that can reduce their tokens. They are backbones, or have one as their `base_model`.

    A backbone calls `self.token_reduction.build()` in its `__init__`. This sets the two attributes below.
    """

    config: PuMerConfig
    reducer: TokenReducer | None
    """What reduces tokens at the site `"layers"`."""
    learned: dict[str, dict[str, Tensor]]
    """By site, the weights of the reducers that a backbone had before. A new reducer gets back those that fit."""

    def reducer_hosts(self) -> dict[str, ReducerHost]:
        """Return the modules of the backbone that hold a reducer, by site."""
        return {"layers": self}

    def make_reducer(self, part: ReductionConfig) -> TokenReducer:
        """Make the module that carries out a part of a schedule."""
        return build_reducer(part, self.reducer_hosts()[part.site].config.hidden_size, self.config.hidden_size)

    @property
    def token_reduction(self) -> Reduction:
        """The schedule at work in this model."""
        return Reduction(self.base_model)

    @property
    def reduction(self) -> Schedule | None:
        """As [`Reduction.schedule`]."""
        return self.token_reduction.schedule

    def set_reduction(self, reduction: AnyReduction) -> None:
        """As [`Reduction.set`]."""
        self.token_reduction.set(reduction)

    def scale_reduction(self, factor: float) -> None:
        """As [`Reduction.scale`]."""
        self.token_reduction.scale(factor)

    def output_lengths(self, num_text: int, num_image: int) -> list[tuple[int, int]]:
        """As [`Reduction.output_lengths`]."""
        return self.token_reduction.output_lengths(num_text, num_image)


def reduction_of(model: nn.Module) -> Reduction:
    """Return the reduction of a model. The model may be inside a wrapper, such as the `PeftModel` of adapters.

    Raises:
        ValueError: the model cannot reduce tokens.
    """
    for module in model.modules():
        if isinstance(module, ReducibleModel):
            return module.token_reduction
    raise ValueError(f"{type(model).__name__} holds no model that can reduce tokens")


def reduces_tokens(model: nn.Module) -> bool:
    """Return whether a model reduces tokens. It is False for a model that cannot."""
    return any(isinstance(module, ReducibleModel) and module.reduction is not None for module in model.modules())


def _part(schedule: Schedule | None, site: str) -> ReductionConfig | None:
    return None if schedule is None else schedule.at(site)
