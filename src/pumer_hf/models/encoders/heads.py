"""The task heads of both model families, their losses, and the candidate layout of retrieval.

A family derives its heads from these classes and names its backbone in `backbone_class`. All backbones take the same
inputs: [`PuMerViltModel.forward`], [`PuMerMeterModel.forward`].
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, PreTrainedConfig
from transformers.utils.generic import can_return_tuple, maybe_autocast

from .base import PuMerPreTrainedModel
from .outputs import ChosenStates, PuMerClassifierOutput, joint_output, single_output


class LogitsLinear(nn.Linear):
    """The last layer of every head: it computes and returns float32, whatever the weights and autocast are in.

    In bfloat16 different inputs often get the same logit, so that scores of retrieval tie, and the best answers too.
    """

    def forward(self, input: Tensor) -> Tensor:
        dtype = torch.promote_types(input.dtype, torch.float32)  # float64 stays
        bias = None if self.bias is None else self.bias.to(dtype)
        with maybe_autocast(input.device.type, enabled=False):
            return F.linear(input.to(dtype), self.weight.to(dtype), bias)


def classifier_head(in_features: int, hidden_features: int, num_labels: int) -> nn.Sequential:
    """Two-layer classifier with LayerNorm and GELU; its logits are float32."""
    return nn.Sequential(
        nn.Linear(in_features, hidden_features),
        nn.LayerNorm(hidden_features),
        nn.GELU(),
        LogitsLinear(hidden_features, num_labels),
    )


def soft_target_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """VQA loss: binary cross-entropy of each label, summed over the labels and averaged over the batch.

    Args:
        logits: float (B, num_labels).
        labels: float (B, num_labels), soft targets in [0, 1]: how right each answer is.
    """
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels has shape {tuple(labels.shape)}: soft targets of shape {tuple(logits.shape)} are expected"
        )
    loss = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="sum")
    return loss / logits.shape[0]


INPUT_DIMS = {
    "input_ids": 2,
    "attention_mask": 2,
    "token_type_ids": 2,
    "inputs_embeds": 3,
    "pixel_values": 4,
    "pixel_mask": 3,
    "image_saliency": 3,
}
"""Dimensions of the inputs of a backbone, which retrieval takes with one more for candidates."""


def to_candidates(inputs: Mapping[str, Tensor | None]) -> tuple[dict[str, Tensor | None], int]:
    """Lay retrieval inputs out as one text and one image per candidate.

    K candidates of each of B queries come as K texts for one image (`input_ids` (B, K, Lt), `pixel_values`
    (B, 3, h, w)), as K images for one text ((B, Lt) and (B, K, 3, h, w)), or as K pairs ((B, K, Lt) and
    (B, K, 3, h, w)). Plain pairs ((B, Lt) and (B, 3, h, w)) have K = 1.

    Args:
        inputs: those of the backbone by name, keys of `INPUT_DIMS`; None where there are none.

    Returns:
        The inputs with batch size B * K, and K.
    """
    numbers = {
        name: value.shape[1] if value.ndim > INPUT_DIMS[name] else 1
        for name, value in inputs.items()
        if value is not None
    }
    candidates = max(numbers.values())
    if not set(numbers.values()) <= {1, candidates}:
        found = ", ".join(f"{number} {name}" for name, number in numbers.items())
        raise ValueError(f"{found} per example: give one of each text or image, or as many as candidates")

    def spread(value: Tensor, dims: int) -> Tensor:
        if value.ndim == dims:
            value = value.unsqueeze(1)
        return value.expand(-1, candidates, *value.shape[2:]).flatten(0, 1)

    laid = {name: None if value is None else spread(value, INPUT_DIMS[name]) for name, value in inputs.items()}
    return laid, candidates


def validate_num_images(num_images: int, modality_type_vocab_size: int) -> None:
    """Raise `ValueError` if a config cannot tell `num_images` images of an example apart."""
    if num_images < 1:
        raise ValueError(f"config.num_images={num_images}: set it to the images per example (NLVR2: 2)")
    if modality_type_vocab_size <= num_images:
        raise ValueError(
            f"config.modality_type_vocab_size={modality_type_vocab_size} is too small for num_images={num_images}: "
            f"set it to {num_images + 1}"
        )


def split_images(pixel_values: Tensor | None, num_images: int) -> tuple[Tensor, ...]:
    """The images of each example, float (B, num_images, 3, h, w), as `num_images` batches (B, 3, h, w)."""
    if pixel_values is None or pixel_values.ndim != 5 or pixel_values.shape[1] != num_images:
        shape = None if pixel_values is None else tuple(pixel_values.shape)
        raise ValueError(f"pixel_values has shape {shape}: expected (batch, {num_images}, channels, height, width)")
    return pixel_values.unbind(dim=1)


def ranking_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Retrieval loss: cross-entropy of the matching candidate among all.

    Args:
        scores: float (B, K).
        labels: long (B,), index of the matching candidate.
    """
    if scores.shape[1] < 2:
        raise ValueError(
            "labels of retrieval say which candidate matches, so give at least two: input_ids of shape (batch, "
            "candidates, length) or pixel_values of shape (batch, candidates, 3, height, width)"
        )
    return F.cross_entropy(scores.float(), labels)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy; `labels` long (B,)."""
    return F.cross_entropy(logits.float(), labels)


class Head(PuMerPreTrainedModel):
    """A model that reads the pooled output of a backbone, which is its attribute `base_model_prefix`."""

    backbone_class: ClassVar[type[PuMerPreTrainedModel]]
    auto_class: ClassVar[Any] = AutoModelForSequenceClassification
    """The Auto class that loads a model with this head."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.add_module(self.base_model_prefix, self.backbone_class(config))


class ClassifierHead(Head):
    """A classifier of one text and one image."""

    @staticmethod
    def criterion(logits: Tensor, labels: Tensor) -> Tensor:
        """The loss."""
        raise NotImplementedError

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.classifier = classifier_head(self.base_model.pooled_size, config.hidden_size * 2, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: ChosenStates = None,
        image_saliency: Tensor | None = None,
    ) -> PuMerClassifierOutput:
        """Inputs as in the `forward` of the backbone; `labels` as `criterion` takes them.

        Returns:
            [`PuMerClassifierOutput`] with `logits` float32 (B, num_labels).
        """
        outputs = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            pixel_values=pixel_values,
            pixel_mask=pixel_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            image_saliency=image_saliency,
            return_dict=True,
        )
        logits = self.classifier(outputs.pooler_output)
        return single_output(outputs, logits, None if labels is None else self.criterion(logits, labels))


class RetrievalHead(Head):
    """A score of how well image and text match.

    Several candidates per example give a ranking loss; in the paper they are one positive and 15 negatives.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.rank_output = LogitsLinear(self.base_model.pooled_size, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: ChosenStates = None,
        image_saliency: Tensor | None = None,
    ) -> PuMerClassifierOutput:
        """
        Args:
            input_ids: long (B, Lt), or (B, K, Lt) for K candidate texts; or give `inputs_embeds`.
            attention_mask: (B, Lt) or (B, K, Lt), 1 for real text tokens, 0 for padding; default all 1.
            token_type_ids: long (B, Lt) or (B, K, Lt), as in the `forward` of the backbone; default all 0.
            pixel_values: float (B, 3, h, w), or (B, K, 3, h, w) for K candidate images.
            pixel_mask: (B, h, w) or (B, K, h, w), as in the `forward` of the backbone.
            inputs_embeds: float (B, Lt, D) or (B, K, Lt, D), instead of `input_ids`.
            labels: long (B,), which of the K >= 2 candidates matches.
            output_attentions: return the attention probabilities.
            output_hidden_states: return the hidden states.
            image_saliency: (B, rows, columns) or (B, K, rows, columns), as in the `forward` of the backbone.

        Returns:
            [`PuMerClassifierOutput`] with `logits` float32 (B, K), the matching scores.
        """
        if pixel_values is None:
            raise ValueError("give pixel_values")
        inputs, candidates = to_candidates(
            {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "token_type_ids": token_type_ids,
                "pixel_values": pixel_values,
                "pixel_mask": pixel_mask,
                "inputs_embeds": inputs_embeds,
                "image_saliency": image_saliency,
            }
        )
        outputs = self.base_model(
            **inputs, output_attentions=output_attentions, output_hidden_states=output_hidden_states, return_dict=True
        )
        logits = self.rank_output(outputs.pooler_output).view(-1, candidates)
        return single_output(outputs, logits, None if labels is None else ranking_loss(logits, labels))

    def encode_texts(self, texts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute of texts what does not depend on the image, once for all images that they are scored with.

        Without layers for the text alone there is nothing to compute.

        Args:
            texts: the inputs of `forward` that tell of a text, a row for each.

        Returns:
            What `score` takes.
        """
        return texts

    def encode_images(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute of images what does not depend on the text; as [`encode_texts`]."""
        return images

    def score(self, texts: dict[str, Tensor], images: dict[str, Tensor]) -> Tensor:
        """Scores float32 (B,) of texts and images, the first with the first and so on.

        Args:
            texts: from [`encode_texts`].
            images: from [`encode_images`], as many.
        """
        return self(**texts, **images, return_dict=True).logits[:, 0]


class ImagesClassifierHead(Head):
    """A classifier of several images and one text, for NLVR2. Each image passes with the text on its own."""

    def __init__(self, config: PreTrainedConfig):
        validate_num_images(config.num_images, config.modality_type_vocab_size)
        super().__init__(config)
        pooled = self.base_model.pooled_size * config.num_images
        self.classifier = classifier_head(pooled, config.hidden_size * config.num_images, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: ChosenStates = None,
        image_saliency: Tensor | None = None,
    ) -> PuMerClassifierOutput:
        """Inputs as in the `forward` of the backbone, but `pixel_values` (B, num_images, 3, h, w), `pixel_mask`
        (B, num_images, h, w) and `image_saliency` (B, num_images, rows, columns); `labels` long (B,) are classes.

        Returns:
            [`PuMerClassifierOutput`] with `logits` float32 (B, num_labels).
        """
        passes = [
            self.base_model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                token_type_ids=token_type_ids,
                pixel_values=image,
                pixel_mask=None if pixel_mask is None else pixel_mask[:, index],
                inputs_embeds=inputs_embeds,
                image_token_type_idx=index + 1,
                output_attentions=output_attentions,
                output_hidden_states=output_hidden_states,
                image_saliency=None if image_saliency is None else image_saliency[:, index],
                return_dict=True,
            )
            for index, image in enumerate(split_images(pixel_values, self.config.num_images))
        ]
        logits = self.classifier(torch.cat([outputs.pooler_output for outputs in passes], dim=-1))
        return joint_output(passes, logits, None if labels is None else classification_loss(logits, labels))


def num_images(model: PuMerPreTrainedModel) -> int:
    """Images per example: one, or with NLVR2's head `config.num_images`."""
    return model.config.num_images if isinstance(model, ImagesClassifierHead) else 1
