"""CLIP's image tower as METER uses it. It can reduce tokens, and takes images of other sizes."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig
from transformers import initialization as init
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPPreTrainedModel, CLIPVisionEmbeddings

from .... import ops
from ....reducers import TokenReducer
from ....tokens import Evidence, LayerTrace, TokenPair, Tokens
from ...profiling import reduction_region
from ..attention import AttentionKernel, Heads, split_heads
from ..chunking import tokenwise
from ..embeddings import PatchProjection, sine_cosine_positions
from ..plan import LayerPlan

POSITION_EMBEDDING = "embeddings.position_embedding.weight"


class PuMerMeterVisionLayer(CLIPEncoderLayer):
    """A layer of CLIP's image tower.

    Modifications: a reducer can act between attention and feed-forward part, with the keys of the self-attention. If
    the reducer gives tokens a weight, the later layers attend to each token as much as its weight says. Only a reducer
    that chooses by the text (`uses_text`) gets the text tokens, and it does not change them.
    """

    kernel: ClassVar = AttentionKernel()

    def forward(self, states: Tensor, pair: TokenPair, plan: LayerPlan) -> tuple[Tensor, TokenPair, LayerTrace | None]:
        """Run the layer.

        Args:
            states: float (B, L, D), the [CLS] first.
            pair: the same tokens, without states, as the image; and the text, with states and without gradient. The
                text has no tokens if no reducer of the tower reads it.
            plan: what to do.

        Returns:
            The new states; the tokens that are left, in the form of `pair`; and the trace of the reduction, or None.
        """
        if plan.reducer is None and pair.image.key_weight is None:
            attended, _ = self.self_attn(self.layer_norm1(states), attention_mask=None)
            return tokenwise(self.feed_forward, states + attended, plan.chunk), pair, None
        attended, keys = self.attend(replace(pair.image, states=self.layer_norm1(states)))
        states, trace = states + attended, None
        if plan.reducer is not None:
            with reduction_region():
                text = pair.text if plan.reducer.uses_text else no_tokens(states)
                evidence = Evidence(None, keys[:, :0], keys, states.dtype)
                reduced, trace = plan.reducer(
                    plan.index, TokenPair(text, replace(pair.image, states=states)), evidence
                )
                states, pair = reduced.image.states, TokenPair(pair.text, reduced.without_states().image)
        return tokenwise(self.feed_forward, states, plan.chunk), pair, trace

    def feed_forward(self, states: Tensor) -> Tensor:
        """Run the feed-forward part with its residual. It works on each token by itself."""
        return states + self.mlp(self.layer_norm2(states))

    def attend(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Run the self-attention. Each token counts as much as its weight.

        Returns:
            The output float (B, L, D), and the keys averaged over the heads, float32 (B, L, d), without gradient.
        """
        clip = self.self_attn
        projections = (clip.q_proj, clip.k_proj, clip.v_proj)
        heads = Heads(*(split_heads(project(tokens.states), clip.num_heads) for project in projections))
        dropout = clip.dropout if self.training else 0.0
        explicit = clip.config._attn_implementation == "eager"
        context, _ = self.kernel.attend(heads, tokens.key_mask(), dropout, explicit)
        return clip.out_proj(context), ops.mean_over_heads(heads.key.detach())


class PuMerMeterVisionEncoder(nn.Module):
    """The layers of CLIP's image tower; the model runs them."""

    def __init__(self, config: CLIPVisionConfig):
        super().__init__()
        self.layers = nn.ModuleList([PuMerMeterVisionLayer(config) for _ in range(config.num_hidden_layers)])


class PuMerMeterVisionModel(CLIPPreTrainedModel):
    """CLIP's image tower, with the parameter names of [`~transformers.CLIPVisionModel`].

    Modifications: its `reducer` can act in each layer ([`PuMerMeterVisionLayer`]). The final LayerNorm is applied to
    all tokens (CLIP: to the [CLS] only), as the cross-layers read all of them. `config.num_hidden_layers` is one less
    than CLIP's, as the last block is left out. A [`PatchProjection`] embeds the patches. Position embeddings of a
    model from scratch start as sines and cosines (CLIP: normal). Small models need this to learn where things are.
    """

    config: CLIPVisionConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules: ClassVar = ["CLIPVisionEmbeddings", "PuMerMeterVisionLayer"]

    def __init__(self, config: CLIPVisionConfig):
        super().__init__(config)
        self.embeddings = CLIPVisionEmbeddings(config)
        self.embeddings.patch_embedding.__class__ = PatchProjection  # the same weights, drawn as before
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = PuMerMeterVisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.reducer: TokenReducer | None = None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CLIPVisionEmbeddings):
            side = self.config.image_size // self.config.patch_size
            patches = sine_cosine_positions(side, side, self.config.hidden_size)
            init.copy_(module.position_embedding.weight, torch.cat([torch.zeros_like(patches[:1]), patches]))

    def forward(
        self, pixel_values: Tensor, plans: Sequence[LayerPlan], text: Tokens | None = None
    ) -> tuple[Tokens, tuple[LayerTrace, ...]]:
        """Run the tower.

        Args:
            pixel_values: float (B, 3, image_size, image_size).
            plans: what each layer has to do.
            text: the encoded text, if a reducer of the tower reads it. No gradient passes to it.

        Returns:
            The tokens, with states float (B, L, D), which are the [CLS] and the patches in raster order if nothing was
            reduced; and the traces of the layers that reduced.
        """
        states = self.pre_layrnorm(self.embeddings(pixel_values))
        # Not an argument of its own, as the states are: checkpointed layers would need a gradient for it.
        text = no_tokens(states) if text is None else replace(text, states=text.states.detach().to(states.device))
        pair, traces = TokenPair(text, TokenPair(text, Tokens.initial(states)).without_states().image), []
        for layer, plan in zip(self.encoder.layers, plans, strict=True):
            states, pair, trace = layer(states, pair, plan)
            if trace is not None:
                traces.append(trace)
        return replace(pair.image, states=self.post_layernorm(states)), tuple(traces)


def no_tokens(states: Tensor) -> Tokens:
    """Return a text without tokens, for the images with states (B, L, D)."""
    return Tokens.initial(states[:, :0].detach())


def encoded_tokens(states: Tensor, source: Tensor | None, prior: Tensor | None, grid: tuple[int, int]) -> Tokens:
    """Make the tokens of an image that the tower has encoded. All are real and count the same.

    If the tower has reduced the tokens, they are not a raster any more (`Tokens.grid`), and the `prior` of each token
    is the mean over the patches that it holds.

    Args:
        states: float (B, L, D).
        source: long (B, 1 + P), from the tower; None if nothing was reduced.
        prior: float (B, 1 + P), the saliency of the [CLS] and of each patch; None if there is none.
        grid: rows and columns of patches.

    Raises:
        ValueError: the tower has reduced the tokens, and there is no `source`.
    """
    length, num_positions = states.shape[1], 1 + grid[0] * grid[1]
    if length == num_positions:
        return Tokens.initial(states, prior=prior, grid=grid)
    if source is None:
        raise ValueError(
            f"image_embeds has {length} tokens for {num_positions - 1} patches and the [CLS]: give image_source too, "
            "which encode_image makes"
        )
    if prior is not None:
        mean_weights = ops.group_weights(source, torch.ones_like(source, dtype=torch.float32), length)
        prior = ops.group_sums(mean_weights * prior, source, length)
    mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    return Tokens(states, mask, source, prior=prior, padded=False)


def resize_position_embeddings(weight: Tensor, num_positions: int) -> Tensor:
    """Interpolate the position embeddings of [CLS] and a square grid of patches to another grid (bicubic, as METER).

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
    """Return the weights of a [`~transformers.CLIPVisionModel`] for `model`.

    They are only those that `model` has, with resized positions.

    Args:
        clip: the state dict of the [`~transformers.CLIPVisionModel`].
        model: the tower that takes the weights.
    """
    wanted = model.state_dict()
    weights = {name: value for name, value in clip.items() if name in wanted}
    positions = resize_position_embeddings(clip[POSITION_EMBEDDING], wanted[POSITION_EMBEDDING].shape[0])
    return {**weights, POSITION_EMBEDDING: positions}
