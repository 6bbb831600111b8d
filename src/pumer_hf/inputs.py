"""From an image and a text to model inputs: the same in training, in the pipeline, in pictures and on the page."""

from collections.abc import Sequence
from typing import Any

from PIL import Image as PILImage
from PIL.Image import Resampling
from torch import Tensor
from transformers import ProcessorMixin
from transformers.models.vilt.image_processing_pil_vilt import MAX_LONGER_EDGE, MAX_SHORTER_EDGE

from .images import DataError, ImageSource, image_name, located, open_image
from .models.encoders.base import PuMerPreTrainedModel
from .models.encoders.heads import ImagesClassifierHead, num_images

TEXT_LENGTH = 40
"""Tokens that a text is padded to, if the model takes so many: what the recipes and the paper use at most. RoBERTa's
512 positions would be mostly padding."""


def encode_example(
    model: PuMerPreTrainedModel,
    processor: ProcessorMixin,
    image: ImageSource | Sequence[ImageSource],
    text: str,
    max_text_length: int | None = None,
    keep_aspect_ratio: bool = False,
    origin: str = "",
) -> dict[str, Tensor]:
    """The inputs of the model for one example, as in training: a batch of one, on the CPU.

    Args:
        model: of either family.
        processor: of the checkpoint.
        image: what [`open_image`] takes, of any size; a list where the model takes several (NLVR2).
        text: a question, a hypothesis, a caption or a statement; one that is too long is cut.
        max_text_length: tokens that the text is padded to; default: `TEXT_LENGTH`, or what the model takes.
        keep_aspect_ratio: else images become squares; METER always makes squares, and refuses it.
        origin: where the example is from, for error messages.

    Raises:
        ValueError: the text is empty or no Unicode, an image cannot be read or is too long for `keep_aspect_ratio`, or
            there are more or fewer images than the model takes.
    """
    if not text.strip():
        raise ValueError(f"text={text!r}: must not be empty")
    check_unicode(text, located("text", origin))
    images: list[Any] = list(image) if isinstance(image, (list, tuple)) else [image]
    if len(images) != num_images(model):
        raise ValueError(f"{len(images)} images are given, but {type(model).__name__} takes {num_images(model)}")
    inputs = processor(
        images=[ready_image(one, processor, keep_aspect_ratio, origin) for one in images],
        text=[text],
        padding="max_length",
        max_length=text_length(model, max_text_length),
        truncation=True,
        return_tensors="pt",
    )
    drop_full_mask(inputs)
    if isinstance(model, ImagesClassifierHead):
        inputs |= {name: value.unsqueeze(0) for name, value in inputs.items() if name.startswith("pixel")}
    return dict(inputs)


def text_length(model: PuMerPreTrainedModel, max_text_length: int | None = None) -> int:
    """Tokens that a text is padded and cut to: `max_text_length`, or else `TEXT_LENGTH` or what the model takes."""
    return max_text_length or min(TEXT_LENGTH, model.config.max_text_length)


def ready_image(
    source: ImageSource, processor: ProcessorMixin, keep_aspect_ratio: bool = False, origin: str = ""
) -> PILImage.Image:
    """Open an image as the processor is to get it: squeezed into a square, if nothing else makes a square.

    Args:
        source: what [`open_image`] takes.
        processor: of the checkpoint. One that makes squares, by resizing (METER) or by cutting out the middle (METER
            as first published), gets the image as it is.
        keep_aspect_ratio: make no square.
        origin: where the image is from, for error messages.

    Raises:
        DataError: the image cannot be read, or it is so long that ViLT would see no patch of its shorter side.
        ValueError: the aspect ratio is to be kept, but the processor makes squares.
    """
    check_aspect_ratio(processor, keep_aspect_ratio)
    image = open_image(source, origin)
    if makes_squares(processor):
        return image
    side = processor.image_processor.size["shortest_edge"]
    if not keep_aspect_ratio:
        return image.resize((side, side), Resampling.BICUBIC)
    shorter, longer = sorted(image.size)
    patch, longest = processor.image_processor.size_divisor, int(MAX_LONGER_EDGE / MAX_SHORTER_EDGE * side)
    if int(shorter * min(side / shorter, longest / longer) + 0.5) < patch:
        message = (
            f"keep_aspect_ratio=True: the image {image_name(source)} has {image.width} x {image.height} pixels: once "
            f"its longer side fits into {longest}, the shorter one is less than a patch ({patch}); cut it, or make "
            "squares"
        )
        raise DataError(located(message, origin))
    return image


def check_aspect_ratio(processor: ProcessorMixin, keep_aspect_ratio: bool, name: str = "keep_aspect_ratio") -> None:
    """Raise `ValueError`, naming the argument, if images are to keep a shape that the processor changes."""
    if keep_aspect_ratio and makes_squares(processor):
        raise ValueError(f"{name}=True: the image processor makes squares of all images (METER)")


def makes_squares(processor: ProcessorMixin) -> bool:
    """Whether the processor itself makes squares of images of any shape."""
    image_processor = processor.image_processor
    return bool(image_processor.size["shortest_edge"] is None or image_processor.do_center_crop)


def seen_part(size: tuple[int, int], processor: ProcessorMixin) -> tuple[float, float, float, float]:
    """The part of an image that the model sees: left, top, right and bottom edge in pixels.

    It is the whole image, unless the processor cuts out the middle; then it may go beyond the image.

    Args:
        size: width and height of the image in pixels.
        processor: of the checkpoint.
    """
    width, height = size
    image_processor = processor.image_processor
    if not image_processor.do_center_crop:
        return 0, 0, width, height
    resized, crop = image_processor.size, image_processor.crop_size
    short = resized["shortest_edge"]
    scale_x, scale_y = (
        (resized["width"] / width, resized["height"] / height) if short is None else (short / min(size),) * 2
    )
    across, down = crop["width"] / scale_x / 2, crop["height"] / scale_y / 2
    return width / 2 - across, height / 2 - down, width / 2 + across, height / 2 + down


def check_unicode(text: str, what: str) -> None:
    """Raise `ValueError` if a text holds half a character (a lone surrogate), which no tokenizer takes.

    Args:
        text: any.
        what: to call it in the message.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} holds half a character, {text[error.start]!r}: remove or complete it") from error


def drop_full_mask(inputs: dict[str, Tensor]) -> None:
    """Remove `pixel_mask` where no pixel is padding: the model is faster without."""
    if "pixel_mask" in inputs and inputs["pixel_mask"].all():
        del inputs["pixel_mask"]
