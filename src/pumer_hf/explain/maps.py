"""Pure functions of a [`LayerTrace`]: which token holds each patch and each word after a layer."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..configuration import PuMerConfig
from ..models.encoders.vilt.embeddings import even_sample
from ..models.families import patch_size
from ..tokens import NUM_PREFIX_TOKENS, LayerTrace


def token_map(
    trace: LayerTrace, grid: tuple[int, int], example: int = 0, patches: Sequence[int] | Tensor | None = None
) -> Tensor:
    """Return which image token holds each patch of the image after the layer.

    Args:
        trace: one of the traces in `outputs.reduction`.
        grid: rows and columns of patches on the canvas, with the padding.
        example: the index of the example in the batch.
        patches: indices of the patches that the model got, in their order ([`patch_index`]); default: all.

    Returns:
        long (rows, columns). Patches with the same number were merged. A patch with -1 was pruned, or the model never
        got it: it is padding, or `config.max_image_length` left it out.

    Raises:
        ValueError: the trace has another number of patches.
    """
    source = trace.image_source[example, NUM_PREFIX_TOKENS:].cpu()
    rows, columns = grid
    index = torch.arange(rows * columns) if patches is None else torch.as_tensor(patches).cpu()
    if len(source) != len(index):
        raise ValueError(
            f"grid={grid}: the trace of layer {trace.layer} is about {len(source)} patches, not {len(index)}"
        )
    tokens = torch.full((rows * columns,), -1)
    tokens[index] = source
    return tokens.view(rows, columns)


def merged_words(trace: LayerTrace, words: Sequence[str], example: int = 0) -> list[list[str]]:
    """Return the words that each text token holds after the layer, in reading order. Padding holds none.

    Args:
        trace: one of the traces in `outputs.reduction`.
        words: the text tokens that the model got, as strings ([`text_tokens`]).
        example: the index of the example in the batch.
    """
    source = trace.text_source[example].tolist()
    if len(source) != len(words):
        raise ValueError(f"words={list(words)}: the trace of layer {trace.layer} is about {len(source)} text tokens")
    groups: list[list[str]] = [[] for _ in range(trace.num_text)]
    for word, token in zip(words, source, strict=True):
        if token >= 0:
            groups[token].append(word)
    return groups


def real_patches(config: PuMerConfig, pixel_values: Tensor, pixel_mask: Tensor | None) -> Tensor:
    """Return which patches on the canvas of one image are the image: bool (rows, columns), False for padding.

    Args:
        config: the config of the model.
        pixel_values: float (3, height, width).
        pixel_mask: (height, width), 1 for pixels of the image; None if there is no padding.
    """
    height, width = patch_size(config)
    grid = (pixel_values.shape[1] // height, pixel_values.shape[2] // width)
    if pixel_mask is None:
        return torch.ones(grid, dtype=torch.bool)
    return F.interpolate(pixel_mask[None, None].float().cpu(), size=grid)[0, 0] > 0


def patch_index(config: PuMerConfig, real: Tensor) -> Tensor:
    """Return the indices of the patches that the model takes from the canvas of one image, long (P,), in their order.

    The model takes all patches, or an even sample of `config.max_patches`.

    Args:
        config: the config of the model.
        real: bool (rows, columns), from [`real_patches`].
    """
    index = torch.arange(real.numel())
    if config.max_patches is not None and config.max_patches < len(index):
        sample, _ = even_sample(real.view(1, -1), config.max_patches)
        return sample.flatten()
    return index
