"""METER with token reduction: the model and its four heads."""

from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, RobertaModel
from transformers.utils.generic import can_return_tuple

from ....reducers import AnyReduction
from ....reducers.release import MeterReleaseReducer
from ....tokens import LayerTrace, TokenPair, Tokens
from ...reduction import ReducerHost
from ..base import InputSite, PuMerPreTrainedModel
from ..embeddings import modality_embeddings, patch_saliency
from ..heads import ImagesClassifierHead, QuestionAnsweringHead, RetrievalHead, VisualEntailmentHead
from ..inputs import BackboneInputs, check_batch
from ..outputs import ChosenStates, LayerRecord, PuMerModelOutput
from ..plan import LayerPlan
from ..release import KERNELS
from .configuration import PuMerMeterConfig
from .layers import PuMerMeterCrossBlock
from .towers import PuMerMeterVisionModel, encoded_tokens, vision_weights


class PuMerMeterPooler(nn.Module):
    """The projection of the [CLS] of one modality."""

    def __init__(self, config: PuMerMeterConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """Project the first of the states (B, L, D): float (B, D)."""
        return torch.tanh(self.dense(states[:, 0]))


class MeterInputs(BackboneInputs):
    """The tensors that METER takes, by name. They include texts and images that its towers have already encoded."""

    text_embeds: Tensor | None
    image_embeds: Tensor | None
    image_source: Tensor | None


def recorded(record: LayerRecord, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Record the joined states, float (B, Lt, D) and (B, Lv, D), if they are asked for.

    Returns:
        The same states. If they were recorded, they are parts of the joined tensor, so that it gets a gradient.
    """
    if not record.wants_states:
        record.add_states(None)
        return text, image
    joined = torch.cat([text, image], dim=1)
    record.add_states(joined)
    text, image = joined.split([text.shape[1], image.shape[1]], dim=1)
    return text, image


class PuMerMeterPreTrainedModel(PuMerPreTrainedModel):
    """The base of the METER models."""

    config: PuMerMeterConfig
    base_model_prefix = "meter"
    release_reducer = MeterReleaseReducer
    cross_modal_modules = (
        "text_projection",
        "image_projection",
        "pairs",
        "text_pooler",
        "image_pooler",
        "inputs",
        "reducer",
    )
    _no_split_modules: ClassVar = ["RobertaEmbeddings", "RobertaLayer", *PuMerMeterVisionModel._no_split_modules]

    @classmethod
    def from_towers(
        cls,
        clip_id: str,
        roberta_id: str,
        *,
        image_size: int = 384,
        reduction: AnyReduction = None,
        **config_overrides: Any,
    ) -> "PuMerMeterPreTrainedModel":
        """Make a model with pretrained towers and new cross-layers.

        Args:
            clip_id: Hub id or folder of a CLIP model (`openai/clip-vit-base-patch16`). Its last block is dropped.
            roberta_id: Hub id or folder of a RoBERTa model (`roberta-base`).
            image_size: side of the square image in pixels; the position embeddings are interpolated to it.
            reduction: as in [`PuMerMeterConfig`].
            **config_overrides: other fields of [`PuMerMeterConfig`].
        """
        clip = CLIPVisionModel.from_pretrained(clip_id)
        roberta = RobertaModel.from_pretrained(roberta_id, add_pooling_layer=False)
        vision_config = {**clip.config.to_dict(), "num_hidden_layers": clip.config.num_hidden_layers - 1}
        config = PuMerMeterConfig(
            text_config=roberta.config,
            vision_config=vision_config,
            image_size=image_size,
            reduction=reduction,
            **config_overrides,
        )
        model = cls(config)
        backbone = model.base_model
        backbone.text_model.load_state_dict(roberta.state_dict())
        backbone.vision_model.load_state_dict(vision_weights(clip.state_dict(), backbone.vision_model))
        return model

    @torch.no_grad()
    def _resize_images(self, image_size: int) -> None:
        self.config.vision_config.image_size = image_size
        self.config.image_size = image_size  # this checks the size
        tower = self.base_model.vision_model
        weights, resized = tower.state_dict(), PuMerMeterVisionModel(self.config.vision_config)
        resized.load_state_dict(vision_weights(weights, resized))
        resized.reducer = tower.reducer
        self.base_model.vision_model = resized.to(device=tower.device, dtype=tower.dtype).train(tower.training)


class PuMerMeterModel(PuMerMeterPreTrainedModel):
    """METER, which reduces tokens as `config.reduction` says."""

    def __init__(self, config: PuMerMeterConfig):
        super().__init__(config)
        self.text_model = RobertaModel(config.text_config, add_pooling_layer=False)
        self.vision_model = PuMerMeterVisionModel(config.vision_config)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.hidden_size)
        self.image_projection = nn.Linear(config.vision_config.hidden_size, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.modality_type_vocab_size, config.hidden_size)
        self.kernel = KERNELS[config.semantics]()
        blocks = [PuMerMeterCrossBlock(config, self.kernel) for _ in range(config.num_hidden_layers)]
        self.pairs = nn.ModuleList(blocks)  # the name in saved weights
        self.inputs = InputSite(config)
        self.token_reduction.build()
        self.text_pooler = PuMerMeterPooler(config)
        self.image_pooler = PuMerMeterPooler(config)
        self.pooled_size = config.hidden_size * 2
        self.post_init()

    def reducer_hosts(self) -> dict[str, ReducerHost]:
        return {"tower": self.vision_model, **super().reducer_hosts()}

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embeddings of the text tower."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings of the text tower."""
        self.text_model.set_input_embeddings(value)

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
        text_embeds: Tensor | None = None,
        image_embeds: Tensor | None = None,
        image_saliency: Tensor | None = None,
        image_source: Tensor | None = None,
    ) -> PuMerModelOutput:
        """Run the model.

        Args:
            input_ids: long (B, Lt), text tokens; or give `inputs_embeds`.
            attention_mask: (B, Lt), 1 for real text tokens, 0 for padding; default all 1.
            token_type_ids: long (B, Lt), RoBERTa's segment ids; default all 0, the only one that roberta-base has.
            pixel_values: float (B, 3, image_size, image_size).
            pixel_mask: (B, image_size, image_size), all 1 if given: METER sees square images without padding.
            inputs_embeds: float (B, Lt, D), instead of `input_ids`.
            image_token_type_idx: index of the modality embedding of the image. NLVR2's second image has 2.
            output_attentions: return the four kinds of attention probabilities of each block ([`PuMerModelOutput`]).
            output_hidden_states: return the hidden states (B, Lt + Lv, D), text and then image, or those at some
                indices. The first come into the first block, the others leave a block. With `config.pooled_only`, only
                the [CLS] of text and image leave the last block.
            text_embeds: float (B, Lt, D), the result of [`encode_text`], instead of `input_ids`.
            image_embeds: float (B, Lv, D), the first result of [`encode_image`], instead of `pixel_values`. It is an
                error if the image tower chooses by the text.
            image_source: long (B, 1 + P), the second result of [`encode_image`]; None if the tower reduces nothing.
            image_saliency: float (B, rows, columns), a map from outside the model that says what is worth keeping, for
                the method `grounded`. It has any resolution and covers the whole canvas, padding included.

        Returns:
            [`PuMerModelOutput`]. `last_hidden_state` (B, Lt + Lv, D) holds the text tokens that are left, then the
            image tokens. With `config.pooled_only` it holds the [CLS] of each alone. `pooler_output` (B, 2 * D) holds
            the text [CLS] and the image [CLS].
        """
        if pixel_mask is not None and not pixel_mask.all():
            raise ValueError("pixel_mask has zeros, but METER takes square images without padding: resize the images")
        inputs = MeterInputs(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            pixel_values=pixel_values,
            pixel_mask=pixel_mask,
            inputs_embeds=inputs_embeds,
            image_saliency=image_saliency,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            image_source=image_source,
        )
        record = LayerRecord.asked(self.config, output_attentions, output_hidden_states)
        pair = self.reduce_inputs(self.embed(inputs, image_token_type_idx, record), record)
        text, image = recorded(record, pair.text.states, pair.image.states)
        pair = pair.without_states()
        for block, plan in zip(self.pairs, self.plans(pair, record.with_attentions), strict=False):
            text, image, pair, attentions, trace = block(text, image, pair, plan)
            record.add_layer(attentions, trace)
            text, image = recorded(record, text, image)
        return PuMerModelOutput(
            last_hidden_state=torch.cat([text, image], dim=1),
            pooler_output=torch.cat([self.text_pooler(text), self.image_pooler(image)], dim=-1),
            **record.fields(),
        )

    def embed(self, inputs: MeterInputs, image_token_type_idx: int, record: LayerRecord | None = None) -> TokenPair:
        """Make the tokens that come into the first block, and record the traces of the image tower.

        Arguments are as in `forward`.
        """
        text, image, source = inputs["text_embeds"], inputs["image_embeds"], inputs["image_source"]
        if text is None:
            text = self.encode_text(
                inputs["input_ids"], inputs["attention_mask"], inputs["token_type_ids"], inputs["inputs_embeds"]
            )
        text_mask = None if inputs["attention_mask"] is None else inputs["attention_mask"].bool()
        text_tokens, tower = Tokens.initial(text, text_mask), None
        if image is None:
            tower, traces = self.run_tower(inputs["pixel_values"], text_tokens)
            image, source = tower.states, tower.source
            if record is not None:
                record.traces.extend(traces)
        elif self.tower_reads_text:
            raise text_error("image_embeds")
        check_batch(text, image)
        text_type, image_type = modality_embeddings(self.token_type_embeddings, image_token_type_idx, text.device)
        side = self.config.image_size // self.vision_model.config.patch_size
        saliency = inputs["image_saliency"]
        prior = None if saliency is None else patch_saliency(saliency, (side, side))
        image_tokens = encoded_tokens(image + image_type, source, prior, (side, side))
        if tower is not None and tower.prior is not None:  # a scorer of the tower has predicted it
            image_tokens = replace(image_tokens, prior=tower.prior, gate=tower.gate)
        return self.kernel.begin(TokenPair(replace(text_tokens, states=text + text_type), image_tokens))

    def encode_text(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Run the text tower and its projection: float (B, Lt, D). Inputs are as in `forward`."""
        given = input_ids if inputs_embeds is None else inputs_embeds
        if given is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("give either input_ids or inputs_embeds")
        limit = self.config.max_text_length
        if given.shape[1] > limit:
            raise ValueError(
                f"the text has {given.shape[1]} tokens, but the text tower takes {limit}: truncate it "
                f"(processor(..., truncation=True, max_length={limit}))"
            )
        states = self.text_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
        ).last_hidden_state
        return self.text_projection(states)

    def encode_image(self, pixel_values: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run the image tower and its projection.

        Args:
            pixel_values: float (B, 3, image_size, image_size).

        Returns:
            The tokens, float (B, Lv, D), and the token that holds the [CLS] and each patch, long (B, 1 + P), -1 for a
            patch that was dropped. There are fewer than 1 + P tokens if the schedule has a part at site `"tower"`.

        Raises:
            ValueError: the image tower chooses by the text ([`tower_reads_text`]).
        """
        if self.tower_reads_text:
            raise text_error("encode_image")
        tokens, _ = self.run_tower(pixel_values, None)
        return tokens.states, tokens.source

    @property
    def tower_reads_text(self) -> bool:
        """Whether the image tower chooses patches by the text. Then an image has other tokens for each text."""
        reducer = self.vision_model.reducer
        return reducer is not None and reducer.uses_text

    def run_tower(self, pixel_values: Tensor | None, text: Tokens | None) -> tuple[Tokens, tuple[LayerTrace, ...]]:
        """Run the image tower and its projection.

        Args:
            pixel_values: float (B, 3, image_size, image_size).
            text: the result of [`encode_text`] with its mask. The tower reads it only if [`tower_reads_text`].

        Returns:
            The tokens that leave the tower, with states float (B, Lv, D); and the traces of its layers. The traces say
            that the text stays as it is.
        """
        if pixel_values is None:
            raise ValueError("give pixel_values")
        expected = (self.vision_model.config.num_channels, self.config.image_size, self.config.image_size)
        if tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}: expected (batch, {str(expected)[1:]}"
            )
        if text is not None:
            check_batch(text.states, pixel_values)
        plans = self.tower_plans(pixel_values.shape[0])
        tokens, traces = self.vision_model(pixel_values, plans, text if self.tower_reads_text else None)
        if text is not None:
            num_text, source = text.mask.shape[1], text.source
            traces = tuple(replace(trace, num_text=num_text, text_source=source) for trace in traces)
        return replace(tokens, states=self.image_projection(tokens.states)), traces

    def tower_plans(self, batch_size: int) -> list[LayerPlan]:
        """Return what each layer of the image tower has to do.

        A layer that would remove no token gets no reducer, unless it is one that reads the text: it predicts.
        """
        lengths = [self.vision_model.embeddings.num_positions]
        lengths += [num_image for _, num_image in self.token_reduction.lengths_at("tower", 0, lengths[0])]
        chunk = self.chunk_size(batch_size, 1, lengths[-1])
        reducer = self.vision_model.reducer
        plans = []
        for index, (before, after) in enumerate(pairwise(lengths)):
            own = reducer.at(index) if reducer is not None and reducer.config.reduces(index) else None
            acts = own is not None and (own.uses_text or after < before)
            plans.append(LayerPlan(index, own if acts else None, chunk=chunk))
        return plans


def text_error(given: str) -> ValueError:
    """Make the error for an image that was `given` without its text."""
    return ValueError(
        f"{given}: the image tower chooses patches by the text (a part of reduction has method 'lookahead' and site "
        "'tower'), so an image cannot be encoded alone: give pixel_values and input_ids"
    )


class PuMerMeterForQuestionAnswering(PuMerMeterPreTrainedModel, QuestionAnsweringHead):
    """METER with a classifier over answers, for VQA; `labels` float (B, num_labels) are soft targets in [0, 1]."""

    backbone_class = PuMerMeterModel


class PuMerMeterForVisualEntailment(PuMerMeterPreTrainedModel, VisualEntailmentHead):
    """METER with a classifier over entailment, neutral and contradiction, for SNLI-VE; `labels` long (B,)."""

    backbone_class = PuMerMeterModel


class PuMerMeterForImageAndTextRetrieval(PuMerMeterPreTrainedModel, RetrievalHead):
    """METER with a score of how well image and text match."""

    backbone_class = PuMerMeterModel

    def encode_texts(self, texts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run the text tower."""
        return {"text_embeds": self.base_model.encode_text(**texts), "attention_mask": texts["attention_mask"]}

    def encode_images(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run the image tower. If it chooses by the text, it runs in [`score`], for each text with each image."""
        if self.base_model.tower_reads_text:
            return {"pixel_values": images["pixel_values"]}
        embeds, source = self.base_model.encode_image(images["pixel_values"])
        return {"image_embeds": embeds, "image_source": source}

    def score(self, texts: dict[str, Tensor], images: dict[str, Tensor]) -> Tensor:
        outputs = self.base_model(**texts, **images, return_dict=True)
        return self.rank_output(outputs.pooler_output)[:, 0]


class PuMerMeterForImagesAndTextClassification(PuMerMeterPreTrainedModel, ImagesClassifierHead):
    """METER with a classifier over several images and one text, for NLVR2."""

    backbone_class = PuMerMeterModel
