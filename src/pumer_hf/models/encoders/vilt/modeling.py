"""The ViLT models: `PuMerViltModel`, and with the heads of the tasks."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForVisualQuestionAnswering
from transformers import initialization as init
from transformers.utils.generic import can_return_tuple

from ....tokens import TokenPair, Tokens
from ..attention import key_mask
from ..base import PuMerPreTrainedModel
from ..embeddings import sine_cosine_positions
from ..heads import ClassifierHead, ImagesClassifierHead, RetrievalHead, classification_loss, soft_target_loss
from ..outputs import ChosenStates, PuMerModelOutput, chosen_states
from ..release import with_float_masks
from .configuration import PuMerViltConfig
from .embeddings import PuMerViltEmbeddings, pair_of
from .layers import PuMerViltLayer


class PuMerViltEncoder(nn.Module):
    """The stack of layers.

    Modifications: it only holds them; the model runs them, as nothing but the model need then keep what came in.
    """

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        self.layer = nn.ModuleList([PuMerViltLayer(config) for _ in range(config.num_hidden_layers)])


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
    def _resize_images(self, image_size: int) -> None:
        embeddings = self.base_model.embeddings
        height, width = pair_of(self.config.patch_size)
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
        output_hidden_states: ChosenStates = None,
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
                come into it; with `config.pooled_only` (B, H, 1, L) of the last.
            output_hidden_states: return the hidden states (B, L, D), embeddings first, or those at some indices; with
                `config.pooled_only` the last are of the text [CLS] alone.
            image_saliency: float (B, rows, columns), of any resolution, over the whole canvas, padding included: what
                is worth keeping, from outside the model, for the method that asks for it (`grounded`).

        Returns:
            [`PuMerModelOutput`]: `last_hidden_state` holds the surviving text tokens, then the image tokens; with
            `config.pooled_only` the text [CLS] alone.
        """
        padded = attention_mask is not None or pixel_mask is not None
        hidden_states, pair = self.embed(
            input_ids,
            attention_mask,
            token_type_ids,
            pixel_values,
            pixel_mask,
            inputs_embeds,
            image_token_type_idx,
            image_saliency,
        )
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        chosen = chosen_states(output_hidden_states, 1 + len(self.encoder.layer))
        rows = self.rows_at_once(hidden_states.shape[0], pair.text.mask.shape[1], pair.image.mask.shape[1])
        keys = key_mask(pair.joined_mask(), padded)
        all_hidden_states, all_attentions, traces = [hidden_states if chosen and 0 in chosen else None], [], []
        for index, layer in enumerate(self.encoder.layer):
            plan = self.plan(index, bool(output_attentions), rows)
            hidden_states, weights, pair, trace = layer(hidden_states, keys, pair, plan)
            pair = pair.with_states(hidden_states)
            if trace is not None:
                keys = key_mask(pair.joined_mask(), padded)
                traces.append(trace)
            all_hidden_states.append(hidden_states if chosen and index + 1 in chosen else None)
            all_attentions.append(weights)
        last = self.layernorm(hidden_states)
        return PuMerModelOutput(
            last_hidden_state=last,
            pooler_output=self.pooler(last),
            hidden_states=None if chosen is None else tuple(all_hidden_states),
            attentions=tuple(all_attentions) if output_attentions else None,
            reduction=tuple(traces),
        )

    def embed(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        pixel_values: Tensor | None,
        pixel_mask: Tensor | None,
        inputs_embeds: Tensor | None,
        image_token_type_idx: int,
        image_saliency: Tensor | None,
    ) -> tuple[Tensor, TokenPair]:
        """The tokens that come into the first layer, joined and as a pair; arguments as in `forward`."""
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
        if attention_mask is None:
            attention_mask = inputs_embeds.new_ones(inputs_embeds.shape[:2])
        text, image, image_mask, prior, grid = self.embeddings(
            inputs_embeds, token_type_ids, pixel_values, pixel_mask, image_token_type_idx, image_saliency
        )
        hidden_states = torch.cat([text, image], dim=1)
        text, image = hidden_states.split([text.shape[1], image.shape[1]], dim=1)  # so that nothing is there twice
        pair = TokenPair(Tokens.initial(text, attention_mask.bool()), Tokens.initial(image, image_mask, prior, grid))
        if self.config.semantics == "release":
            pair = with_float_masks(pair)
        return hidden_states, pair


class PuMerViltForQuestionAnswering(PuMerViltPreTrainedModel, ClassifierHead):
    """ViLT with a classifier over answers, for VQA; `labels` float (B, num_labels) are soft targets in [0, 1]."""

    backbone_class = PuMerViltModel
    auto_class = AutoModelForVisualQuestionAnswering
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
