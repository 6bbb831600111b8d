"""Embeddings of where a token is from: its place in the image, its modality."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def modality_embeddings(table: nn.Embedding, image_token_type_idx: int) -> tuple[Tensor, Tensor]:
    """The embedding of all text tokens and that of all image tokens, each float (1, D)."""
    types = torch.arange(2, device=table.weight.device) * image_token_type_idx
    of_text, of_image = table(types).split(1)
    return of_text, of_image


def sine_cosine_positions(height: int, width: int, dim: int) -> Tensor:
    """2-D sine-cosine position embeddings, as in MAE (https://arxiv.org/abs/2111.06377): float (height * width, dim).

    A quarter of the dimensions each for the sine and cosine of column and row, the rest (`dim % 4`) is 0.
    """
    frequencies = 10_000.0 ** -(torch.arange(dim // 4) / max(dim // 4, 1))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [place.reshape(-1, 1) * frequencies for place in (columns, rows)]
    waves = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
    return F.pad(torch.cat(waves, dim=1), (0, dim % 4))
