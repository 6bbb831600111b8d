"""`attached` reduces the image tokens of a loaded model of transformers' own class, for the time of a `with` block."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from ...reducers import AnyReduction, ReductionConfig, TokenReducer, build_reducer, parse_reduction, reducer_class
from ...reducers.lookahead import LookaheadReducer, LookaheadReductionConfig
from ...reducers.several import joined
from ..budget import fit
from ..scorers import load_scorer, untrained_error
from .budget import DecoderCounter
from .calls import ReducedCalls
from .evidence import hide_evidence, is_showing
from .family import DecoderFamily
from .hooks import install_hooks
from .images import ImageTrace
from .modeling import ReducedDecoder
from .running import is_cut, running_of

Traces = list[tuple[ImageTrace, ...]]
"""For each call of the model that reduced tokens, what became of each of its images."""


REDUCES = "_reduces_tokens"
"""The attribute that marks a method of a `reduced` block."""


@contextmanager
def attached(
    family: DecoderFamily, model: PreTrainedModel, reducers: Mapping[str, TokenReducer], traces: Traces
) -> Iterator[None]:
    """Reduce image tokens in a loaded model inside a `with` block. The model is as it was after it.

    Two attributes of this model object are set: its methods `forward` and `generate`. To reduce inside the decoder,
    its layers also get hooks, and its config names another attention function.

    Args:
        family: the family of the model.
        model: a model of transformers' own class, or of ours.
        reducers: what reduces, by site.
        traces: gets the traces of each call.
    """
    if isinstance(model, ReducedDecoder):
        before, model.watch = model.watch, traces.append
        try:
            with model.token_reduction.using(reducers):
                yield
        finally:
            model.watch = before
        return
    calls = ReducedCalls(family, model, lambda: reducers, traces.append)
    own = {name: vars(model).get(name) for name in ("forward", "generate")}
    with hooks_inside(model) if "layers" in reducers else nullcontext():
        for name in own:
            setattr(model, name, _bound(model, name, getattr(calls, name), getattr(model, name)))
        try:
            yield
        finally:
            for name, method in own.items():
                delattr(model, name)
                if method is not None:
                    setattr(model, name, method)


@contextmanager
def hooks_inside(model: PreTrainedModel) -> Iterator[None]:
    """Put hooks on the layers of a stock model inside a `with` block."""
    hooks = install_hooks(model)
    showed = is_showing(model)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        if not showed:
            hide_evidence(model)


def _bound(model: PreTrainedModel, name: str, method: Any, stock: Any) -> Any:
    @wraps(stock)
    def bound(*args: Any, **kwargs: Any) -> Any:
        inner = name == "generate" and running_of(model) is not None
        if is_cut(model) or inner:  # an inner block reduces alone
            return stock(*args, **kwargs)
        return method(stock, *args, **kwargs)

    setattr(bound, REDUCES, True)
    return bound


def reducers_for(family: DecoderFamily, model: PreTrainedModel, reduction: AnyReduction) -> dict[str, TokenReducer]:
    """Make the reducers for a loaded model, by site.

    Args:
        family: the family of the model.
        model: the model.
        reduction: a schedule.

    Raises:
        ValueError: the schedule is wrong, does not fit the model, or its method needs a trained scorer that it lacks.
    """
    schedule = parse_reduction(reduction, family.layout(model.config))
    if schedule is None:
        raise ValueError("reduction=None: call the model without `reduced` for its unreduced form")
    family.check_schedule(model.config, schedule)
    if schedule.flops is not None:
        if hasattr(vars(model).get("forward"), REDUCES):
            raise ValueError(
                f"reduction.flops={schedule.flops}: inside another `reduced` block, the unreduced model cannot be "
                "counted: give ratios, or ask for the budget outside of the block"
            )
        schedule, _ = fit(
            schedule, DecoderCounter(model, family, lambda reducers: attached(family, model, reducers, []))
        )
    by_site: dict[str, list[TokenReducer]] = {}
    for part in schedule.parts:
        by_site.setdefault(part.site, []).append(_trained(model, part))
    found = {site: joined(reducers) for site, reducers in by_site.items()}
    return {site: reducer.eval() for site, reducer in found.items() if reducer is not None}


def _trained(model: PreTrainedModel, part: ReductionConfig) -> TokenReducer:
    host = StockHost(model)
    if isinstance(part, LookaheadReductionConfig):
        if part.weights is None:
            raise untrained_error(part, model.name_or_path)
        return load_scorer(host, part)
    if reducer_class(part).learns:
        raise ValueError(
            f"reduction.method={part.method!r} learns inside the model: load the checkpoint with one of our classes "
            f"(PuMer{type(model).__name__}.from_pretrained), and train it"
        )
    return host.make_reducer(part).to(device=model.device)


_SCORERS: WeakKeyDictionary[nn.Module, LookaheadReducer] = WeakKeyDictionary()
"""The scorers of models of transformers' own classes. They stand beside their models, which stay as they are."""


class StockHost:
    """A stock model as those need it that make, train, load and save a scorer for it.

    Args:
        model: a model of transformers' own class.
    """

    def __init__(self, model: PreTrainedModel):
        self.model, self.config, self.name_or_path = model, model.config, model.name_or_path

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the states of the model. Its weights may be stored in another one."""
        return self.model.dtype

    @property
    def token_reduction(self) -> "StockHost":
        """What holds the scorer: this object."""
        return self

    @property
    def part_reducers(self) -> list[TokenReducer]:
        """The scorer of the model, if it has one."""
        return [_SCORERS[self.model]] if self.model in _SCORERS else []

    def set_scorer(self, reducer: LookaheadReducer) -> None:
        """Put a scorer beside the model, in the place of the one before."""
        _SCORERS[self.model] = reducer

    def make_reducer(self, part: ReductionConfig) -> TokenReducer:
        """Make the module that carries out a part of a schedule."""
        return build_reducer(part, self.config.get_text_config().hidden_size, in_decoder=True)

    def named_modules(self) -> Any:
        """The modules of the model, for its fingerprint."""
        return self.model.named_modules()
