"""Embeddings of patches, and of where a token is from: its place in the image, its modality."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def modality_embeddings(table: nn.Embedding, image_token_type_idx: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The embedding of all text tokens and that of all image tokens, each float (1, D).

    Args:
        table: the embeddings. Its weight may be elsewhere until its `forward`, where it is offloaded.
        image_token_type_idx: row of the image; that of the text is 0.
        device: where the tokens are.
    """
    types = torch.arange(2, device=device) * image_token_type_idx
    of_text, of_image = table(types).split(1)
    return of_text, of_image


class PatchProjection(nn.Conv2d):
    """A convolution whose stride is its kernel, computed as the matrix product that it is.

    On a CPU, the convolution takes much longer in compiled code.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Patches (B, D, rows, columns) of pixels (B, C, height, width); those that fill no patch are left out."""
        height, width = self.kernel_size
        rows, columns = input.shape[2] // height, input.shape[3] // width
        patches = input[:, :, : rows * height, : columns * width].unflatten(3, (columns, width))
        patches = patches.unflatten(2, (rows, height)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return F.linear(patches, self.weight.flatten(1), self.bias).movedim(-1, 1)


def patch_saliency(image_saliency: Tensor, grid: tuple[int, int]) -> Tensor:
    """The mean of a saliency map over each patch, and of the whole for the [CLS] in front.

    Args:
        image_saliency: float (B, rows, columns), of any resolution, over the canvas of the image.
        grid: rows and columns of patches.

    Returns:
        float32 (B, 1 + P).
    """
    if image_saliency.ndim != 3:
        raise ValueError(f"image_saliency has shape {tuple(image_saliency.shape)}: expected (batch, rows, columns)")
    patches = F.adaptive_avg_pool2d(image_saliency.float().unsqueeze(1), grid).flatten(1)
    return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)


def sine_cosine_positions(height: int, width: int, dim: int) -> Tensor:
    """2-D sine-cosine position embeddings, as in MAE (https://arxiv.org/abs/2111.06377): float (height * width, dim).

    A quarter of the dimensions each for the sine and cosine of column and row, the rest (`dim % 4`) is 0.
    """
    frequencies = 10_000.0 ** -(torch.arange(dim // 4) / max(dim // 4, 1))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [place.reshape(-1, 1) * frequencies for place in (columns, rows)]
    waves = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
    return F.pad(torch.cat(waves, dim=1), (0, dim % 4))
