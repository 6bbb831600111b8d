"""Pictures of what each layer kept, pruned and merged."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from PIL import Image as PILImage
from torch import Tensor
from transformers import ProcessorMixin

from ..images import ImageSource
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.encoders.heads import num_images
from ..models.families import patch_size
from ..tokens import LayerTrace
from .counts import patches_sentence, text_padding
from .drawing import draw_token_map, enlarged, looks, token_marks
from .maps import merged_words, patch_index, real_patches, token_map
from .panels import Panel, stack, tile
from .prediction import encode, run, text_tokens

LEGEND = {
    "stays": "Shown as it is: the patch stays, with a token of its own.",
    "shares": "Outlined: patches with the same number share a token. They were merged.",
    "gone": "Pale and hatched: the patch is gone. It was pruned, and the later layers do not see it.",
}
"""What the look of a patch means."""
MAX_COLUMNS = 2
"""How many panels stand in a row, so that one can see them on a phone too."""


def draw_layers(
    model: PuMerPreTrainedModel,
    processor: ProcessorMixin,
    image: ImageSource | Sequence[ImageSource],
    text: str,
    max_columns: int = MAX_COLUMNS,
    keep_aspect_ratio: bool | None = None,
) -> PILImage.Image:
    """Draw a strip that shows how the model reduces an image and a text: the image, then what each layer left.

    `LEGEND` says what the look of a patch means. The picture has the part of it that it needs.

    Args:
        model: a model of any family, with any head.
        processor: the processor of the checkpoint.
        image: what [`open_image`] takes, of any size. If the model takes several images (NLVR2), a list of them; each
            has a row.
        text: a question, a hypothesis, a caption or a statement.
        max_columns: panels per row.
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
    max_columns: int = MAX_COLUMNS,
) -> PILImage.Image:
    """Draw the strip of [`draw_layers`] for a run that has been made.

    Args:
        model: the model that ran.
        processor: the processor of the checkpoint.
        inputs: the inputs of one example.
        traces: `outputs.reduction` of that run.
        max_columns: panels per row.
    """
    return strip(trace_panels(model, processor, inputs, traces), max_columns)


def strip(
    rows: Sequence[Sequence[Panel]], max_columns: int = MAX_COLUMNS, legend: Mapping[str, str] = LEGEND
) -> PILImage.Image:
    """Join the rows of [`trace_panels`] in one picture, with the legend once at the end."""
    *before, last = rows
    seen = frozenset().union(*(panel.looks for row in before for panel in row))
    last = [replace(last[0], looks=last[0].looks | seen), *last[1:]]
    return stack([*(tile(row, max_columns) for row in before), tile(last, max_columns, legend)])


def trace_panels(
    model: PuMerPreTrainedModel, processor: ProcessorMixin, inputs: dict[str, Tensor], traces: Sequence[LayerTrace]
) -> list[list[Panel]]:
    """Return a row of panels for each image: what the model sees, then what each layer left.

    The arguments are those of [`draw_traces`].
    """
    return [
        _panels(model, processor, inputs, [trace for trace in traces if trace.image_index == index], index)
        for index in range(num_images(model))
    ]


def _image(batch: Tensor | None, index: int, model: PuMerPreTrainedModel) -> Tensor | None:
    """Return one image of the only example in a batch."""
    if batch is None:
        return None
    return batch[0, index] if num_images(model) > 1 else batch[0]


def _panels(
    model: PuMerPreTrainedModel,
    processor: ProcessorMixin,
    inputs: dict[str, Tensor],
    traces: Sequence[LayerTrace],
    image_index: int,
) -> list[Panel]:
    """Return the panels of one image; `traces` are those about it."""
    pixel_values, pixel_mask = (
        _image(inputs.get(name), image_index, model) for name in ("pixel_values", "pixel_mask")
    )
    assert pixel_values is not None
    real = real_patches(model.config, pixel_values, pixel_mask)
    index = patch_index(model.config, real)
    rows, columns = int(real.any(dim=1).sum()), int(real.any(dim=0).sum())
    height, width = patch_size(model.config)
    picture = seen_picture(processor, pixel_values).crop((0, 0, columns * width, rows * height))
    words = text_tokens(processor, inputs["input_ids"][0])
    padding = int((inputs["attention_mask"][0] == 0).sum())
    caption = [f"what the model sees: {rows} x {columns} patches", token_counts(len(words), padding, 1 + len(index))]
    alt = f"The image as the model sees it, in {rows} rows and {columns} columns of patches."
    panels = [Panel(enlarged(picture), caption, alt)]
    grid = (real.shape[0], real.shape[1])
    maps = [token_map(trace, grid, patches=index)[:rows, :columns] for trace in traces]
    marks = token_marks(maps)
    for trace, tokens in zip(traces, maps, strict=True):
        drawn = draw_token_map(picture, tokens, marks)
        where = trace.place if trace.site == "inputs" else f"after {trace.place}"
        alt = f"The image {where}: {patches_sentence(tokens)}."
        panels.append(Panel(drawn, layer_caption(trace, tokens, words), alt, looks(tokens)))
    return panels


def token_counts(num_text: int, padding: int, num_image: int) -> str:
    """Say how many tokens there are; `padding` is how many of the text tokens are padding."""
    text = f"{num_text} text ({padding} padding)" if padding else f"{num_text} text"
    return f"{text} and {num_image} image tokens"


def layer_caption(trace: LayerTrace, tokens: Tensor, words: Sequence[str]) -> list[str]:
    """Return the caption that says what a layer left; `tokens` comes from [`token_map`]."""
    if trace.site == "tower":  # the text is not there yet
        return [f"{trace.place}: {trace.num_image} image tokens", patches_sentence(tokens)]
    title = f"{trace.place}: {token_counts(trace.num_text, text_padding(trace), trace.num_image)}"
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
