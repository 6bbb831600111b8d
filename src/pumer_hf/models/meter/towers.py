"""What METER changes about its towers: CLIP's image tower, and position embeddings for another image size."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig
from transformers import initialization as init
from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPPreTrainedModel, CLIPVisionEmbeddings

from ..embeddings import sine_cosine_positions

POSITION_EMBEDDING = "embeddings.position_embedding.weight"


class PuMerMeterVisionModel(CLIPPreTrainedModel):
    """CLIP's image tower, with the parameter names of [`CLIPVisionModel`].

    Modifications: the final LayerNorm is applied to all tokens (CLIP: to the [CLS] only), as the cross-layers read all
    of them. `config.num_hidden_layers` is one less than CLIP's: the last block is not there. Position embeddings of a
    model from scratch start as sines and cosines (CLIP: normal), which small models need to learn where things are.
    """

    config: CLIPVisionConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: CLIPVisionConfig):
        super().__init__(config)
        self.embeddings = CLIPVisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = CLIPEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CLIPVisionEmbeddings):
            side = self.config.image_size // self.config.patch_size
            patches = sine_cosine_positions(side, side, self.config.hidden_size)
            init.copy_(module.position_embedding.weight, torch.cat([torch.zeros_like(patches[:1]), patches]))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[CLS] and patches in raster order, float (B, 1 + P, D); `pixel_values` (B, 3, image_size, image_size)."""
        states = self.pre_layrnorm(self.embeddings(pixel_values))
        return self.post_layernorm(self.encoder(inputs_embeds=states).last_hidden_state)


def resize_position_embeddings(weight: Tensor, num_positions: int) -> Tensor:
    """Position embeddings of [CLS] and a square grid of patches, for another grid (bicubic, as in METER).

    Args:
        weight: float (1 + g * g, D).
        num_positions: 1 + the patches of the new grid.

    Returns:
        float (num_positions, D).
    """
    old, new = math.isqrt(weight.shape[0] - 1), math.isqrt(num_positions - 1)
    if old == new:
        return weight
    grid = weight[1:].T.reshape(1, -1, old, old)
    grid = F.interpolate(grid.float(), size=(new, new), mode="bicubic", align_corners=False).to(weight.dtype)
    return torch.cat([weight[:1], grid.flatten(2)[0].T])


def vision_weights(clip: dict[str, Tensor], model: PuMerMeterVisionModel) -> dict[str, Tensor]:
    """The state dict of a [`CLIPVisionModel`] made to fit `model`: blocks dropped, position embeddings resized."""
    wanted = model.state_dict()
    weights = {name: value for name, value in clip.items() if name in wanted}
    positions = resize_position_embeddings(clip[POSITION_EMBEDDING], wanted[POSITION_EMBEDDING].shape[0])
    return {**weights, POSITION_EMBEDDING: positions}
