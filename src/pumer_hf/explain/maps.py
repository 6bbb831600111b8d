"""Where the patches and the words went: pure functions of a [`LayerTrace`]."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..configuration import PuMerConfig
from ..models.encoders.vilt.embeddings import even_sample
from ..models.families import patch_size
from ..tokens import LayerTrace

NUM_PREFIX_TOKENS = 1
"""Image tokens before the patches, in all families: the image [CLS]."""


def token_map(
    trace: LayerTrace, grid: tuple[int, int], example: int = 0, patches: Sequence[int] | Tensor | None = None
) -> Tensor:
    """For each patch of the image, which image token holds it after the layer.

    Args:
        trace: one of `outputs.reduction`.
        grid: rows and columns of patches of the canvas, padding included.
        example: which example of the batch.
        patches: which patches the model was given, in order ([`patch_index`]); default: all.

    Returns:
        long (rows, columns). Patches with the same number were merged; -1: pruned, or never in the model (padding, or
        left out by `config.max_image_length`).

    Raises:
        ValueError: the trace is about another number of patches.
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
    """For each text token after the layer, the words that it holds, in reading order; none for padding.

    Args:
        trace: one of `outputs.reduction`.
        words: the text tokens that the model was given, as strings ([`text_tokens`]).
        example: which example of the batch.
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
    """Bool (rows, columns): the patches of one image's canvas, True for the image and False for padding.

    Args:
        config: of the model.
        pixel_values: float (3, height, width).
        pixel_mask: (height, width), 1 for pixels of the image; None if there is no padding.
    """
    height, width = patch_size(config)
    grid = (pixel_values.shape[1] // height, pixel_values.shape[2] // width)
    if pixel_mask is None:
        return torch.ones(grid, dtype=torch.bool)
    return F.interpolate(pixel_mask[None, None].float().cpu(), size=grid)[0, 0] > 0


def patch_index(config: PuMerConfig, real: Tensor) -> Tensor:
    """Long (P,): which patches of one image's canvas the model takes, in order; all, or an even sample of
    `config.max_patches`.

    Args:
        config: of the model.
        real: bool (rows, columns), from [`real_patches`].
    """
    index = torch.arange(real.numel())
    if config.max_patches is not None and config.max_patches < len(index):
        sample, _ = even_sample(real.view(1, -1), config.max_patches)
        return sample.flatten()
    return index
