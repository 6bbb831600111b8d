"""The methods of token reduction, one file each. A new method needs its file, and a line in `METHODS`.

[`register_method`] adds a method of another package, or of a notebook.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any, TypeVar

from .base import PAPER_LAYOUT, Layout, ReductionConfig, TokenReducer
from .budget import completed, split_budget
from .diverse import DiverseReducer
from .dynamicvit import DynamicViTReducer
from .fastv import FastVReducer
from .grid import GridReducer
from .grounded import GroundedReducer
from .lookahead import LookaheadReducer
from .old_forms import current_parts
from .pumer import PuMerReducer
from .pumer_inputs import PuMerInputsReducer
from .pyramid import PyramidReducer
from .random import RandomReducer
from .relevant_diverse import RelevantDiverseReducer
from .schedule import PlainSchedule, Schedule
from .tip import TipReducer
from .tip_inputs import TipInputsReducer
from .tome import ToMeReducer

METHODS: dict[str, type[TokenReducer]] = {
    "pumer": PuMerReducer,
    "tip": TipReducer,
    "tome": ToMeReducer,
    "dynamicvit": DynamicViTReducer,
    "fastv": FastVReducer,
    "pyramid": PyramidReducer,
    "random": RandomReducer,
    "grounded": GroundedReducer,
    "grid": GridReducer,
    "diverse": DiverseReducer,
    "relevant_diverse": RelevantDiverseReducer,
    "lookahead": LookaheadReducer,
}
BEFORE_LAYERS: dict[str, type[TokenReducer]] = {"pumer": PuMerInputsReducer, "tip": TipInputsReducer}
"""Methods that are another class at site `"inputs"`, where no layer has run yet."""

AnyReducer = TypeVar("AnyReducer", bound=type[TokenReducer])


def register_method(reducer: AnyReducer) -> AnyReducer:
    """Add a method of another package to the table. Its name is the `method` of its config class.

    The function can be a decorator of the class. A class that is defined again under its own name, as in a cell of a
    notebook that runs twice, takes the place of the first one. A program that loads a model with the method calls this
    function before.

    Args:
        reducer: the class of the method.

    Returns:
        The same class.

    Raises:
        ValueError: the config class has no `method`, or another method has this name.
    """
    config_class = reducer.config_class
    name = getattr(config_class, "method", None)
    if not isinstance(name, str):
        raise ValueError(f"{config_class.__name__}.method={name!r}: give the method a name")
    known = METHODS.get(name)
    same = known is None or (known.__module__, known.__qualname__) == (reducer.__module__, reducer.__qualname__)
    if name == "none" or not same:
        whose = "it stands for no reduction" if known is None else f"it is the name of {known.__name__}"
        raise ValueError(f"{config_class.__name__}.method={name!r}: {whose}, choose a new one")
    METHODS[name] = reducer
    return reducer


AnyReduction = Schedule | ReductionConfig | Mapping[str, Any] | Sequence[ReductionConfig | Mapping[str, Any]] | None
"""What `reduction` may be: a schedule, one part of it or its dict, or a list of those; None to reduce nothing."""


def parse_reduction(reduction: AnyReduction, layout: Layout = PAPER_LAYOUT) -> Schedule | None:
    """Return the schedule that `reduction` describes, checked.

    Args:
        reduction: the dict of a method (`{"method": "pumer", "layers": [2, 5, 8], ...}`) or its config; or a list of
            those, where those of the same `site` name different layers. None or `{"method": "none"}` stands for a
            model that reduces nothing. With a budget, such as `{"method": "pumer", "flops": 0.5}`, layers and ratios
            may be left out; those that are given say how they relate to each other.
        layout: the layout of the model, for layers that are left out.

    Returns:
        The schedule; None for a model that reduces nothing.

    Raises:
        ValueError: an unknown method, an unknown or missing field, or a value out of range; the message names it.
    """
    if reduction is None or isinstance(reduction, Schedule):
        return reduction
    if isinstance(reduction, Mapping) and reduction.get("method") == "none":
        if len(reduction) > 1:
            raise ValueError(f"reduction.method='none' takes no other field, but got {sorted(reduction)}")
        return None
    given = list(reduction) if isinstance(reduction, (list, tuple)) else [reduction]
    with_flops = [part for part in given if isinstance(part, Mapping) and part.get("flops") is not None]
    flops = split_budget(with_flops)[1]
    parts: list[ReductionConfig] = []
    for part in given:
        if isinstance(part, ReductionConfig):
            parts.append(part)
        elif isinstance(part, Mapping) and part.get("method") == "none":
            raise ValueError("reduction.method='none' stands in a list: leave it out, or give it alone")
        elif isinstance(part, Mapping):
            (plain,), _ = split_budget([part])
            budgeted = None if flops is None else layout
            parts.extend(parse_method(current, budgeted) for current in current_parts(plain))
        else:
            raise ValueError(f"reduction={reduction!r}: give a dict, a ReductionConfig or None, or a list of several")
    return Schedule(tuple(parts), flops)


def parse_method(part: Mapping[str, Any], budgeted: Layout | None = None) -> ReductionConfig:
    """Return one part of a schedule, from the dict of its method.

    Args:
        part: the dict.
        budgeted: the layout of the model, if the schedule has a budget. The part may then lack layers and ratios.

    Raises:
        ValueError: as in [`parse_reduction`].
    """
    values = dict(part)
    method = values.pop("method", None)
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"reduction.method={method!r}: choose one of {['none', *METHODS]}")
    config_class = method_class(method, values.get("site")).config_class
    if budgeted is not None:
        values = completed(values, config_class, budgeted)
    values.setdefault("layers", ())
    known = signature(config_class).parameters
    for name in values:
        if name not in known:
            near = get_close_matches(name, known, n=1) or known
            raise ValueError(
                f"reduction.{name} is not a field of method {method!r}: did you mean {' or '.join(near)}?"
            )
    missing = [name for name, field in known.items() if field.default is Parameter.empty and name not in values]
    if missing:
        raise ValueError(f"reduction of method {method!r} lacks {', '.join(missing)}")
    return config_class(**values)


def method_class(method: str, site: Any) -> type[TokenReducer]:
    """Return the class of a method at a site. Only a method in `BEFORE_LAYERS` has two."""
    return BEFORE_LAYERS.get(method, METHODS[method]) if site == "inputs" else METHODS[method]


def reducer_class(part: ReductionConfig) -> type[TokenReducer]:
    """Return the class that carries out a part of a schedule."""
    return method_class(part.method, part.site)


def build_reducer(
    config: ReductionConfig, width: int, text_width: int | None = None, *, in_decoder: bool = False
) -> TokenReducer:
    """Make the module that carries out one part of a schedule.

    Args:
        config: the part.
        width: width of the image tokens at its site.
        text_width: width of the text tokens there; None if it is the same.
        in_decoder: whether the model is a decoder ([`TokenReducer.in_decoder`]).

    Raises:
        ValueError: a decoder cannot do what the part asks for ([`ReductionConfig.check_decoder`]).
    """
    if in_decoder:
        config.check_decoder()
    method = reducer_class(config)
    reducer = method(config, width, text_width) if method.uses_text else method(config, width)
    reducer.in_decoder = in_decoder
    return reducer


__all__ = [
    "METHODS",
    "AnyReduction",
    "PlainSchedule",
    "ReductionConfig",
    "Schedule",
    "TokenReducer",
    "build_reducer",
    "method_class",
    "parse_method",
    "parse_reduction",
    "reducer_class",
    "register_method",
]
