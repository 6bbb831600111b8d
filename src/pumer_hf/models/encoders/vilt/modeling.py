"""The ViLT models: `PuMerViltModel`, and a model for each head."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils.generic import can_return_tuple

from ....tokens import TokenPair, Tokens
from ..attention import AttentionKernel
from ..base import InputSite, PuMerPreTrainedModel
from ..embeddings import sine_cosine_positions
from ..heads import ImagesClassifierHead, QuestionAnsweringHead, RetrievalHead, VisualEntailmentHead
from ..inputs import BackboneInputs, check_batch
from ..outputs import ChosenStates, LayerRecord, PuMerModelOutput
from ..release import KERNELS
from .configuration import PuMerViltConfig, as_size
from .embeddings import PuMerViltEmbeddings
from .layers import PuMerViltLayer


class PuMerViltEncoder(nn.Module):
    """The stack of layers.

    Modifications: this module only holds the layers; the model runs them. So the states that come into a layer are
    freed as soon as no layer needs them.
    """

    def __init__(self, config: PuMerViltConfig, kernel: AttentionKernel):
        super().__init__()
        self.layer = nn.ModuleList([PuMerViltLayer(config, kernel) for _ in range(config.num_hidden_layers)])


class PuMerViltPooler(nn.Module):
    """The projection of the text [CLS]."""

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden_states[:, 0]))


class PuMerViltPreTrainedModel(PuMerPreTrainedModel):
    """The base of the ViLT models."""

    config: PuMerViltConfig
    base_model_prefix = "vilt"
    cross_modal_modules = ("encoder", "layernorm", "pooler", "inputs", "reducer")
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
        height, width = as_size(self.config.patch_size)
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
    """The ViLT encoder, which reduces tokens as `config.reduction` says.

    Modifications: patches are in raster order, and attention is fused (see the parts). `image_embeds` is not an input.
    """

    def __init__(self, config: PuMerViltConfig):
        super().__init__(config)
        self.embeddings = PuMerViltEmbeddings(config)
        self.kernel = KERNELS[config.semantics]()
        self.encoder = PuMerViltEncoder(config, self.kernel)
        self.inputs = InputSite(config)
        self.token_reduction.build()
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
        """Run the model.

        Args:
            input_ids: long (B, Lt), text tokens; or give `inputs_embeds`.
            attention_mask: (B, Lt), 1 for real text tokens, 0 for padding; default all 1.
            token_type_ids: long (B, Lt), BERT's segment ids; default all 0.
            pixel_values: float (B, 3, height, width), of any size.
            pixel_mask: (B, height, width), 1 for pixels of the image, 0 for padding right and below; default all 1.
            inputs_embeds: float (B, Lt, D), instead of `input_ids`.
            image_token_type_idx: index of the modality embedding of the image. NLVR2's second image has 2.
            output_attentions: return the attention probabilities (B, H, L, L) of each layer. L is the number of tokens
                that come into it. With `config.pooled_only` those of the last layer are (B, H, 1, L).
            output_hidden_states: return the hidden states (B, L, D), embeddings first, or those at some indices. With
                `config.pooled_only` the last ones are of the text [CLS] alone.
            image_saliency: float (B, rows, columns), a map from outside the model that says what is worth keeping, for
                the method `grounded`. It has any resolution and covers the whole canvas, padding included.

        Returns:
            [`PuMerModelOutput`]. `last_hidden_state` holds the text tokens that are left, then the image tokens. With
            `config.pooled_only` it holds the text [CLS] alone.
        """
        inputs = BackboneInputs(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            pixel_values=pixel_values,
            pixel_mask=pixel_mask,
            inputs_embeds=inputs_embeds,
            image_saliency=image_saliency,
        )
        record = LayerRecord.asked(self.config, output_attentions, output_hidden_states)
        pair = self.reduce_inputs(self.embed(inputs, image_token_type_idx), record)
        hidden_states, pair = pair.joined(), pair.without_states()
        record.add_states(hidden_states)
        for layer, plan in zip(self.encoder.layer, self.plans(pair, record.with_attentions), strict=False):
            hidden_states, pair, attentions, trace = layer(hidden_states, pair, plan)
            record.add_layer(attentions, trace)
            record.add_states(hidden_states)
        last = self.layernorm(hidden_states)
        return PuMerModelOutput(last_hidden_state=last, pooler_output=self.pooler(last), **record.fields())

    def embed(self, inputs: BackboneInputs, image_token_type_idx: int) -> TokenPair:
        """Make the tokens that come into the first layer. Arguments are as in `forward`."""
        words, pixel_values = inputs["inputs_embeds"], inputs["pixel_values"]
        if (inputs["input_ids"] is None) == (words is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if pixel_values is None:
            raise ValueError("give pixel_values")
        if words is None:
            words = self.get_input_embeddings()(inputs["input_ids"])
        check_batch(words, pixel_values)
        text, image, image_mask, prior, grid = self.embeddings(words, inputs, image_token_type_idx)
        text_mask = None if inputs["attention_mask"] is None else inputs["attention_mask"].bool()
        return self.kernel.begin(
            TokenPair(Tokens.initial(text, text_mask), Tokens.initial(image, image_mask, prior, grid))
        )


class PuMerViltForQuestionAnswering(PuMerViltPreTrainedModel, QuestionAnsweringHead):
    """ViLT with a classifier over answers, for VQA; `labels` float (B, num_labels) are soft targets in [0, 1]."""

    backbone_class = PuMerViltModel


class PuMerViltForVisualEntailment(PuMerViltPreTrainedModel, VisualEntailmentHead):
    """ViLT with a classifier over entailment, neutral and contradiction, for SNLI-VE; `labels` long (B,)."""

    backbone_class = PuMerViltModel


class PuMerViltForImageAndTextRetrieval(PuMerViltPreTrainedModel, RetrievalHead):
    """ViLT with a score of how well image and text match."""

    backbone_class = PuMerViltModel


class PuMerViltForImagesAndTextClassification(PuMerViltPreTrainedModel, ImagesClassifierHead):
    """ViLT with a classifier over several images and one text, for NLVR2."""

    backbone_class = PuMerViltModel
