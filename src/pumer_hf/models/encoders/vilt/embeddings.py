"""Text and patch embeddings of ViLT."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..embeddings import PatchProjection, modality_embeddings, patch_saliency
from ..inputs import BackboneInputs
from .configuration import PuMerViltConfig, as_size


class PuMerViltTextEmbeddings(nn.Module):
    """Word, position and token type embeddings, as in BERT."""

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        eps = config.layer_norm_eps if config.text_layer_norm_eps is None else config.text_layer_norm_eps
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inputs_embeds: Tensor, token_type_ids: Tensor | None) -> Tensor:
        length = inputs_embeds.shape[1]
        if length > self.position_embeddings.num_embeddings:
            raise ValueError(
                f"the text has {length} tokens, but config.max_position_embeddings is "
                f"{self.position_embeddings.num_embeddings}: truncate it (processor(..., truncation=True, "
                f"max_length={self.position_embeddings.num_embeddings}))"
            )
        positions = torch.arange(length, device=inputs_embeds.device)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(positions)
        embeddings = inputs_embeds + self.position_embeddings(positions) + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(embeddings))


class PuMerViltPatchEmbeddings(nn.Module):
    """The linear projection of the patches."""

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        patch_size = as_size(config.patch_size)
        self.projection = PatchProjection(config.num_channels, config.hidden_size, patch_size, patch_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.projection.in_channels:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}: expected (batch, {self.projection.in_channels}, "
                "height, width)"
            )
        return self.projection(pixel_values.to(self.projection.weight.dtype))


def resize_weights(sizes: Tensor, length: int, grid: int) -> Tensor:
    """Return matrices that interpolate `grid` points linearly to `sizes` points, with aligned corners.

    Args:
        sizes: long `(batch,)`, how many points each example needs, from 1 to `length`.
        length: rows of the result. Only the first `sizes` rows of an example have a meaning.
        grid: points to interpolate.

    Returns:
        float `(batch, length, grid)`; each row sums to 1.
    """
    step = (grid - 1) / (sizes - 1).clamp(min=1)
    place = torch.arange(length, device=sizes.device) * step.unsqueeze(1)
    place = torch.where(sizes.unsqueeze(1) > 1, place, 0).clamp(max=grid - 1)
    points = torch.arange(grid, device=sizes.device)
    return (1 - (place.unsqueeze(2) - points).abs()).clamp(min=0)


class PuMerViltEmbeddings(nn.Module):
    """Text and patch embeddings.

    Modifications: the stock model loops over the images in Python and draws its patches with `torch.multinomial`, in a
    new order at every forward, also in eval mode. Here the patches of all images are embedded at once and stay in
    raster order. So results repeat, patch p of the image is token 1 + p, and the model compiles and exports.
    `config.max_image_length` takes an even sample of that many patches over the raster (stock: a random sample).
    Position embeddings of a model from scratch start as sines and cosines (stock: zeros). Small models need this to
    learn where things are.
    """

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        height, width = as_size(config.image_size)
        patch_height, patch_width = as_size(config.patch_size)
        self.grid = (height // patch_height, width // patch_width)
        self.max_image_length = config.max_image_length
        self.text_embeddings = PuMerViltTextEmbeddings(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.patch_embeddings = PuMerViltPatchEmbeddings(config)
        num_patches = self.grid[0] * self.grid[1]
        self.position_embeddings = nn.Parameter(torch.zeros(1, num_patches + 1, config.hidden_size))
        self.token_type_embeddings = nn.Embedding(config.modality_type_vocab_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, inputs_embeds: Tensor, inputs: BackboneInputs, image_token_type_idx: int
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, tuple[int, int] | None]:
        """Embed the text and the image.

        Args:
            inputs_embeds: float (B, Lt, D), the word embeddings.
            inputs: the inputs of the backbone, with `pixel_values`.
            image_token_type_idx: index of the modality embedding of the image.

        Returns:
            Text (B, Lt, D), and what `embed_image` returns.
        """
        # ZeRO-3 gathers parameters only if plain tensors are returned and `.weight` of a child is never read.
        text = self.text_embeddings(inputs_embeds, inputs["token_type_ids"])
        image, image_mask, prior, grid = self.embed_image(inputs)
        text_type, image_type = modality_embeddings(self.token_type_embeddings, image_token_type_idx, text.device)
        return text + text_type, image + image_type, image_mask, prior, grid

    def embed_image(
        self, inputs: BackboneInputs
    ) -> tuple[Tensor, Tensor | None, Tensor | None, tuple[int, int] | None]:
        """Embed the image: its [CLS], then its patches in raster order.

        Returns:
            The tokens, float (B, 1 + P, D); which of them are real, bool (B, 1 + P), or None for all; their saliency
            from `image_saliency`, float (B, 1 + P), or None; and the rows and columns of the patches, or None if some
            patches are left out.
        """
        patches = self.patch_embeddings(inputs["pixel_values"])
        height, width = patches.shape[2:]
        pixel_mask, saliency, mask = inputs["pixel_mask"], inputs["image_saliency"], None
        if pixel_mask is not None:
            mask = F.interpolate(pixel_mask[:, None].float(), size=(height, width))[:, 0] > 0
        patches = patches.flatten(2).transpose(1, 2) + self.resized_positions(mask, height, width)
        mask = None if mask is None else mask.flatten(1)
        prior = None if saliency is None else patch_saliency(saliency, (height, width))
        grid: tuple[int, int] | None = (height, width)
        if 0 < self.max_image_length < patches.shape[1]:
            real = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device) if mask is None else mask
            index, sampled = even_sample(real, self.max_image_length)
            patches, grid = patches.gather(1, index.unsqueeze(-1).expand(-1, -1, patches.shape[-1])), None
            mask = None if mask is None else sampled
            if prior is not None:
                prior = torch.cat([prior[:, :1], prior[:, 1:].gather(1, index)], dim=1)
        cls_token = (self.cls_token + self.position_embeddings[:, :1]).expand(patches.shape[0], -1, -1)
        image = self.dropout(torch.cat([cls_token, patches], dim=1))
        return image, None if mask is None else F.pad(mask, (1, 0), value=True), prior, grid

    def resized_positions(self, mask: Tensor | None, height: int, width: int) -> Tensor:
        """Return the position embeddings, bilinearly resized to the part of the canvas that each image fills.

        Args:
            mask: bool (B, height, width), True for the patches of the image; None if every image fills the canvas.
            height: rows of patches of the canvas.
            width: columns of patches of the canvas.

        Returns:
            float (B or 1, height * width, D).
        """
        positions = self.position_embeddings[0, 1:]
        if mask is None and (height, width) == self.grid:
            return positions.unsqueeze(0)
        positions = positions.view(*self.grid, -1)
        if mask is None:
            heights = torch.full((1,), height, device=positions.device)
            widths = torch.full((1,), width, device=positions.device)
        else:
            heights, widths = mask[:, :, 0].sum(dim=1), mask[:, 0].sum(dim=1)
        rows = resize_weights(heights, height, self.grid[0]).to(positions.dtype)
        columns = resize_weights(widths, width, self.grid[1]).to(positions.dtype)
        return torch.einsum("byp,bxq,pqd->byxd", rows, columns, positions).flatten(1, 2)


def even_sample(mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Choose `length` patches per image, spread evenly over its real patches in raster order. Padding comes last.

    Args:
        mask: bool (B, P), True for real patches.
        length: patches wanted, less than P.

    Returns:
        The chosen patches, long (B, length), and which of them are real, bool (B, length).
    """
    real_first = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    num_real = mask.sum(dim=1, keepdim=True)
    wanted = torch.arange(length, device=mask.device).unsqueeze(0)
    spread = torch.where(num_real > length, wanted * num_real // length, wanted)
    index = real_first.gather(1, spread)
    return index, mask.gather(1, index)
