"""`Reduction`, a schedule at work in any model."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.utils import logging

from ..reducers import AnyReduction, ReductionConfig, Schedule, TokenReducer, reducer_class
from ..reducers.scoring import ScoringConfig, ScoringReducer
from ..reducers.several import joined
from .budget import announced_lengths, fit
from .offload import is_offloaded, loaded_state_dict
from .scorers import load_scorer, source_of, untrained_error

logger = logging.get_logger(__name__)
Place = tuple[str, tuple[int, ...]]
"""Site and layers of a part. No two parts of a schedule have the same."""
_LOADING: ContextVar[bool] = ContextVar("loading", default=False)
"""Whether a model is being made whose weights are loaded next."""


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
        model: the backbone, a `ReducibleModel`.
    """

    def __init__(self, model: Any):
        self.model = model

    def build(self) -> None:
        """Give a new backbone the reducers that its config asks for.

        Their weights are a part of the model. Its `__init__` calls this method at the place where they belong.
        `from_pretrained` loads a scorer from another place after the weights of the model ([`finish_loading`]).

        Raises:
            ValueError: the schedule names a scorer, but the model is made from its config alone.
        """
        self.model.learned, self.model.learned_apart = {}, []
        schedule = self.model.config.schedule
        if schedule is not None:
            self.model.config.check_schedule(schedule)  # other fields may have changed since it was parsed
            if schedule.flops is not None and not _LOADING.get():
                schedule = self._fit(schedule)
        for site, host in self.model.reducer_hosts().items():
            parts = _parts(schedule, site)
            for source in filter(None, map(source_of, parts)):
                if not _LOADING.get():
                    raise ValueError(
                        f"reduction.weights={source!r}: a model that is made from a config alone has random weights, "
                        "and a scorer is for trained ones: load the model with `from_pretrained`"
                    )
            host.reducer = joined([self.model.make_reducer(part) for part in parts if source_of(part) is None])

    def finish_loading(self, untrained: Collection[nn.Parameter]) -> None:
        """Load the scorers that the schedule names, after the weights of the model.

        Args:
            untrained: the parameters whose weights the checkpoint did not hold.

        Raises:
            ValueError: a scorer is missing or does not fit the model, or the checkpoint has none and none is named.
        """
        places = set(map(id, untrained))
        for reducer in self.part_reducers:
            if reducer.learns_apart and any(id(parameter) in places for parameter in reducer.parameters()):
                raise untrained_error(reducer.config, self.model.name_or_path)
        schedule = self.model.config.schedule
        if schedule is not None and (schedule.flops or any(source_of(part) is not None for part in schedule.parts)):
            self.set(schedule)

    @property
    def reducers(self) -> dict[str, TokenReducer]:
        """The reducers at work, by site. Several parts of the schedule at one site have one [`SeveralReducer`]."""
        hosts = self.model.reducer_hosts()
        return {site: host.reducer for site, host in hosts.items() if host.reducer is not None}

    @property
    def part_reducers(self) -> list[TokenReducer]:
        """The reducers at work, one for each part of the schedule, in its order."""
        return [part for reducer in self.reducers.values() for part in reducer.parts]

    @property
    def part_configs(self) -> tuple[ReductionConfig, ...]:
        """The parts of the schedule at work; `()` if nothing is reduced."""
        return tuple(reducer.config for reducer in self.part_reducers)

    @property
    def schedule(self) -> Schedule | None:
        """The schedule at work: `config.schedule`, after [`scale`] in its scaled form; None if nothing is reduced."""
        parts = self.part_configs
        return Schedule(parts) if parts else None

    @property
    def uses_prior(self) -> bool:
        """Whether the model needs its input `image_saliency`."""
        return any(reducer.uses_prior for reducer in self.reducers.values())

    def set(self, reduction: AnyReduction) -> None:
        """Change how the loaded model reduces tokens. The change applies from the next forward, and is saved.

        A method that learns keeps what it has learned, even if another method was in its place for a while.

        Args:
            reduction: any form that [`parse_reduction`] takes; None switches reduction off. With a budget, the ratios
                are scaled until a forward spends so much ([`models.budget`]).

        Raises:
            ValueError: the schedule is wrong, or names a site or a layer that the model does not have; or a method
                needs a trained scorer, and there is none, or one that does not fit the model. The model then stays as
                it was.
        """
        config = self.model.config
        schedule = config.checked(reduction)
        budget = None
        trained: dict[Place, TokenReducer] = {}
        if schedule is not None:
            schedule = schedule.with_learned([reducer.config for reducer in self._known])
            for part in schedule.parts:
                if reducer_class(part).learns_apart or source_of(part) is not None:
                    trained[part.site, part.layers] = self._trained(part)
            # a part whose weights have been loaded no longer names them
            parts = (
                part if source_of(part) is None else trained[part.site, part.layers].config for part in schedule.parts
            )
            schedule = Schedule(tuple(parts), schedule.flops)
            if schedule.flops is not None:
                schedule, budget = fit(schedule, self.model.flops_counter())
        config.schedule, config.budget = schedule, None if budget is None else budget.to_dict()
        for site, host in self.model.reducer_hosts().items():
            self._fill(host, site, _parts(schedule, site), trained)

    def fit(self, flops: float) -> None:
        """Scale the schedule of the config to a budget.

        Args:
            flops: the part of the unreduced model's multiply-adds that the model may spend, in (0, 1).

        Raises:
            ValueError: the schedule cannot meet it, or there is none.
        """
        schedule = self.model.config.schedule
        if schedule is None:
            raise ValueError(f"flops={flops}: config.reduction is None: there is nothing to scale")
        self._fit(replace(schedule, flops=flops))
        self.scale(1.0)

    def _fit(self, schedule: Schedule) -> Schedule:
        """Scale a schedule to its budget, and put it into the config."""
        schedule, budget = fit(schedule, self.model.flops_counter())
        self.model.config.schedule, self.model.config.budget = schedule, budget.to_dict()
        return schedule

    def scale(self, factor: float) -> None:
        """Multiply the ratios of `config.reduction` by `factor` in [0, 1], for a ramp in training. It is not saved."""
        schedule = self.model.config.schedule
        if schedule is None:
            raise ValueError("config.reduction is None: there is nothing to scale")
        scaled = schedule.scaled(factor)
        for site, reducer in self.reducers.items():
            part = scaled.at(site)
            assert part is not None, "each reducer carries out a part of the schedule"
            reducer.use(part)

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

        The numbers depend on nothing but the arguments. With `keep_mass` of `lookahead` they are the most that may
        leave, since the data decide. In a decoder, tokens are cut between layers, so they count as
        cut after a layer, and after the last layer nothing is cut. A batch of a decoder is as long as its longest
        prompt.

        Args:
            num_text: text tokens that the model begins with.
            num_image: image tokens that the model begins with: in METER those that leave the image tower, in a decoder
                those of a prompt with one image.

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
        return announced_lengths(reducer, self.model.config.sites[site], num_text, num_image)

    def _place(self, reducers: Mapping[str, TokenReducer]) -> None:
        for site, host in self.model.reducer_hosts().items():
            host.reducer = reducers.get(site)

    @property
    def _trained_apart(self) -> list[TokenReducer]:
        """The reducers that have been trained apart: those at work, then earlier ones, the latest first."""
        at_work = [reducer for reducer in self.part_reducers if reducer.learns_apart]
        return [*at_work, *reversed(self.model.learned_apart)]

    @property
    def _known(self) -> list[TokenReducer]:
        """The reducers whose form a part of a schedule may take: those at work, then those trained apart before."""
        return [*self.part_reducers, *reversed(self.model.learned_apart)]

    def _trained(self, part: ReductionConfig) -> TokenReducer:
        """Return a trained reducer for a part: loaded from where the part says, or one that the model has."""
        if isinstance(part, ScoringConfig) and part.weights is not None:
            return load_scorer(self.model, part)
        for reducer in self._trained_apart:
            if reducer.accepts(part):
                return reducer
        raise untrained_error(part, self.model.name_or_path)

    def _fill(
        self, host: ReducerHost, site: str, parts: Sequence[ReductionConfig], trained: Mapping[Place, TokenReducer]
    ) -> None:
        """Give a host the reducers for the parts of a schedule at its site.

        A reducer is the one that was trained apart, or an old one that accepts the part, or a new one.
        """
        old = () if host.reducer is None else host.reducer.parts
        reusable, chosen = list(old), [trained.get((part.site, part.layers)) for part in parts]
        for index, part in enumerate(parts):
            if chosen[index] is None:
                chosen[index] = next((reducer for reducer in reusable if reducer.accepts(part)), None)
            reusable = [reducer for reducer in reusable if reducer is not chosen[index]]
        for reducer in reusable:
            self._remember(site, reducer)
        reducers = []
        for part, found in zip(parts, chosen, strict=True):
            reducer = self._begun(part, self.model.learned.get(site, {})) if found is None else found
            reducer.use(part)
            if not any(reducer is other for other in old):
                self._move(reducer)
            reducers.append(reducer)
        host.reducer = joined(reducers)

    def _remember(self, site: str, old: TokenReducer) -> None:
        """Keep what a reducer has learned that is taken out of the model."""
        if old.learns_apart:
            others = [reducer for reducer in self.model.learned_apart if not reducer.accepts(old.config)]
            self.model.learned_apart = [*others, old]
        else:
            self.model.learned.setdefault(site, {}).update(loaded_state_dict(old))

    def _move(self, reducer: TokenReducer) -> None:
        """Bring a reducer to the device, the dtype and the mode of the model."""
        if not is_offloaded(reducer):
            reducer.to(device=self.model.device, dtype=self.model.dtype)
        reducer.train(self.model.training)

    @torch.no_grad()
    def _begun(self, part: ReductionConfig, learned: Mapping[str, Tensor]) -> TokenReducer:
        """Make a reducer for the loaded model, with its first weights. Learned ones are used if they fit."""
        reducer = self.model.make_reducer(part)
        self._move(reducer)
        reducer.apply(self.model._init_weights)
        wanted = reducer.state_dict()
        learned = {**self._scorer_for(part), **learned}
        known = {
            name: value for name, value in learned.items() if name in wanted and value.shape == wanted[name].shape
        }
        reducer.load_state_dict(known, strict=False)
        if known.keys() < wanted.keys():
            logger.warning("reduction.method=%r has parts that must learn: train the model", part.method)
        return reducer

    def _scorer_for(self, part: ReductionConfig) -> dict[str, Tensor]:
        """Return the weights of the scorer that was trained apart for the place of a part; none if there is none."""
        for reducer in self._trained_apart:
            if isinstance(reducer, ScoringReducer) and reducer.has_form_of(part):
                return loaded_state_dict(reducer)
        return {}


@contextmanager
def loading() -> Iterator[None]:
    """Say for the time of a `with` block that the weights of each new model are loaded after it is made."""
    token = _LOADING.set(True)
    try:
        yield
    finally:
        _LOADING.reset(token)


def _parts(schedule: Schedule | None, site: str) -> tuple[ReductionConfig, ...]:
    return () if schedule is None else tuple(part for part in schedule.parts if part.site == site)
