"""Inputs of decoder models whose pixels and words are random, for what depends on shapes alone."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .family import DecoderFamily, ImageFeatures
from .prompt import on_device

PREFIX_TYPED = ("paligemma",)
"""Families whose `token_type_ids` tell the prompt (0) from the answer (1). Those of others mark image tokens."""
FIRST_WORD = 3
"""Random words begin here. The tokens before it are special in most vocabularies."""
USUAL_TOKENS = 1024
"""Image tokens of a prompt in families whose images have any size, unless another number is asked for."""


def prompts(
    model: PreTrainedModel,
    batch_size: int,
    text_length: int,
    image_tokens: int | None = None,
    family: DecoderFamily | None = None,
) -> dict[str, Tensor]:
    """Return a batch of equal prompts as the model's forward takes it: first the images, then the words.

    Args:
        model: the model. Its image tower runs once, which says how many tokens the images have.
        batch_size: prompts.
        text_length: words per prompt, at least 1.
        image_tokens: image tokens per prompt. None: one image of the usual size of the family.
        family: the family of a model of transformers' own class; ours know it.

    Raises:
        ValueError: a number is below 1, or the images of the family cannot have so many tokens.
    """
    for name, value in {"text_length": text_length, "image_tokens": image_tokens, "batch_size": batch_size}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    row = known_family(model) if family is None else family
    one, found = images_near(model, image_tokens, row)
    if image_tokens not in (None, found):
        title = row.title
        raise ValueError(
            f"image_tokens={image_tokens}: the nearest number that a prompt of {title} can have is {found}"
        )
    inputs = {name: value.repeat(batch_size, *[1] * (value.ndim - 1)) for name, value in one.items()}
    return {**inputs, **token_inputs(model, row, batch_size, found, text_length)}


def images_near(
    model: PreTrainedModel, image_tokens: int | None, family: DecoderFamily | None = None
) -> tuple[dict[str, Tensor], int]:
    """Return the images of one prompt with nearly so many tokens as asked for, and their number of tokens."""
    row = known_family(model) if family is None else family
    make = pixels_of(model)
    one = on_device(make(model, image_tokens, 1), model)
    found = count_image_tokens(model, row, one)
    if image_tokens is not None and found < image_tokens:  # images of one size: take several
        one = on_device(make(model, image_tokens, max(round(image_tokens / found), 1)), model)
        found = count_image_tokens(model, row, one)
    return one, found


def text_prompts(model: PreTrainedModel, batch_size: int, text_length: int) -> dict[str, Tensor]:
    """Return the same prompts as [`prompts`] without their images."""
    return token_inputs(model, known_family(model), batch_size, 0, text_length)


def token_inputs(
    model: PreTrainedModel, family: DecoderFamily, batch_size: int, image_tokens: int, text_length: int
) -> dict[str, Tensor]:
    """Return `input_ids`, `attention_mask` and what tells image tokens from words, each long (B, L)."""
    config = model.config
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(FIRST_WORD, first_placeholder(config), (batch_size, text_length), generator=generator)
    placeholder = family.image_token_id(config)
    ids = torch.cat([torch.full((batch_size, image_tokens), placeholder), words], dim=1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    accepted = inspect.signature(family.stock_class.forward).parameters
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in accepted:
            inputs[name] = torch.zeros_like(ids) if family.name in PREFIX_TYPED else (ids == placeholder).long()
    return on_device(inputs, model)


def first_placeholder(config: Any) -> int:
    """Return the first token of the vocabulary that stands for something else than a word."""
    kinds = ("image_token", "video_token", "audio_token")
    values = [value for name, value in config.to_dict().items() if name.startswith(kinds) and isinstance(value, int)]
    return min([config.get_text_config().vocab_size, *values])


def count_image_tokens(model: PreTrainedModel, family: DecoderFamily, inputs: dict[str, Tensor]) -> int:
    """Return how many tokens the image encoder gives for the images of a batch."""
    with torch.inference_mode():
        output, _ = family.encode_images(model, inputs)
    return sum(ImageFeatures.of(output).lengths)


MakePixels = Callable[[PreTrainedModel, int | None, int], dict[str, Tensor]]
"""Makes the images of one prompt. Arguments: the model, the image tokens that are asked for, the number of images."""


def pixels_of(model: PreTrainedModel) -> MakePixels:
    """Return the function that makes the images of a model, by what its image encoder takes."""
    if "image_grid_pinpoints" in model.config.to_dict():  # LLaVA-1.5 takes `image_sizes` too, and does not read it
        return sized_tiles
    names = inspect.signature(model.base_model.get_image_features).parameters
    return next((make for name, make in MAKERS.items() if name in names), square_images)


def patch_grids(model: PreTrainedModel, image_tokens: int | None, number: int) -> dict[str, Tensor]:
    """Return the patches of an image of any size (Qwen), float (P, C * T * p * p), and its grid, long (1, 3)."""
    vision = model.config.vision_config
    rows, columns = grid_of(image_tokens or USUAL_TOKENS)
    merge = vision.spatial_merge_size
    grid = torch.tensor([[1, rows * merge, columns * merge]])
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return {"pixel_values": noise(int(grid.prod()), width), "image_grid_thw": grid}


def placed_patches(model: PreTrainedModel, image_tokens: int | None, number: int) -> dict[str, Tensor]:
    """Return the patches of an image of any size (Gemma-4), float (1, P, 3 * p * p), and their places, (1, P, 2)."""
    vision = model.config.vision_config
    rows, columns = grid_of(image_tokens or vision.default_output_length)
    pool = vision.pooling_kernel_size
    y, x = torch.meshgrid(torch.arange(rows * pool), torch.arange(columns * pool), indexing="ij")
    places = torch.stack([x.flatten(), y.flatten()], dim=1).unsqueeze(0)
    return {"pixel_values": noise(1, places.shape[1], 3 * vision.patch_size**2), "image_position_ids": places}


def sized_tiles(model: PreTrainedModel, image_tokens: int | None, number: int) -> dict[str, Tensor]:
    """Return an image as tiles (LLaVA-NeXT): the whole one and its parts, float (1, 1 + T, 3, s, s); and its size.

    Without a number of tokens, it has 2 x 2 parts.
    """
    side = model.config.vision_config.image_size
    sizes = sorted(tuple(size) for size in model.config.image_grid_pinpoints)
    parts = [(height // side) * (width // side) for height, width in sizes]
    per_tile = (side // model.config.vision_config.patch_size) ** 2
    wanted = 4 if image_tokens is None else max(image_tokens / per_tile - 1, 1)
    square = [abs(height - width) for height, width in sizes]
    best = min(range(len(sizes)), key=lambda place: (abs(parts[place] - wanted), square[place]))
    return {"pixel_values": noise(1, 1 + parts[best], 3, side, side), "image_sizes": torch.tensor([sizes[best]])}


def stacked_tiles(model: PreTrainedModel, image_tokens: int | None, number: int) -> dict[str, Tensor]:
    """Return the tiles of a prompt (SmolVLM), float (1, T, 3, s, s)."""
    side = model.config.vision_config.image_size
    return {"pixel_values": noise(1, number, 3, side, side)}


def square_images(model: PreTrainedModel, image_tokens: int | None, number: int) -> dict[str, Tensor]:
    """Return images of the one size that the model takes, float (N, 3, s, s)."""
    side = model.config.vision_config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    return {"pixel_values": noise(number, 3, height, width)}


MAKERS: dict[str, MakePixels] = {
    "image_grid_thw": patch_grids,
    "image_position_ids": placed_patches,
    "pixel_attention_mask": stacked_tiles,
}
"""The function for an image encoder that takes an input of this name."""


def grid_of(tokens: int) -> tuple[int, int]:
    """Return rows and columns of a grid of so many tokens, or nearly so many, at most twice as wide as high."""
    for rows in range(math.isqrt(tokens), 0, -1):
        if tokens % rows == 0 and tokens // rows <= 2 * rows:
            return rows, tokens // rows
    rows = math.isqrt(tokens)
    return rows, tokens // rows


def noise(*shape: int) -> Tensor:
    """Return random pixels in [0, 1), always the same."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def known_family(model: PreTrainedModel) -> DecoderFamily:
    """Return the family of a model of ours."""
    own: Any = model
    return own.family
