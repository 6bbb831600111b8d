"""The inputs of the backbones of all families, and how heads arrange several texts or images of an example."""

from typing import TypedDict, cast

from torch import Tensor


class BackboneInputs(TypedDict):
    """The tensors that a backbone takes, by name. A tensor that is not given is None. `forward` says the shapes."""

    input_ids: Tensor | None
    attention_mask: Tensor | None
    token_type_ids: Tensor | None
    pixel_values: Tensor | None
    pixel_mask: Tensor | None
    inputs_embeds: Tensor | None
    image_saliency: Tensor | None


def check_batch(texts: Tensor, images: Tensor) -> None:
    """Raise `ValueError` if there are not as many texts as images."""
    if texts.shape[0] != images.shape[0]:
        raise ValueError(f"{texts.shape[0]} texts, but {images.shape[0]} images: give as many of each")


INPUT_DIMS = {
    "input_ids": 2,
    "attention_mask": 2,
    "token_type_ids": 2,
    "inputs_embeds": 3,
    "pixel_values": 4,
    "pixel_mask": 3,
    "image_saliency": 3,
}
"""The number of dimensions of each input of a backbone. Candidates of retrieval and several images add one more."""

IMAGE_INPUTS = ("pixel_values", "pixel_mask", "image_saliency")
"""The inputs that belong to an image."""


def to_candidates(inputs: BackboneInputs) -> tuple[BackboneInputs, int]:
    """Arrange retrieval inputs as one text and one image per candidate.

    Each of B queries has K candidates. There are four forms, here with the shapes of `input_ids` and `pixel_values`:

    * K texts for one image: (B, K, Lt) and (B, 3, h, w);
    * K images for one text: (B, Lt) and (B, K, 3, h, w);
    * K texts with an image each: (B, K, Lt) and (B, K, 3, h, w);
    * one text with one image, so K is 1: (B, Lt) and (B, 3, h, w).

    Args:
        inputs: the inputs of the backbone, with one more dimension for candidates.

    Returns:
        The inputs with batch size B * K, and K.
    """
    given = {name: value for name, value in named(inputs).items() if value is not None}
    numbers = {name: value.shape[1] if value.ndim > INPUT_DIMS[name] else 1 for name, value in given.items()}
    candidates = max(numbers.values())
    if not set(numbers.values()) <= {1, candidates}:
        found = ", ".join(f"{number} {name}" for name, number in numbers.items())
        raise ValueError(f"{found} per example: give one of each text or image, or as many as candidates")

    def spread(value: Tensor, dims: int) -> Tensor:
        if value.ndim == dims:
            value = value.unsqueeze(1)
        return value.expand(-1, candidates, *value.shape[2:]).flatten(0, 1)

    spread_out = {name: spread(value, INPUT_DIMS[name]) for name, value in given.items()}
    return cast(BackboneInputs, {**inputs, **spread_out}), candidates


def split_images(inputs: BackboneInputs, num_images: int) -> list[BackboneInputs]:
    """Split inputs with several images per example into inputs of one text and one image, one for each image.

    Args:
        inputs: the inputs of the backbone, but with `pixel_values` (B, num_images, 3, h, w). The other `IMAGE_INPUTS`
            have this second dimension too.
        num_images: images per example.
    """
    pixel_values = inputs["pixel_values"]
    if pixel_values is None or pixel_values.ndim != 5 or pixel_values.shape[1] != num_images:
        shape = None if pixel_values is None else tuple(pixel_values.shape)
        raise ValueError(f"pixel_values has shape {shape}: expected (batch, {num_images}, channels, height, width)")

    images = {name: value for name, value in named(inputs).items() if name in IMAGE_INPUTS and value is not None}
    return [
        cast(BackboneInputs, {**inputs, **{name: value[:, index] for name, value in images.items()}})
        for index in range(num_images)
    ]


def named(inputs: BackboneInputs) -> dict[str, Tensor | None]:
    """Return the same dict with the type of a plain dict, for code that iterates over it."""
    return cast(dict[str, Tensor | None], inputs)
