"""The schedules that a tuning with data compares. They need no training, or the model has learned what they need."""

from typing import Any

from ..reducers import METHODS, PlainSchedule, Schedule, parse_reduction
from ..reducers.base import Layout
from ..reducers.lookahead import LookaheadReductionConfig

BEFORE_LAYERS = ("pumer", "diverse", "tome", "random")
"""Methods that reduce before the first layer and need no training."""
SPLITS = {
    "": {"prune_ratio": 0.2, "image_merge_ratio": 0.2},
    ", prunes": {"prune_ratio": 0.3, "image_merge_ratio": 0.0},
    ", merges": {"prune_ratio": 0.0, "image_merge_ratio": 0.3},
}
"""How PuMer's budget is split between pruning and merging, by the end of the candidate's name."""
AMOUNTS = ("num_keep", "keep_mass", "min_keep", "max_keep")
"""The fields of `lookahead` in whose place a `keep_ratio` is scaled."""
TEXT = 0.2
"""How much of the text PuMer merges, in the candidates that also reduce the text of an encoder."""


def candidates(config: Any) -> dict[str, PlainSchedule]:
    """Return the schedules to compare, by name. Only the relation of their ratios counts, since they are scaled.

    - that of the checkpoint, if it has one;
    - in layers: PuMer that prunes and merges, prunes alone, and merges alone, from a quarter of the layers on, in an
      encoder also with the text; PuMer from the first layer on, and from the middle on; ToMe in all layers; FastV
      after a quarter of the layers, and in the middle; random pruning;
    - before the layers: PuMer, `diverse`, ToMe and random pruning; in METER, ToMe in the image tower;
    - both: PuMer before the layers and in them;
    - `lookahead`, alone and before PuMer, if the model has a scorer of its own.

    Args:
        config: that of the model. It knows the sites and the layers.
    """
    found: dict[str, PlainSchedule] = {}
    own: Schedule | None = config.schedule
    if own is not None and all(part.method in METHODS for part in own.parts):
        found["of the checkpoint"] = own.to_dict()
    inside = in_layers(config.layout) if "layers" in config.sites else {}
    found |= inside
    found |= {f"{name} at inputs": {"method": name, "site": "inputs"} for name in BEFORE_LAYERS}
    if "tower" in config.sites:
        found["tome in the tower"] = {"method": "tome", "site": "tower"}
    pumer = inside.get("pumer")
    if pumer is not None:
        found["pumer at inputs and in layers"] = [{"method": "pumer", "site": "inputs"}, pumer]
    for part in () if own is None else own.parts:
        if isinstance(part, LookaheadReductionConfig) and part.site == "inputs":
            chosen = {name: value for name, value in part.to_dict().items() if name not in AMOUNTS}
            chosen["keep_ratio"] = 0.5
            found["lookahead"] = chosen
            if pumer is not None:
                found["lookahead and pumer"] = [chosen, pumer]
    return distinct(found, config)


def in_layers(layout: Layout) -> dict[str, dict[str, Any]]:
    """Return the candidates that reduce in layers alone."""
    last = layout.all_layers("layers")[-1]
    quarter, middle = layout.quarters("layers")[0], max(layout.depths["layers"] // 2 - 1, layout.first_layer)
    found: dict[str, dict[str, Any]] = {}
    for end, split in SPLITS.items():
        found[f"pumer{end}"] = {"method": "pumer", "layers": stages(quarter, last), **split}
    if not layout.in_decoder:
        found["pumer, of text too"] = {**found["pumer"], "text_merge_ratio": TEXT}
    for place, layer in {"first": layout.first_layer, "middle": middle}.items():
        found[f"pumer from the {place} layer"] = {"method": "pumer", "layers": stages(layer, last), **SPLITS[""]}
    found["tome"] = {"method": "tome", "layers": layout.all_layers("layers"), "merge_ratio": 0.1}
    found["fastv"] = {"method": "fastv", "layers": [quarter], "prune_ratio": 0.5}
    found["fastv in the middle"] = {"method": "fastv", "layers": [middle], "prune_ratio": 0.5}
    found["random"] = {"method": "random", "layers": stages(quarter, last), "prune_ratio": 0.3}
    return found


def stages(first: int, last: int) -> list[int]:
    """Return three layers: the first one, and those after a third and two thirds of the layers up to the last one."""
    return sorted({first + (last + 1 - first) * step // 3 for step in range(3)})


def distinct(found: dict[str, PlainSchedule], config: Any) -> dict[str, PlainSchedule]:
    """Return candidates without those that equal an earlier one. In a model of few layers, some do."""
    kept: dict[str, PlainSchedule] = {}
    seen: list[Schedule | None] = []
    for name, plain in found.items():
        parts = [dict(part) for part in (plain if isinstance(plain, list) else [plain])]
        parts[0]["flops"] = 0.5  # so that layers and ratios may be left out
        schedule = parse_reduction(parts, config.layout)
        if schedule not in seen:
            seen.append(schedule)
            kept[name] = plain
    return kept
