"""From an image and a text to model inputs: the same in training, in the pipeline, in pictures and on the page."""

from collections.abc import Sequence

from PIL import Image as PILImage
from PIL.Image import Resampling
from torch import Tensor
from transformers import ProcessorMixin

from .models.base import PuMerPreTrainedModel
from .models.heads import ImagesClassifierHead, num_images

TEXT_LENGTH = 40
"""Tokens that a text is padded to, if the model takes so many: what the recipes and the paper use at most. RoBERTa's
512 positions would be mostly padding."""


def encode_example(
    model: PuMerPreTrainedModel,
    processor: ProcessorMixin,
    image: PILImage.Image | Sequence[PILImage.Image],
    text: str,
    max_text_length: int | None = None,
    keep_aspect_ratio: bool = False,
) -> dict[str, Tensor]:
    """The inputs of the model for one example, as in training: a batch of one, on the CPU.

    Args:
        model: of either family.
        processor: of the checkpoint.
        image: of any size; a list where the model takes several (NLVR2).
        text: a question, a hypothesis, a caption or a statement; one that is too long is cut.
        max_text_length: tokens that the text is padded to; default: `TEXT_LENGTH`, or what the model takes.
        keep_aspect_ratio: else images become squares; METER always makes squares.

    Raises:
        ValueError: the text is empty, or there are more or fewer images than the model takes.
    """
    if not text.strip():
        raise ValueError(f"text={text!r}: must not be empty")
    images = [image] if isinstance(image, PILImage.Image) else list(image)
    if len(images) != num_images(model):
        raise ValueError(f"{len(images)} images are given, but {type(model).__name__} takes {num_images(model)}")
    images = [one.convert("RGB") for one in images]
    inputs = processor(
        images=images if keep_aspect_ratio else [squared(one, processor) for one in images],
        text=[text],
        padding="max_length",
        max_length=max_text_length or min(TEXT_LENGTH, model.config.max_text_length),
        truncation=True,
        return_tensors="pt",
    )
    drop_full_mask(inputs)
    if isinstance(model, ImagesClassifierHead):
        inputs |= {name: value.unsqueeze(0) for name, value in inputs.items() if name.startswith("pixel")}
    return dict(inputs)


def squared(image: PILImage.Image, processor: ProcessorMixin) -> PILImage.Image:
    """An image as a square, where the processor would keep its shape (ViLT)."""
    side = processor.image_processor.size["shortest_edge"]
    return image if side is None else image.resize((side, side), Resampling.BICUBIC)


def drop_full_mask(inputs: dict[str, Tensor]) -> None:
    """Remove `pixel_mask` where no pixel is padding: the model is faster without."""
    if "pixel_mask" in inputs and inputs["pixel_mask"].all():
        del inputs["pixel_mask"]
