"""Pictures of what each layer kept, pruned and merged."""

import colorsys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw
from PIL.Image import Resampling
from torch import Tensor
from transformers import ProcessorMixin

from ..images import ImageSource
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.encoders.heads import num_images
from ..models.families import patch_size
from ..tokens import LayerTrace
from .counts import patches_sentence
from .maps import merged_words, patch_index, real_patches, token_map
from .panels import Panel, stack, tile
from .prediction import encode, run, text_tokens

MIN_SIDE = 320
"""Pictures are scaled up by a whole number, so that each side has at least so many pixels."""
PRUNED_COLOUR = (58, 58, 66)
PRUNED_OPACITY = 0.86
MERGED_OPACITY = 0.5
STROKE = (120, 120, 130)
BORDER = (140, 140, 148)
"""A colour that one can see on black and on white."""
GOLDEN_RATIO = 0.618034
LEGEND = {
    "stays": "A patch as it was, in a thin frame, stays: it has a token of its own.",
    "shares": "Patches of one colour share a token: they were merged.",
    "gone": "A dark patch with a stroke is gone: it was pruned, and the later layers do not see it.",
}
"""What the look of a patch means."""
Palette = Mapping[int, tuple[int, int, int]]
"""The colours of merged tokens, by the index of their first patch."""


def draw_layers(
    model: PuMerPreTrainedModel,
    processor: ProcessorMixin,
    image: ImageSource | Sequence[ImageSource],
    text: str,
    max_columns: int | None = None,
    keep_aspect_ratio: bool | None = None,
) -> PILImage.Image:
    """Draw a strip that shows how the model reduces an image and a text: the image, then what each layer left.

    `LEGEND` says what the look of a patch means. It stands under the first picture.

    Args:
        model: a model of any family, with any head.
        processor: the processor of the checkpoint.
        image: what [`open_image`] takes, of any size. If the model takes several images (NLVR2), a list of them; each
            has a row.
        text: a question, a hypothesis, a caption or a statement.
        max_columns: panels per row; default: all in one row.
        keep_aspect_ratio: the argument of [`encode_example`].

    Raises:
        ValueError: the model does not reduce, or takes another number of images.
    """
    check_reduces(model)
    inputs = encode(model, processor, image, text, keep_aspect_ratio)
    return draw_traces(model, processor, inputs, run(model, inputs).reduction, max_columns)


def check_reduces(model: PuMerPreTrainedModel) -> None:
    """Raise `ValueError` if the model reduces nothing."""
    if model.reduction is None:
        raise ValueError(
            "the model reduces no tokens (config.reduction is None), so there is nothing to show: "
            'model.set_reduction({"method": "pumer", "layers": [2, 5, 8], ...})'
        )


def draw_traces(
    model: PuMerPreTrainedModel,
    processor: ProcessorMixin,
    inputs: dict[str, Tensor],
    traces: Sequence[LayerTrace],
    max_columns: int | None = None,
) -> PILImage.Image:
    """Draw the strip of [`draw_layers`] for a run that has been made.

    Args:
        model: the model that ran.
        processor: the processor of the checkpoint.
        inputs: the inputs of one example.
        traces: `outputs.reduction` of that run.
        max_columns: panels per row; default: all in one row.
    """
    return strip(trace_panels(model, processor, inputs, traces), max_columns)


def strip(
    rows: Sequence[Sequence[Panel]], max_columns: int | None = None, legend: Mapping[str, str] = LEGEND
) -> PILImage.Image:
    """Join the rows of [`trace_panels`] in one picture, with the legend."""
    drawn = []
    for first, *others in rows:
        panels = [replace(first, caption=[*first.caption, *legend.values()]), *others]
        drawn.append(tile(panels, max_columns or len(panels)))
    return stack(drawn)


def trace_panels(
    model: PuMerPreTrainedModel, processor: ProcessorMixin, inputs: dict[str, Tensor], traces: Sequence[LayerTrace]
) -> list[list[Panel]]:
    """Return a row of panels for each image: what the model sees, then what each layer left.

    The arguments are those of [`draw_traces`].
    """
    words = text_tokens(processor, inputs["input_ids"][0])
    rows = []
    for index in range(num_images(model)):
        pixels, mask = (_image(inputs.get(name), index, model) for name in ("pixel_values", "pixel_mask"))
        assert pixels is not None
        traces_of_image = [trace for trace in traces if trace.image_index == index]
        rows.append(_panels(model, processor, pixels, mask, traces_of_image, words))
    return rows


def _image(batch: Tensor | None, index: int, model: PuMerPreTrainedModel) -> Tensor | None:
    """Return one image of the only example in a batch."""
    if batch is None:
        return None
    return batch[0, index] if num_images(model) > 1 else batch[0]


def _panels(
    model: PuMerPreTrainedModel,
    processor: ProcessorMixin,
    pixel_values: Tensor,
    pixel_mask: Tensor | None,
    traces: Sequence[LayerTrace],
    words: Sequence[str],
) -> list[Panel]:
    real = real_patches(model.config, pixel_values, pixel_mask)
    index = patch_index(model.config, real)
    rows, columns = int(real.any(dim=1).sum()), int(real.any(dim=0).sum())
    height, width = patch_size(model.config)
    picture = seen_picture(processor, pixel_values).crop((0, 0, columns * width, rows * height))
    num_image = 1 + len(index)
    title = f"what the model sees: {rows} x {columns} patches"
    alt = f"The image as the model sees it, in {rows} rows and {columns} columns of patches."
    panels = [Panel(enlarged(picture), [title, f"{len(words)} text and {num_image} image tokens"], alt)]
    grid = (real.shape[0], real.shape[1])
    maps = [token_map(trace, grid, patches=index)[:rows, :columns] for trace in traces]
    palette = token_colours(maps)
    for trace, tokens in zip(traces, maps, strict=True):
        drawn = draw_token_map(picture, tokens, palette)
        where = trace.place if trace.site == "inputs" else f"after {trace.place}"
        alt = f"The image {where}: {patches_sentence(tokens)}."
        panels.append(Panel(drawn, layer_caption(trace, tokens, words), alt))
    return panels


def layer_caption(trace: LayerTrace, tokens: Tensor, words: Sequence[str]) -> list[str]:
    """Return the caption that says what a layer left; `tokens` comes from [`token_map`]."""
    if trace.site == "tower":  # the text is not there yet
        return [f"{trace.place}: {trace.num_image} image tokens", patches_sentence(tokens)]
    title = f"{trace.place}: {trace.num_text} text and {trace.num_image} image tokens"
    return [title, patches_sentence(tokens), *words_caption(merged_words(trace, words))]


def words_caption(groups: Sequence[Sequence[str]]) -> list[str]:
    """Return a line that says which words were merged; nothing if each token holds a single word."""
    merged = [" + ".join(group) for group in groups if len(group) > 1]
    return [f"words merged: {', '.join(merged)}"] if merged else []


def seen_picture(processor: ProcessorMixin, pixel_values: Tensor) -> PILImage.Image:
    """Turn the `pixel_values` of one image, float (3, height, width), back into a picture: what the model sees."""
    image_processor = processor.image_processor
    pixels = pixel_values.float().cpu()
    if image_processor.do_normalize:
        mean, std = (pixels.new_tensor(values) for values in (image_processor.image_mean, image_processor.image_std))
        pixels = pixels * std.view(-1, 1, 1) + mean.view(-1, 1, 1)
    return PILImage.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def enlarged(picture: PILImage.Image) -> PILImage.Image:
    """Scale a picture up if a side has fewer than `MIN_SIDE` pixels. Each pixel becomes a square."""
    factor = -(-MIN_SIDE // min(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Resampling.NEAREST)


def token_colours(maps: Sequence[Tensor]) -> Palette:
    """Choose colours for the merged tokens in several maps from [`token_map`], as different as possible.

    The colour belongs to the first patch of a token. So a token keeps its colour from layer to layer, until an earlier
    patch is merged into it.
    """
    firsts = sorted({first for tokens in maps for _, first in _merged_tokens(tokens.numpy())})
    return {first: _colour(rank) for rank, first in enumerate(firsts)}


def _merged_tokens(grid: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield each token that holds several patches, with the index of its first patch."""
    for token, first, size in zip(*np.unique(grid, return_index=True, return_counts=True), strict=True):
        if token >= 0 and size > 1:
            yield int(token), int(first)


def _colour(rank: int) -> tuple[int, int, int]:
    saturation, value = ((0.95, 1.0), (0.6, 1.0), (0.85, 0.75))[rank % 3]
    red, green, blue = colorsys.hsv_to_rgb(rank * GOLDEN_RATIO % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_token_map(picture: PILImage.Image, tokens: Tensor, palette: Palette | None = None) -> PILImage.Image:
    """Draw a picture with its pruned patches dark, and its merged patches in the colours of their tokens.

    Args:
        picture: the picture that the patches cover.
        tokens: long (rows, columns), from [`token_map`].
        palette: the colours of the merged tokens; default: [`token_colours`] of this map alone.
    """
    grid = tokens.numpy()
    palette = token_colours([tokens]) if palette is None else palette
    colours, opacity = np.zeros((*grid.shape, 3)), np.zeros(grid.shape)
    colours[grid == -1], opacity[grid == -1] = PRUNED_COLOUR, PRUNED_OPACITY
    merged = {token: palette[first] for token, first in _merged_tokens(grid)}
    for token, colour in merged.items():
        colours[grid == token], opacity[grid == token] = colour, MERGED_OPACITY
    picture = enlarged(picture)
    row_of = np.arange(picture.height) * grid.shape[0] // picture.height
    column_of = np.arange(picture.width) * grid.shape[1] // picture.width
    cells = np.ix_(row_of, column_of)
    pixels = np.asarray(picture, dtype=float)
    mixed = pixels + (colours[cells] - pixels) * opacity[cells][:, :, None]
    drawn = PILImage.fromarray(mixed.round().astype(np.uint8))
    _outline(drawn, grid, merged)
    return drawn


def _outline(picture: PILImage.Image, grid: np.ndarray, merged: Palette) -> None:
    """Draw the borders between tokens, and a stroke through each pruned patch. `merged` has the colours by token."""
    pen = ImageDraw.Draw(picture)
    rows, columns = grid.shape
    for row, column in np.ndindex(rows, columns):
        token = int(grid[row, column])
        left, right = (place * picture.width // columns for place in (column, column + 1))
        top, bottom = (place * picture.height // rows for place in (row, row + 1))
        if token == -1:
            pen.line((left + 3, bottom - 4, right - 4, top + 3), fill=STROKE)
            continue
        thickness = 3 if token in merged else 1
        sides = {
            (row - 1, column): (left, top, right - 1, top + thickness - 1),
            (row + 1, column): (left, bottom - thickness, right - 1, bottom - 1),
            (row, column - 1): (left, top, left + thickness - 1, bottom - 1),
            (row, column + 1): (right - thickness, top, right - 1, bottom - 1),
        }
        for (y, x), side in sides.items():
            if not (0 <= y < rows and 0 <= x < columns and grid[y, x] == token):
                pen.rectangle(side, fill=merged.get(token, BORDER))
