"""Our `reduction`, from the flat `config.json` of a checkpoint released with PuMer."""

from collections.abc import Mapping
from typing import Any

SALIENCIES = {"mean_head": "mean_head", "mh": "mean_head", "first_head": "first_head", "fh": "first_head"}


def released_vilt_reduction(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schedule of a released ViLT ([`released_reduction`]). It counts its layers as we do."""
    schedule = released_reduction(config)
    return None if schedule is None else {**schedule, "saliency": released_saliency(config)}


def released_meter_reduction(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schedule of a released METER ([`released_reduction`]).

    The released code counts the text layer and the image layer of a block, so its layer `2 * b` is our block `b`. It
    ignores `sim_method` and `merge_style`.
    """
    schedule = released_reduction(config)
    if schedule is None:
        return None
    odd = [layer for layer in schedule["layers"] if layer % 2]
    if odd:
        raise ValueError(
            f"reduce_layers={schedule['layers']}: METER counts its blocks 0, 2, 4, ..., so {odd} name no block"
        )
    return {**schedule, "layers": [layer // 2 for layer in schedule["layers"]]}


def released_reduction(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schedule that a released checkpoint was trained with; None if it reduces nothing.

    Its layers are numbered as in the released code. A released model reduces only where it prunes: without `prune_r`
    the merging ratios have no effect.

    Args:
        config: the content of `config.json`.

    Raises:
        ValueError: the checkpoint reduces in a way that is not supported.
    """
    if config.get("prune_layers"):
        raise ValueError(f"prune_layers={config['prune_layers']!r}: checkpoints with a token pruner are not supported")
    merge_ratio = config.get("merge_r") or 0
    if merge_ratio >= 1:
        raise ValueError(f"merge_r={merge_ratio!r} is a number of tokens: only ratios in [0, 1) are supported")
    layers = parse_layers(config.get("reduce_layers"))
    prune_ratio = config.get("prune_r") or 0
    if not layers or prune_ratio == 0:
        return None
    return {
        "method": "pumer",
        "layers": layers,
        "prune_ratio": prune_ratio,
        "image_merge_ratio": merge_ratio,
        "text_merge_ratio": config.get("merge_text") or 0,
        "saliency": "mean_head",
    }


def released_saliency(config: Mapping[str, Any]) -> str:
    """Return the `saliency` of a released ViLT."""
    style, method = config.get("merge_style", "tome"), config.get("sim_method", "mean_head")
    if style != "tome":
        raise ValueError(f"merge_style={style!r} is not supported: only 'tome', the one of PuMer, is")
    if method not in SALIENCIES:
        raise ValueError(f"sim_method={method!r} is not supported: only {', '.join(SALIENCIES)} are")
    return SALIENCIES[method]


def parse_layers(layers: Any) -> list[int]:
    """Read `reduce_layers`, a list or a string such as `"2,5,8"`, as ascending numbers without repeats."""
    if isinstance(layers, str):
        layers = [part for part in layers.strip("[]() ").split(",") if part.strip()]
    try:
        return sorted({int(layer) for layer in layers or ()})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"reduce_layers={layers!r}: give a list of layer numbers, or a string such as '2,5,8'"
        ) from error
