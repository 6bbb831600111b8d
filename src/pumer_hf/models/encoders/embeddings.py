"""Embeddings that all families use: for patches, for their places in the image, and for modalities."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def modality_embeddings(table: nn.Embedding, image_token_type_idx: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the embedding to add to all text tokens, and the one for all image tokens, each float (1, D).

    Args:
        table: the embeddings of the modalities. It is called, because `forward` loads an offloaded weight.
        image_token_type_idx: row of the table for the image. Row 0 is for the text.
        device: where the tokens are.
    """
    types = torch.arange(2, device=device) * image_token_type_idx
    text_type, image_type = table(types).split(1)
    return text_type, image_type


class PatchProjection(nn.Conv2d):
    """A convolution whose stride is its kernel size, computed as a matrix product.

    The two are equal, but on a CPU the convolution takes much longer in compiled code.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the patches, (B, D, rows, columns), of pixels (B, C, height, width).

        Pixels on the right and at the bottom that do not fill a patch are left out.
        """
        height, width = self.kernel_size
        rows, columns = input.shape[2] // height, input.shape[3] // width
        patches = input[:, :, : rows * height, : columns * width].unflatten(3, (columns, width))
        patches = patches.unflatten(2, (rows, height)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return F.linear(patches, self.weight.flatten(1), self.bias).movedim(-1, 1)


def patch_saliency(image_saliency: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the mean of a saliency map over each patch. The [CLS], which comes first, gets the mean of the whole map.

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
    """Return 2-D sine-cosine position embeddings, float (height * width, dim).

    They are those of MAE (https://arxiv.org/abs/2111.06377). Sine and cosine of column and row have a quarter of the
    dimensions each. The rest (`dim % 4`) is 0.
    """
    frequencies = 10_000.0 ** -(torch.arange(dim // 4) / max(dim // 4, 1))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [place.reshape(-1, 1) * frequencies for place in (columns, rows)]
    waves = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
    return F.pad(torch.cat(waves, dim=1), (0, dim % 4))
