"""The table of the checkpoint formats. Each row describes a format, and names the family of the converted model."""

from collections.abc import Mapping

from torch import Tensor

from .configs import meter_values, resize_meter, vilt_values
from .keys import (
    BERT_BUFFERS,
    CLASSIFIER,
    CLIP_TEXT,
    HEADS,
    ORIGINAL_VILT,
    ROBERTA_UNUSED,
    Layout,
    identity,
    meter_table,
)
from .processors import (
    cropping_image_processor,
    released_meter_image_processor,
    square_image_processor,
    stock_image_processor,
    vilt_image_processor,
)

LAYOUTS: dict[str, Layout] = {
    "original_vilt": Layout(
        family="vilt",
        origin="original",
        prefix="",
        table=ORIGINAL_VILT,
        dropped=(*BERT_BUFFERS, "transformer.mask_token"),
        signature="transformer.blocks.",
        heads=HEADS,
        config_values=vilt_values,
        image_processor=vilt_image_processor,
    ),
    "original_meter": Layout(
        family="meter",
        origin="original",
        prefix="",
        table=meter_table("vit_model.visual."),
        dropped=(*ROBERTA_UNUSED, *CLIP_TEXT),
        signature="vit_model.visual.",
        heads=HEADS,
        config_values=meter_values,
        image_processor=cropping_image_processor,
        resize=resize_meter,
    ),
    "released_vilt": Layout(
        family="vilt",
        origin="released",
        prefix="vilt.",
        table=ORIGINAL_VILT,
        dropped=(*BERT_BUFFERS, "transformer.mask_token"),
        signature="transformer.blocks.",
        heads=HEADS,
        config_values=vilt_values,
        image_processor=square_image_processor,
    ),
    "released_meter": Layout(
        family="meter",
        origin="released",
        prefix="meter.",
        table=meter_table("vit_model."),
        dropped=ROBERTA_UNUSED,
        signature="vit_model.",
        heads=HEADS,
        config_values=meter_values,
        image_processor=released_meter_image_processor,
        resize=resize_meter,
    ),
    "stock_vilt": Layout(
        family="vilt",
        origin="stock",
        prefix="vilt.",
        table=identity(ORIGINAL_VILT),
        dropped=tuple(f"embeddings.{name}" for name in BERT_BUFFERS),
        signature="embeddings.patch_embeddings.",
        heads={CLASSIFIER: CLASSIFIER, "rank_output": "retrieval"},
        config_values=vilt_values,
        image_processor=stock_image_processor,
    ),
}


def detect_kind(names: list[str]) -> str:
    """Return the kind of checkpoint, a key of [`LAYOUTS`], that has weights of these names."""
    if any(name.startswith(("vit_model.layers.", "vit_model.patch_embed.")) for name in names):
        raise ValueError(
            "this is a METER with a Swin image tower (vit_model.layers...): only CLIP towers are supported"
        )
    for kind, layout in LAYOUTS.items():
        if any(name.startswith(layout.prefix + layout.signature) for name in names):
            return kind
    if any(name.startswith("embeddings.patch_embeddings.") for name in names):
        return "stock_vilt"
    raise ValueError(
        f"cannot tell what checkpoint this is: its names begin with {', '.join(names[:3])}. Known are "
        f"{', '.join(LAYOUTS)}; choose one with kind="
    )


def without_wrapper(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix that a wrapper of the model has put before all names of the weights.

    DDP, `torch.compile` and trainers put `module.`, `_orig_mod.`, `model.` or another prefix there.

    Raises:
        ValueError: only some names have the prefix. The message names it.
    """
    by_prefix = sorted(LAYOUTS.values(), key=lambda layout: not layout.prefix)
    starts = dict.fromkeys(
        start for layout in by_prefix for start in (layout.prefix + layout.signature, layout.signature)
    )
    if any(name.startswith(tuple(starts)) for name in weights):
        return dict(weights)
    for start in starts:
        known = next((name for name in weights if f".{start}" in name), None)
        if known is None:
            continue
        wrapper = known[: known.index(f".{start}") + 1]
        others = [name for name in weights if not name.startswith(wrapper)]
        if others:
            raise ValueError(
                f"the weight {known} is under {wrapper!r}, but {others[0]} is not: give a file with the weights under "
                f"{wrapper!r} alone"
            )
        return {name.removeprefix(wrapper): value for name, value in weights.items()}
    return dict(weights)
