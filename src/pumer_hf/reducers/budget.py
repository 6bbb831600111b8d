"""What a schedule may leave out if it has a budget, `flops`: its layers and ratios are then those of the method."""

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

from .base import Layout, ReductionConfig
from .schedule import Schedule


def with_budget(reduction: Any, flops: Any) -> Any:
    """Return a schedule in plain types, with a budget for all of it.

    Args:
        reduction: a schedule in any form but None, in plain types for a list.
        flops: the budget.

    Raises:
        ValueError: there is nothing to which a budget could apply, or the schedule has one already.
    """
    checked([flops])
    plain = reduction.to_dict() if isinstance(reduction, (Schedule, ReductionConfig)) else reduction
    given = [] if plain is None else plain if isinstance(plain, (list, tuple)) else [plain]
    parts = [part.to_dict() if isinstance(part, ReductionConfig) else part for part in given]
    if not all(isinstance(part, Mapping) for part in parts):
        raise ValueError(f"reduction={reduction!r}: give a dict, a ReductionConfig or None, or a list of several")
    parts = [dict(part) for part in parts]
    if any(part.get("flops") is not None for part in parts):
        raise ValueError(f"reduction.flops stands in the schedule, and beside it as flops={flops!r}: give it once")
    if not parts or "method" not in parts[0] or parts[0]["method"] == "none":
        raise ValueError(f"reduction.flops={flops!r}: say which method shall meet it, such as method='pumer'")
    parts[0]["flops"] = flops
    return parts if isinstance(plain, (list, tuple)) else parts[0]


def split_budget(parts: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], float | None]:
    """Take the budget out of the dicts of a schedule. It stands in one of them, and is meant for all.

    Returns:
        The dicts without it; and the budget, None if there is none.

    Raises:
        ValueError: it stands in several of them, or is out of range.
    """
    found = [part["flops"] for part in parts if part.get("flops") is not None]
    if len(found) > 1:
        raise ValueError(f"reduction.flops stands {len(found)} times: give it once, for the whole schedule")
    return [{name: value for name, value in part.items() if name != "flops"} for part in parts], checked(found)


def checked(found: Sequence[Any]) -> float | None:
    """Return the budget as a number; None if there is none.

    Raises:
        ValueError: it is no number in (0, 1).
    """
    if not found:
        return None
    (flops,) = found
    if isinstance(flops, bool) or not isinstance(flops, (int, float)) or not 0 < flops < 1:
        raise ValueError(
            f"reduction.flops={flops!r}: must be a number in (0, 1), the part of the unreduced model's multiply-adds; "
            "reduction=None is the unreduced model"
        )
    return float(flops)


def completed(part: Mapping[str, Any], config_class: type[ReductionConfig], layout: Layout) -> dict[str, Any]:
    """Return the dict of a method with the usual layers and ratios where it has none.

    Args:
        part: the dict.
        config_class: the config of the method at its site.
        layout: that of the model.
    """
    site = part.get("site") or ("layers" if "layers" in config_class.sites else config_class.sites[0])
    amounts = getattr(config_class, "amounts", config_class.ratios)
    usual = {"site": site, **config_class.usual(site, layout)}
    if any(part.get(name) is not None for name in amounts):
        needed = {
            name for name, field in signature(config_class).parameters.items() if field.default is Parameter.empty
        }
        usual = {name: value for name, value in usual.items() if name in {*needed, "site"}}
    if part.get("layers"):
        usual.pop("layers", None)
    return {**usual, **{name: value for name, value in part.items() if name != "layers" or value}}
