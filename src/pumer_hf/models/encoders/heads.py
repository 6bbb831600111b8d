"""The task heads of all model families, and their losses.

A family derives its heads from these classes and names its backbone in `backbone_class`. All backbones take
[`BackboneInputs`]: see [`PuMerViltModel.forward`], [`PuMerMeterModel.forward`].
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoModelForVisualQuestionAnswering, PreTrainedConfig
from transformers.utils.generic import can_return_tuple, maybe_autocast

from .base import PuMerPreTrainedModel
from .inputs import BackboneInputs, split_images, to_candidates
from .outputs import ChosenStates, PuMerClassifierOutput, fields_of_one, fields_per_image


class LogitsLinear(nn.Linear):
    """The last layer of every head. It computes and returns float32, even with weights or autocast in half precision.

    In bfloat16 different inputs often get the same logit. Then scores of retrieval tie, and so do the best answers.
    """

    def forward(self, input: Tensor) -> Tensor:
        dtype = torch.promote_types(input.dtype, torch.float32)  # float64 stays
        bias = None if self.bias is None else self.bias.to(dtype)
        with maybe_autocast(input.device.type, enabled=False):
            return F.linear(input.to(dtype), self.weight.to(dtype), bias)


def classifier_head(in_features: int, hidden_features: int, num_labels: int) -> nn.Sequential:
    """Make a classifier of two layers, with LayerNorm and GELU. Its logits are float32."""
    return nn.Sequential(
        nn.Linear(in_features, hidden_features),
        nn.LayerNorm(hidden_features),
        nn.GELU(),
        LogitsLinear(hidden_features, num_labels),
    )


def soft_target_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of VQA: binary cross-entropy of each label, summed over the labels and averaged over the batch.

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


def validate_num_images(num_images: int, modality_type_vocab_size: int) -> None:
    """Raise `ValueError` if a model has too few modality embeddings to tell `num_images` images apart."""
    if num_images < 1:
        raise ValueError(f"config.num_images={num_images}: set it to the images per example (NLVR2: 2)")
    if modality_type_vocab_size <= num_images:
        raise ValueError(
            f"config.modality_type_vocab_size={modality_type_vocab_size} is too small for num_images={num_images}: "
            f"set it to {num_images + 1}"
        )


def ranking_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of retrieval: the cross-entropy of the matching candidate among all candidates.

    Args:
        logits: float (B, K), the matching scores.
        labels: long (B,), index of the matching candidate.
    """
    if logits.shape[1] < 2:
        raise ValueError(
            "labels of retrieval say which candidate matches, so give at least two: input_ids of shape (batch, "
            "candidates, length) or pixel_values of shape (batch, candidates, 3, height, width)"
        )
    return F.cross_entropy(logits.float(), labels)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of logits (B, num_labels). `labels`, long (B,), are classes."""
    return F.cross_entropy(logits.float(), labels)


class Head(PuMerPreTrainedModel):
    """A model that reads the pooled output of a backbone. The backbone is its attribute `base_model_prefix`."""

    backbone_class: ClassVar[type[PuMerPreTrainedModel]]
    auto_class: ClassVar[Any] = AutoModelForSequenceClassification
    """The Auto class that loads a model with this head."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.add_module(self.base_model_prefix, self.backbone_class(config))

    @staticmethod
    def criterion(logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        raise NotImplementedError

    def answer(self, inputs: BackboneInputs, asked: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return the logits, and the other fields of the output.

        Args:
            inputs: the inputs of `forward`, by name.
            asked: what else the backbone must return.
        """
        raise NotImplementedError

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
        """Run the backbone and the head. If a head takes other shapes than these, its class says so.

        All inputs are named here, because the Trainer drops the columns of a batch that `forward` does not name.

        Args:
            input_ids: long (B, Lt), text tokens; or give `inputs_embeds`.
            attention_mask: (B, Lt), 1 for real text tokens, 0 for padding; default all 1.
            token_type_ids: long (B, Lt), segment ids; default all 0.
            pixel_values: float (B, 3, h, w).
            pixel_mask: (B, h, w), 1 for pixels of the image, 0 for padding; default all 1.
            inputs_embeds: float (B, Lt, D), instead of `input_ids`.
            labels: as `criterion` takes them; without them there is no loss.
            output_attentions: return the attention probabilities.
            output_hidden_states: return the hidden states, or those at some indices.
            image_saliency: float (B, rows, columns), for the method `grounded`.

        Returns:
            [`PuMerClassifierOutput`] with `logits` float32.
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
        asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        logits, fields = self.answer(inputs, {**asked, "return_dict": True})
        loss = None if labels is None else self.criterion(logits, labels)
        return PuMerClassifierOutput(loss=loss, logits=logits, **fields)


class ClassifierHead(Head):
    """A classifier of one text and one image. Its `logits` are (B, num_labels)."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.classifier = classifier_head(self.base_model.pooled_size, config.hidden_size * 2, config.num_labels)
        self.post_init()

    def answer(self, inputs: BackboneInputs, asked: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        outputs = self.base_model(**inputs, **asked)
        return self.classifier(outputs.pooler_output), fields_of_one(outputs)


class QuestionAnsweringHead(ClassifierHead):
    """A classifier over answers, for VQA; `labels` float (B, num_labels) are soft targets in [0, 1]."""

    auto_class = AutoModelForVisualQuestionAnswering
    criterion = staticmethod(soft_target_loss)


class VisualEntailmentHead(ClassifierHead):
    """A classifier over entailment, neutral and contradiction, for SNLI-VE; `labels` long (B,)."""

    criterion = staticmethod(classification_loss)


class ImagesClassifierHead(Head):
    """A classifier of several images and one text, for NLVR2. The backbone runs once for each image with the text.

    `pixel_values` is (B, num_images, 3, h, w), `pixel_mask` (B, num_images, h, w) and `image_saliency`
    (B, num_images, rows, columns); `labels` long (B,) are classes. Its `logits` are (B, num_labels).
    """

    criterion = staticmethod(classification_loss)

    def __init__(self, config: PreTrainedConfig):
        validate_num_images(config.num_images, config.modality_type_vocab_size)
        super().__init__(config)
        pooled = self.base_model.pooled_size * config.num_images
        self.classifier = classifier_head(pooled, config.hidden_size * config.num_images, config.num_labels)
        self.post_init()

    def answer(self, inputs: BackboneInputs, asked: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        passes = [
            self.base_model(**image, **asked, image_token_type_idx=1 + index)
            for index, image in enumerate(split_images(inputs, self.config.num_images))
        ]
        pooled = torch.cat([outputs.pooler_output for outputs in passes], dim=-1)
        return self.classifier(pooled), fields_per_image(passes)


class RetrievalHead(Head):
    """A score of how well image and text match.

    For K candidate texts of an image, `input_ids`, `attention_mask` and `token_type_ids` are (B, K, Lt) and
    `inputs_embeds` (B, K, Lt, D). For K candidate images of a text, `pixel_values` is (B, K, 3, h, w), `pixel_mask`
    (B, K, h, w) and `image_saliency` (B, K, rows, columns). Its `logits`, (B, K), are the matching scores.

    `labels` long (B,) say which of the K >= 2 candidates matches, for a ranking loss. In the paper there are one
    positive and 15 negatives.
    """

    criterion = staticmethod(ranking_loss)

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.rank_output = LogitsLinear(self.base_model.pooled_size, 1)
        self.post_init()

    def answer(self, inputs: BackboneInputs, asked: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        if inputs["pixel_values"] is None:
            raise ValueError("give pixel_values")
        candidates, number = to_candidates(inputs)
        outputs = self.base_model(**candidates, **asked)
        return self.rank_output(outputs.pooler_output).view(-1, number), fields_of_one(outputs)

    def encode_texts(self, texts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the part of the texts that does not depend on images. It is computed once for all images.

        A model without layers for the text alone has nothing to compute.

        Args:
            texts: the inputs of `forward` for texts, one row for each text.

        Returns:
            The inputs of `score` for the texts.
        """
        return texts

    def encode_images(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute the part of the images that does not depend on texts, as in [`encode_texts`]."""
        return images

    def score(self, texts: dict[str, Tensor], images: dict[str, Tensor]) -> Tensor:
        """Return the scores, float32 (B,), of each text with the image of the same index.

        Args:
            texts: B texts, from [`encode_texts`].
            images: B images, from [`encode_images`].
        """
        return self(**texts, **images, return_dict=True).logits[:, 0]


def num_images(model: PuMerPreTrainedModel) -> int:
    """Return the images per example: `config.num_images` for NLVR2's head, else one."""
    return model.config.num_images if isinstance(model, ImagesClassifierHead) else 1
