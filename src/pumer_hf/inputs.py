"""The way from images and texts to model inputs. Training, the pipeline, the pictures and the page share it."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any

from PIL import Image as PILImage
from PIL.Image import Resampling
from torch import Tensor
from transformers import ProcessorMixin
from transformers.models.vilt.image_processing_pil_vilt import MAX_LONGER_EDGE, MAX_SHORTER_EDGE

from .encoding import EncodingRecord, completed, record_in, with_record
from .images import DataError, ImageSource, image_name, located, open_image
from .models.encoders.base import PuMerPreTrainedModel
from .models.encoders.heads import ImagesClassifierHead, num_images
from .models.loading import load_config, load_processor

MIN_TEXT_LENGTH = 3
"""Tokens of the shortest text: the start token, one word and the end token."""
Images = ImageSource | Sequence[ImageSource]
"""The image of an example, or a list of several."""
Texts = str | Sequence[str]
"""The text of an example, or a list of several."""


class Encoder:
    """Makes the inputs of a model from images and texts, in the same way as in the training of the model.

    A record says how ([`EncodingRecord`]). It is a part of `encoder.processor`, and is saved with it.

    Args:
        processor: the processor of the checkpoint.
        record: how inputs are made; default: the record of the processor, else the defaults of [`EncodingRecord`].
        text_limit: how many tokens the model takes; None if that is not known.

    Raises:
        ValueError: the processor or the model cannot do what the record says.
    """

    def __init__(self, processor: ProcessorMixin, record: EncodingRecord | None = None, text_limit: int | None = None):
        record = record or record_in(processor) or EncodingRecord()
        if record.keep_aspect_ratio and makes_squares(processor):
            raise ValueError("keep_aspect_ratio=True: the image processor makes squares of all images (METER)")
        length = record.max_text_length
        if text_limit is not None and not MIN_TEXT_LENGTH <= length <= text_limit:
            raise ValueError(f"max_text_length={length}: must be in [{MIN_TEXT_LENGTH}, {text_limit}] for this model")
        self.processor, self.record, self.text_limit = with_record(processor, record), record, text_limit

    @classmethod
    def of(cls, model: PuMerPreTrainedModel, processor: ProcessorMixin, **overrides: Any) -> "Encoder":
        """Make the encoder of a loaded model.

        Args:
            model: a model of any family.
            processor: the processor of the checkpoint. If it has no record, the folder or the kind of the model says
                how inputs are made ([`checkpoint_record`]).
            **overrides: fields of the record, as in [`replace`].
        """
        limit = model.config.max_text_length
        return cls(completed(processor, model.name_or_path, limit), None, limit).replace(**overrides)

    @classmethod
    def from_pretrained(cls, source: str | Path, **overrides: Any) -> "Encoder":
        """Make the encoder of a saved model.

        Args:
            source: a folder, or an id on the Hub.
            **overrides: fields of the record, as in [`replace`].

        Raises:
            ValueError: there is no such checkpoint, or it has no processor, or it cannot do what an override says.
        """
        limit = load_config(str(source)).max_text_length
        return cls(load_processor(str(source), limit), None, limit).replace(**overrides)

    def replace(self, **fields: Any) -> "Encoder":
        """Return the same encoder with other fields of its record. None leaves a field as it is.

        Raises:
            ValueError: the processor or the model cannot do that.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        return Encoder(self.processor, replace_fields(self.record, **given), self.text_limit)

    def at_size(self, image_size: int | None) -> "Encoder":
        """Return the same encoder with images of `image_size` pixels a side. For None, return this encoder."""
        if image_size is None:
            return self
        return Encoder(resized_processor(self.processor, image_size), self.record, self.text_limit)

    def save_pretrained(self, folder: str | Path) -> None:
        """Save the processor with its record."""
        self.processor.save_pretrained(folder)

    def __call__(
        self,
        images: Sequence[Images],
        texts: Sequence[Texts],
        origins: Sequence[str] = (),
        augment: Callable[[PILImage.Image], PILImage.Image] | None = None,
    ) -> dict[str, Tensor]:
        """Encode a batch.

        Args:
            images: the image of each example, as [`open_image`] takes it, or a list of images.
            texts: the text of each example, or a list of texts.
            origins: where each example is from, for error messages.
            augment: a function that changes each image, for training.

        Returns:
            `input_ids`, `attention_mask` and (ViLT) `token_type_ids` long (B, max_text_length); `pixel_values` float
            (B, 3, h, w); and, only if some pixel is padding, `pixel_mask` long (B, h, w). Several texts or images per
            example add a second dimension.

        Raises:
            DataError: an image cannot be read, or is too narrow to keep its shape.
        """
        origins = origins or [""] * len(images)
        image_origins = [origin for origin, given in zip(origins, images, strict=True) for _ in _listed(given)]
        opened = [self.open_image(image, origin) for image, origin in zip(_flat(images), image_origins, strict=True)]
        if augment is not None:
            opened = [augment(image) for image in opened]
        encoded = self.processor(images=opened, text=_flat(texts), **self._text_options())
        batch = {
            name: _unflatten(value, images if name.startswith("pixel") else texts) for name, value in encoded.items()
        }
        if "pixel_mask" in batch and batch["pixel_mask"].all():
            del batch["pixel_mask"]  # the model is faster without
        return batch

    def encode_texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Encode texts alone, as [`__call__`] does: `input_ids` and the like, long (N, max_text_length)."""
        return dict(self.processor.tokenizer(list(texts), **self._text_options()))

    def _text_options(self) -> dict[str, Any]:
        """Return how the tokenizer pads and cuts."""
        length = self.record.max_text_length
        return {"padding": self.record.padding, "max_length": length, "truncation": True, "return_tensors": "pt"}

    def open_image(self, source: ImageSource, origin: str = "") -> PILImage.Image:
        """Open an image for the processor. It is squeezed into a square if the record asks for squares.

        A processor that makes squares itself gets the image as it is.

        Args:
            source: what the function `open_image` takes.
            origin: where the image is from, for error messages.

        Raises:
            DataError: the image cannot be read, or it is so narrow that its shorter side would be less than a patch.
        """
        image = open_image(source, origin)
        if makes_squares(self.processor):
            return image
        if self.record.keep_aspect_ratio:
            self._check_shape(image, source, origin)
            return image
        side = image_side(self.processor)
        return image.resize((side, side), Resampling[self.record.resample.upper()])

    def _check_shape(self, image: PILImage.Image, source: ImageSource, origin: str) -> None:
        """Raise `DataError` if an image is so narrow that its shorter side would be less than a patch."""
        side, patch = image_side(self.processor), self.processor.image_processor.size_divisor
        shorter, longer = sorted(image.size)
        longest = longest_side(self.processor)
        if int(shorter * min(side / shorter, longest / longer) + 0.5) < patch:
            message = (
                f"keep_aspect_ratio=True: the image {image_name(source)} has {image.width} x {image.height} pixels: "
                f"once its longer side fits into {longest}, the shorter one is less than a patch ({patch}); cut it, "
                "or make squares"
            )
            raise DataError(located(message, origin))


def encode_example(
    model: PuMerPreTrainedModel,
    processor: ProcessorMixin,
    image: Images,
    text: str,
    max_text_length: int | None = None,
    keep_aspect_ratio: bool | None = None,
    origin: str = "",
) -> dict[str, Tensor]:
    """Return the inputs of the model for one example, as in training: a batch of one, on the CPU.

    Args:
        model: a model of any family.
        processor: the processor of the checkpoint. It says how inputs are made ([`EncodingRecord`]).
        image: what [`open_image`] takes, of any size; a list if the model takes several images (NLVR2).
        text: a question, a hypothesis, a caption or a statement. A text that is too long is cut.
        max_text_length: tokens that the text is padded to; default: as the processor says.
        keep_aspect_ratio: whether the image keeps its shape, or becomes a square; default: as the processor says.
            METER always makes squares, and refuses True.
        origin: where the example is from, for error messages.

    Raises:
        ValueError: the text is empty or not valid Unicode; an image cannot be read, or is too narrow for
            `keep_aspect_ratio`; or there are more or fewer images than the model takes.
    """
    if not text.strip():
        raise ValueError(f"text={text!r}: must not be empty")
    check_unicode(text, located("text", origin))
    images = _listed(image)
    if len(images) != num_images(model):
        raise ValueError(f"{len(images)} images are given, but {type(model).__name__} takes {num_images(model)}")
    encoder = Encoder.of(model, processor, max_text_length=max_text_length, keep_aspect_ratio=keep_aspect_ratio)
    return encoder([images if isinstance(model, ImagesClassifierHead) else images[0]], [text], [origin])


def _listed(part: Any) -> list[Any]:
    """Return the images or texts of an example as a list, even if it has only one."""
    return list(part) if isinstance(part, (list, tuple)) else [part]


def _flat(parts: Sequence[Any]) -> list[Any]:
    """Return all images or texts of several examples in one list."""
    return [item for part in parts for item in _listed(part)]


def _unflatten(values: Tensor, parts: Sequence[Any]) -> Tensor:
    """Give values of all images or texts, (N, ...), the shape (B, n, ...) if each example has a list of n."""
    return values.unflatten(0, (len(parts), len(parts[0]))) if isinstance(parts[0], (list, tuple)) else values


def makes_squares(processor: ProcessorMixin) -> bool:
    """Return whether the processor itself makes a square of every image.

    METER's resizes the image. The one of METER as first published cuts out the middle.
    """
    image_processor = processor.image_processor
    return bool(image_processor.size["shortest_edge"] is None or image_processor.do_center_crop)


def image_side(processor: ProcessorMixin) -> int:
    """Return the side in pixels of the squares that a model gets, or the shorter side if images keep their shape."""
    image_processor = processor.image_processor
    if image_processor.do_center_crop:
        return int(image_processor.crop_size["height"])
    return int(image_processor.size["shortest_edge"] or image_processor.size["height"])


def longest_side(processor: ProcessorMixin) -> int:
    """Return how many pixels the longer side of an image that keeps its shape may have."""
    return int(MAX_LONGER_EDGE / MAX_SHORTER_EDGE * image_side(processor))


def resized_processor(processor: ProcessorMixin, image_size: int) -> ProcessorMixin:
    """Return a copy of a processor that makes images of `image_size` pixels a side."""
    resized = copy.deepcopy(processor)
    old, new, side = processor.image_processor, resized.image_processor, image_side(processor)
    names = [name for name in ("shortest_edge", "height", "width") if old.size[name] is not None]
    size_class = type(old.size)  # not a dict: a name that it lacks is None
    new.size = size_class(**{name: round(old.size[name] * image_size / side) for name in names})
    if old.do_center_crop:
        new.crop_size = size_class(height=image_size, width=image_size)
    return resized


def seen_part(size: tuple[int, int], processor: ProcessorMixin) -> tuple[float, float, float, float]:
    """Return the part of an image that the model gets: left, top, right and bottom edge in pixels.

    It is the whole image, unless the processor cuts out the middle. Then the part may extend beyond the image.

    Args:
        size: width and height of the image in pixels.
        processor: the processor of the checkpoint.
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
        text: the text to check.
        what: the name of the text in the message.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} holds half a character, {text[error.start]!r}: remove or complete it") from error
