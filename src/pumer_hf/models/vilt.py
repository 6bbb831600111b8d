"""ViLT (https://arxiv.org/abs/2102.03334) with token reduction.

Parameter names are those of `transformers.ViltModel`, so any checkpoint that a stock ViLT class saved loads here. The
config, the processor and the output types are transformers'; embedding, attention, layer and encoder are our own, and
their docstrings say what differs and why. With `reduction=None` the logits are stock ViLT's.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViltConfig
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import can_return_tuple

from ..configuration import PuMerConfig
from ..reducers import TokenReducer
from ..tokens import Evidence, LayerTrace, TokenPair, Tokens
from .attention import attend, attention_weights, key_mask, mean_over_heads, split_heads
from .base import PuMerPreTrainedModel
from .embeddings import modality_embeddings, patch_saliency, sine_cosine_positions
from .heads import ClassifierHead, ImagesClassifierHead, RetrievalHead, classification_loss, soft_target_loss
from .outputs import PuMerModelOutput
from .release import with_float_masks


class PuMerViltConfig(PuMerConfig, ViltConfig):
    """[`ViltConfig`] plus `reduction` and `semantics` ([`PuMerConfig`]). Reads the `config.json` of a stock ViLT too.

    Args:
        text_layer_norm_eps: of the text embeddings; default: `layer_norm_eps`. Original ViLT has 1e-12 here and 1e-6
            everywhere else.
    """

    model_type = "pumer_vilt"
    keys_to_ignore_at_inference: ClassVar = ["hidden_states", "attentions", "reduction"]

    text_layer_norm_eps: float | None = None

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if config_dict.get("model_type") == ViltConfig.model_type:
            config_dict = {**config_dict, "model_type": cls.model_type}
        return config_dict, kwargs


def _pair(value: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """A size as (height, width)."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


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
    """Linear projection of the patches."""

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        patch_size = _pair(config.patch_size)
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.projection.in_channels:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}: expected (batch, {self.projection.in_channels}, "
                "height, width)"
            )
        return self.projection(pixel_values.to(self.projection.weight.dtype))


def resize_weights(sizes: Tensor, length: int, grid: int) -> Tensor:
    """Linear interpolation (corners aligned) of a grid of `grid` points to `sizes` points, as matrices.

    Args:
        sizes: long `(batch,)`, points wanted of each example, from 1 to `length`.
        length: rows of the result; those from `sizes` on are meaningless.
        grid: points of the grid.

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
    new order at every forward, eval included. Here the patches of all images are embedded at once and stay in raster
    order, so results repeat, patch p of the image is token 1 + p, and the model compiles and exports.
    `config.max_image_length` (stock: a random sample of that many patches) takes an even sample over the raster.
    Position embeddings of a model from scratch start as sines and cosines (stock: zeros), which small models need to
    learn where things are.
    """

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        height, width = _pair(config.image_size)
        patch_height, patch_width = _pair(config.patch_size)
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
        self,
        inputs_embeds: Tensor,
        token_type_ids: Tensor | None,
        pixel_values: Tensor,
        pixel_mask: Tensor | None,
        image_token_type_idx: int,
        image_saliency: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, tuple[int, int] | None]:
        """Text (B, Lt, D), image (B, Lv, D); which image tokens are real, bool (B, Lv), and their saliency from
        outside, float (B, Lv); and the grid of the patches, if all are there.
        """
        # Plain tensors leave, and `.weight` of a child is never read: ZeRO-3 gathers parameters on no other terms.
        text = self.text_embeddings(inputs_embeds, token_type_ids)
        image, image_mask, saliency, grid = self.embed_image(pixel_values, pixel_mask, image_saliency)
        of_text, of_image = modality_embeddings(self.token_type_embeddings, image_token_type_idx)
        return text + of_text, image + of_image, image_mask, saliency, grid

    def embed_image(
        self, pixel_values: Tensor, pixel_mask: Tensor | None, image_saliency: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, tuple[int, int] | None]:
        """[CLS] and the patches in raster order: float (B, 1 + P, D), which of them are real: bool (B, 1 + P), their
        saliency: float (B, 1 + P), and their grid.
        """
        patches = self.patch_embeddings(pixel_values)
        height, width = patches.shape[2:]
        if pixel_mask is None:
            mask = torch.ones((patches.shape[0], height, width), dtype=torch.bool, device=patches.device)
            positions = self.resized_positions(None, height, width)
        else:
            mask = F.interpolate(pixel_mask[:, None].float(), size=(height, width))[:, 0] > 0
            positions = self.resized_positions(mask, height, width)
        patches = patches.flatten(2).transpose(1, 2) + positions
        mask = mask.flatten(1)
        saliency = None if image_saliency is None else patch_saliency(image_saliency, (height, width))
        grid: tuple[int, int] | None = (height, width)
        if 0 < self.max_image_length < mask.shape[1]:
            index, real = even_sample(mask, self.max_image_length)
            patches, mask, grid = patches.gather(1, index.unsqueeze(-1).expand(-1, -1, patches.shape[-1])), real, None
            if saliency is not None:
                saliency = torch.cat([saliency[:, :1], saliency[:, 1:].gather(1, index)], dim=1)
        cls_token = (self.cls_token + self.position_embeddings[:, :1]).expand(patches.shape[0], -1, -1)
        image = self.dropout(torch.cat([cls_token, patches], dim=1))
        return image, F.pad(mask, (1, 0), value=True), saliency, grid

    def resized_positions(self, mask: Tensor | None, height: int, width: int) -> Tensor:
        """Position embeddings, bilinearly resized to the part of the canvas that each image fills.

        Args:
            mask: bool (B, height, width), True for the patches of the image; None where every image fills the canvas.

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
    """At most `length` patches per image, evenly spread over its real ones in raster order, padding behind.

    Args:
        mask: bool (B, P), True for real patches.
        length: patches wanted, less than P.

    Returns:
        long (B, length), which patches, and bool (B, length), which of those are real.
    """
    real_first = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    num_real = mask.sum(dim=1, keepdim=True)
    wanted = torch.arange(length, device=mask.device).unsqueeze(0)
    spread = torch.where(num_real > length, wanted * num_real // length, wanted)
    index = real_first.gather(1, spread)
    return index, mask.gather(1, index)


class PuMerViltSelfAttention(nn.Module):
    """Joint self-attention over text and image.

    Modifications: `scaled_dot_product_attention` where the stock model is eager only. Where a reducer wants it, the
    attention of the text rows, a small Lt x (Lt + Lv) block, is computed beside it: exactly Eq. 1's probabilities.
    Explicit probabilities everywhere only with `output_attentions` or `attn_implementation="eager"`.
    """

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"hidden_size={config.hidden_size} is not a multiple of "
                f"num_attention_heads={config.num_attention_heads}"
            )
        self.config = config
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.key = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.value = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)

    def forward(
        self, hidden_states: Tensor, key_mask: Tensor | None, output_attentions: bool
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Context (B, L, D), probabilities (B, H, L, L) or None, queries and keys (B, H, L, D / H)."""
        query, key, value = (
            split_heads(projection(hidden_states), self.config.num_attention_heads)
            for projection in (self.query, self.key, self.value)
        )
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        explicit = output_attentions or self.config._attn_implementation == "eager"
        release = self.config.semantics == "release"
        return *attend(query, key, value, key_mask, dropout, explicit, release), query, key


class PuMerViltProjection(nn.Module):
    """Linear layer and dropout."""

    def __init__(self, in_features: int, out_features: int, dropout: float = 0.0):
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dropout(self.dense(hidden_states))


class PuMerViltAttention(nn.Module):
    """Self-attention and its output projection."""

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        self.attention = PuMerViltSelfAttention(config)
        self.output = PuMerViltProjection(config.hidden_size, config.hidden_size, config.hidden_dropout_prob)

    def forward(
        self, hidden_states: Tensor, key_mask: Tensor | None, output_attentions: bool
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        context, weights, query, key = self.attention(hidden_states, key_mask, output_attentions)
        return self.output(context), weights, query, key


class PuMerViltLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer.

    Modifications: a reducer, where the layer has one, cuts the tokens between the attention residual and the
    feed-forward part, which then runs on the reduced tokens already.
    """

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        self.config = config
        self.attention = PuMerViltAttention(config)
        self.intermediate = PuMerViltProjection(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.output = PuMerViltProjection(config.intermediate_size, config.hidden_size, config.hidden_dropout_prob)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self,
        hidden_states: Tensor,
        key_mask: Tensor | None,
        reducer: TokenReducer | None = None,
        layer: int = 0,
        pair: TokenPair | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None, TokenPair | None, LayerTrace | None]:
        """New hidden states, attention probabilities or None; and where a `reducer` acts, the reduced pair and its
        trace.

        Of states, only `hidden_states` carries a gradient in and out: those in `pair` are ignored.
        """
        attended, weights, query, key = self.attention(
            self.layernorm_before(hidden_states), key_mask, output_attentions
        )
        hidden_states = hidden_states + attended
        trace = None
        if reducer is not None and pair is not None:
            num_text = pair.text.mask.shape[1]
            release = self.config.semantics == "release"
            evidence = collect_evidence(query, key, key_mask, num_text, reducer.uses_attention, release)
            pair, trace = reducer(layer, pair.with_states(hidden_states), evidence)
            hidden_states = pair.joined()
        expanded = self.activation(self.intermediate(self.layernorm_after(hidden_states)))
        return hidden_states + self.output(expanded), weights, pair, trace


@torch.no_grad()
def collect_evidence(
    query: Tensor, key: Tensor, key_mask: Tensor | None, num_text: int, with_attention: bool, release: bool
) -> Evidence:
    """Cut joint queries and keys (B, H, L, d) into the evidence of a reducer."""
    text_to_image = None
    if with_attention:
        text_rows = query[:, :, :num_text].float()
        text_to_image = attention_weights(text_rows, key.float(), key_mask, release)[..., num_text:]
    mean_key = mean_over_heads(key)
    return Evidence(text_to_image, text_keys=mean_key[:, :num_text], image_keys=mean_key[:, num_text:])


class PuMerViltEncoder(nn.Module):
    """The stack of layers.

    Modifications: tokens become fewer on the way, so the key mask is made anew after each reduction, and hidden states
    and attentions of later layers are shorter.
    """

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        self.layer = nn.ModuleList([PuMerViltLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(
        self,
        pair: TokenPair,
        padded: bool,
        reducer: TokenReducer | None,
        output_attentions: bool,
        output_hidden_states: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...], tuple[LayerTrace, ...]]:
        """Last hidden states, hidden states, attentions and traces; `padded` says that some token may be padding."""
        hidden_states, keys = pair.joined(), key_mask(pair.joined_mask(), padded)
        all_hidden_states, all_attentions, traces = [hidden_states], [], []
        for index, layer in enumerate(self.layer):
            if reducer is not None and index in reducer.config.layers:
                arguments = (hidden_states, keys, reducer, index, pair, output_attentions)
                hidden_states, weights, pair, trace = layer(*arguments)
                keys = key_mask(pair.joined_mask(), padded)
                traces.append(trace)
            else:
                hidden_states, weights, _, _ = layer(hidden_states, keys, None, index, None, output_attentions)
            if output_hidden_states:
                all_hidden_states.append(hidden_states)
            if output_attentions:
                all_attentions.append(weights)
        return hidden_states, tuple(all_hidden_states), tuple(all_attentions), tuple(traces)


class PuMerViltPooler(nn.Module):
    """Text [CLS], projected."""

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden_states[:, 0]))


class PuMerViltPreTrainedModel(PuMerPreTrainedModel):
    """What all ViLT models share."""

    config: PuMerViltConfig
    base_model_prefix = "vilt"
    main_input_name = "pixel_values"
    cross_modal_modules = ("encoder", "layernorm", "pooler", "reducer")
    _no_split_modules: ClassVar[list[str]] = ["PuMerViltEmbeddings", "PuMerViltLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PuMerViltEmbeddings):
            init.trunc_normal_(module.cls_token, std=self.config.initializer_range)
            dim = module.position_embeddings.shape[-1]
            positions = torch.cat([torch.zeros(1, dim), sine_cosine_positions(*module.grid, dim)])
            init.copy_(module.position_embeddings, positions.unsqueeze(0))

    @torch.no_grad()
    def resize_images(self, image_size: int) -> None:
        embeddings = self.base_model.embeddings
        height, width = _pair(self.config.patch_size)
        if image_size < 1 or image_size % height or image_size % width:
            raise ValueError(
                f"image_size={image_size} is not a multiple of config.patch_size={self.config.patch_size}"
            )
        grid = (image_size // height, image_size // width)
        patches = embeddings.resized_positions(None, *grid)
        embeddings.position_embeddings = nn.Parameter(
            torch.cat([embeddings.position_embeddings[:, :1], patches], dim=1)
        )
        embeddings.grid, self.config.image_size = grid, image_size


class PuMerViltModel(PuMerViltPreTrainedModel):
    """The ViLT encoder with token reduction as `config.reduction` says.

    Modifications: besides raster order and SDPA (see the parts), `image_embeds` is not an input.
    """

    def __init__(self, config: PuMerViltConfig):
        super().__init__(config)
        self.embeddings = PuMerViltEmbeddings(config)
        self.encoder = PuMerViltEncoder(config)
        self.reducer = self.make_reducer(config.reduction)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = PuMerViltPooler(config)
        self.pooled_size = config.hidden_size
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.text_embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.text_embeddings.word_embeddings = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        image_token_type_idx: int = 1,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        image_saliency: Tensor | None = None,
    ) -> PuMerModelOutput:
        """
        Args:
            input_ids: long (B, Lt), text tokens; or give `inputs_embeds`.
            attention_mask: (B, Lt), 1 for real text tokens, 0 for padding; default all 1.
            token_type_ids: long (B, Lt), BERT's segment ids; default all 0.
            pixel_values: float (B, 3, height, width), of any size.
            pixel_mask: (B, height, width), 1 for pixels of the image, 0 for padding right and below; default all 1.
            inputs_embeds: float (B, Lt, D), instead of `input_ids`.
            image_token_type_idx: modality embedding of the image; NLVR2's second image has 2.
            output_attentions: return the attention probabilities (B, H, L, L) of each layer, L being the tokens that
                come into it.
            output_hidden_states: return the hidden states (B, L, D), embeddings first.
            image_saliency: float (B, rows, columns), of any resolution, over the whole canvas, padding included: what
                is worth keeping, from outside the model, for the method that asks for it (`grounded`).

        Returns:
            [`PuMerModelOutput`]: `last_hidden_state` holds the surviving text tokens, then the image tokens.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if pixel_values is None:
            raise ValueError("give pixel_values")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if inputs_embeds.shape[0] != pixel_values.shape[0]:
            raise ValueError(
                f"{inputs_embeds.shape[0]} texts, but {pixel_values.shape[0]} images: give as many of each"
            )
        padded = attention_mask is not None or pixel_mask is not None
        if attention_mask is None:
            attention_mask = inputs_embeds.new_ones(inputs_embeds.shape[:2])
        text, image, image_mask, prior, grid = self.embeddings(
            inputs_embeds, token_type_ids, pixel_values, pixel_mask, image_token_type_idx, image_saliency
        )
        pair = TokenPair(Tokens.initial(text, attention_mask.bool()), Tokens.initial(image, image_mask, prior, grid))
        if self.config.semantics == "release":
            pair = with_float_masks(pair)
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        last, hidden_states, attentions, traces = self.encoder(
            pair, padded, self.reducer, bool(output_attentions), bool(output_hidden_states)
        )
        last = self.layernorm(last)
        return PuMerModelOutput(
            last_hidden_state=last,
            pooler_output=self.pooler(last),
            hidden_states=hidden_states if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
            reduction=traces,
        )


class PuMerViltForQuestionAnswering(PuMerViltPreTrainedModel, ClassifierHead):
    """ViLT with a classifier over answers, for VQA; `labels` float (B, num_labels) are soft targets in [0, 1]."""

    backbone_class = PuMerViltModel
    criterion = staticmethod(soft_target_loss)


class PuMerViltForVisualEntailment(PuMerViltPreTrainedModel, ClassifierHead):
    """ViLT with a classifier over entailment, neutral and contradiction, for SNLI-VE; `labels` long (B,)."""

    backbone_class = PuMerViltModel
    criterion = staticmethod(classification_loss)


class PuMerViltForImageAndTextRetrieval(PuMerViltPreTrainedModel, RetrievalHead):
    """ViLT with a score of how well image and text match."""

    backbone_class = PuMerViltModel


class PuMerViltForImagesAndTextClassification(PuMerViltPreTrainedModel, ImagesClassifierHead):
    """ViLT with a classifier over several images and one text, for NLVR2."""

    backbone_class = PuMerViltModel
