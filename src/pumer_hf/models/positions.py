"""Position embeddings of image patches for models from scratch."""

import torch
from torch import Tensor
from torch.nn import functional as F


def sine_cosine_positions(height: int, width: int, dim: int) -> Tensor:
    """2-D sine-cosine position embeddings, as in MAE (https://arxiv.org/abs/2111.06377): float (height * width, dim).

    A quarter of the dimensions each for the sine and cosine of column and row, the rest (`dim % 4`) is 0.
    """
    frequencies = 10_000.0 ** -(torch.arange(dim // 4) / max(dim // 4, 1))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [place.reshape(-1, 1) * frequencies for place in (columns, rows)]
    waves = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
    return F.pad(torch.cat(waves, dim=1), (0, dim % 4))
