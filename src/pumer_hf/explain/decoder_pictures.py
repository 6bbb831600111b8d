"""Pictures of the image tokens that a decoder model kept, dropped and merged before its first layer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import torch
from PIL import Image as PILImage
from PIL.Image import Resampling
from torch import Tensor
from transformers import ProcessorMixin

from ..models.decoders.family import DecoderFamily
from ..models.decoders.grids import TokenGrid
from ..models.decoders.images import ImageTrace
from ..models.decoders.modeling import ReducedDecoder
from ..models.families import DECODERS
from .counts import patches_sentence
from .drawing import draw_token_map, enlarged, looks
from .panels import Panel
from .pictures import LEGEND, MAX_COLUMNS, seen_picture, strip

DECODER_LEGEND = {
    **LEGEND,
    "gone": "Pale and hatched: the patch is gone. Its token was dropped, and the decoder does not see it.",
}
"""What the look of a patch means. A patch is the part of the picture that one image token stands for."""
MAX_SIDE = 1024
"""Larger pictures are scaled down to so many pixels a side."""


def drawing_error(family: DecoderFamily) -> ValueError:
    """Return the error of a family that cannot be drawn. It names those that can."""
    titles = ", ".join(row.title for row in DECODERS.values() if row.grids is not None)
    return ValueError(
        f"{family.title}: its image tokens do not lie in the rows of one picture, so what is kept cannot be drawn: "
        f"choose a model of {titles}"
    )


def decoder_panels(
    model: ReducedDecoder,
    processor: ProcessorMixin,
    picture: PILImage.Image,
    inputs: Mapping[str, Tensor],
    traces: Sequence[ImageTrace],
) -> list[Panel]:
    """Return a panel with what the model sees of an image, and one with what it kept, for each tile if it has tiles.

    A model that reduces tokens several times has such panels for each time.

    Args:
        model: the model that ran.
        processor: its processor.
        picture: the image.
        inputs: a prompt with this image alone.
        traces: what became of the image, from [`answering.ask`].

    Raises:
        ValueError: the image tokens of the family cannot be drawn.
    """
    if model.family.grids is None:
        raise drawing_error(model.family)
    times = by_layer(traces)
    tiles = next(iter(times.values()))
    grids = model.family.grids(model.config, inputs, [len(trace.columns) for trace in tiles])
    views = [seen(processor, picture, grid) for grid in grids]
    if len(grids) == 1:
        (grid,), (view,) = grids, views
        size = f"{grid.rows} x {grid.columns} patches"
        first = Panel(enlarged(view), [f"what the model sees: {size}"], f"The image as the model sees it: {size}.")
    else:
        width = enlarged(views[0]).width  # that of the panels of the tiles
        whole = picture.resize((width, max(round(picture.height * width / picture.width), 1)), Resampling.BICUBIC)
        words = f"{len(grids)} tiles, {sum(len(trace.columns) for trace in tiles)} patches"
        first = Panel(whole, [f"the image, cut into {words}"], f"The whole image, which is cut into {words}.")
    panels = [first]
    shown = tiles
    for layer, found in times.items():
        shown = tiles if found is tiles else [followed(trace, found) for trace in shown]
        panels += map(kept_panel, panel_names(layer, len(grids)), views, grids, shown)
    return panels


def by_layer(traces: Sequence[ImageTrace]) -> dict[int | None, list[ImageTrace]]:
    """Return traces by the layer after which the tokens were reduced, in their order; None is before the decoder."""
    found: dict[int | None, list[ImageTrace]] = {}
    for trace in traces:
        found.setdefault(trace.layer, []).append(trace)
    return found


def followed(trace: ImageTrace, later: Sequence[ImageTrace]) -> ImageTrace:
    """Return what a later reduction left of the tokens of an image, of all that it began with.

    Args:
        trace: what an earlier reduction left of them.
        later: what the later one left of the tokens of all images that it got.
    """
    moves = [zip(one.columns.tolist(), one.holder.tolist(), strict=True) for one in later]
    holder_of = dict(chain.from_iterable(moves))
    holder = [holder_of.get(place, -1) for place in trace.holder.tolist()]
    own = set(trace.columns.tolist())
    kept = sorted(own.intersection(holder))
    order = {place: index for index, place in enumerate(kept)}
    return replace(
        trace,
        holder=torch.tensor(holder),
        source=torch.tensor([order.get(place, -1) for place in holder]),
        kept=torch.tensor(kept, dtype=torch.long),
    )


def panel_names(layer: int | None, number: int) -> list[str]:
    """Return what the panels of an image are called, one for each of its tiles.

    Args:
        layer: the layer after which its tokens were reduced; None before the decoder.
        number: how many tiles it has.
    """
    place = "before the decoder" if layer is None else f"after layer {layer}"
    if number == 1:
        return [place]
    return [f"tile {index + 1}" + ("" if layer is None else f" {place}") for index in range(number)]


def joined(panels: Sequence[Panel]) -> PILImage.Image:
    """Return panels as one picture, with the legend."""
    return strip([panels], MAX_COLUMNS, DECODER_LEGEND)


def seen(processor: ProcessorMixin, picture: PILImage.Image, grid: TokenGrid) -> PILImage.Image:
    """Return a picture as the image encoder gets it, at most `MAX_SIDE` pixels a side."""
    if grid.pixels is not None:
        return within(seen_picture(processor, grid.pixels), MAX_SIDE)
    return within(picture.resize((grid.width, grid.height), Resampling.BICUBIC), MAX_SIDE)


def within(picture: PILImage.Image, side: int) -> PILImage.Image:
    """Return a picture, scaled down if a side has more pixels."""
    smaller = picture.copy()
    smaller.thumbnail((side, side))
    return smaller


def kept_panel(name: str, view: PILImage.Image, grid: TokenGrid, trace: ImageTrace) -> Panel:
    """Return the panel of what was kept of an image or a tile.

    Args:
        name: what it is called.
        view: the picture as the image encoder gets it.
        grid: where its tokens lie.
        trace: what became of them.
    """
    tokens = trace.source.cpu().view(grid.rows, grid.columns)
    caption = [f"{name}: {len(trace.kept)} of {len(trace.columns)} image tokens", patches_sentence(tokens)]
    elsewhere = int(((trace.source < 0) & (trace.holder >= 0)).sum())
    if elsewhere:
        caption.append(f"of those that are gone, {elsewhere} went into tokens of other tiles")
    return Panel(draw_token_map(view, tokens), caption, f"The image, {'; '.join(caption)}.", looks(tokens))
