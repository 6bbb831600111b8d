"""Token reduction methods, one file each. To add one: its file, and a line in `METHODS`."""

from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any

from .base import ReductionConfig, TokenReducer
from .dynamicvit import DynamicViTReducer
from .grounded import GroundedReducer
from .pumer import PuMerReducer
from .random import RandomReducer
from .tip import TipReducer
from .tome import ToMeReducer

METHODS: dict[str, type[TokenReducer]] = {
    "pumer": PuMerReducer,
    "tip": TipReducer,
    "tome": ToMeReducer,
    "dynamicvit": DynamicViTReducer,
    "random": RandomReducer,
    "grounded": GroundedReducer,
}


def parse_reduction(reduction: ReductionConfig | dict[str, Any] | None) -> ReductionConfig | None:
    """The schedule that `reduction` describes, checked.

    Args:
        reduction: a config, its dict form (`{"method": "pumer", "layers": [2, 5, 8], ...}`), or None or
            `{"method": "none"}` for a model that reduces nothing.

    Raises:
        ValueError: an unknown method, an unknown or missing field, or a value out of range; the message names it.
    """
    if reduction is None or isinstance(reduction, ReductionConfig):
        return reduction
    if not isinstance(reduction, dict):
        raise ValueError(f"reduction={reduction!r}: give a dict, a ReductionConfig or None")
    values = dict(reduction)
    method = values.pop("method", None)
    if method == "none":
        if values:
            raise ValueError(f"reduction.method='none' takes no other field, but got {sorted(values)}")
        return None
    if method not in METHODS:
        raise ValueError(f"reduction.method={method!r}: choose one of {['none', *METHODS]}")
    config_class = METHODS[method].config_class
    known = fields(config_class)
    names = [field.name for field in known]
    for name in values:
        if name not in names:
            near = get_close_matches(name, names, n=1) or names
            raise ValueError(
                f"reduction.{name} is not a field of method {method!r}: did you mean {' or '.join(near)}?"
            )
    missing = [field.name for field in known if field.default is MISSING and field.name not in values]
    if missing:
        raise ValueError(f"reduction of method {method!r} lacks {', '.join(missing)}")
    return config_class(**values)


def build_reducer(config: ReductionConfig | None, width: int) -> TokenReducer | None:
    """The module that carries out `config` on token states of `width`; None for None."""
    return None if config is None else METHODS[config.method](config, width)


__all__ = ["METHODS", "ReductionConfig", "TokenReducer", "build_reducer", "parse_reduction"]
