"""`SiteTokens`: what comes into the site `"inputs"` of a decoder, for reducers and for whoever observes the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...tokens import Tokens
from .family import DecoderFamily, ImageFeatures, pad_token_of
from .images import prompt_words
from .prompt import IGNORED, Placeholders


@dataclass(frozen=True)
class SiteTokens:
    """The encoded images of a batch, where they stand in the prompts, and the words of the prompts."""

    images: ImageFeatures
    """The output of the image encoder."""
    features: Tensor
    """float (N, D): the image tokens, on the device of the words."""
    placeholders: Placeholders
    """Where they stand."""
    words: Tokens
    """The words of the prompts, states float (B, Lw, D)."""
    real: Tensor
    """bool (B, L): False for padding."""
    is_image: Tensor
    """bool (B, L): True for a placeholder."""
    of_images: frozenset[str]
    """Names of the inputs that only the image encoder reads."""

    @classmethod
    def of(
        cls, family: DecoderFamily, model: PreTrainedModel, inputs: Mapping[str, Any], first_word: int = 0
    ) -> "SiteTokens":
        """Encode the images of a batch, unless `mm_encoder_outputs` has them, and find their places.

        Args:
            family: the family of the model.
            model: the model.
            inputs: keyword arguments of its forward, with at least one image.
            first_word: the column of the prompts from which on their tokens count as words.

        Raises:
            ValueError: the prompts do not have as many placeholders as there are image tokens.
        """
        input_ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        encoded = encoded_images(inputs)
        of_images: set[str] = set()
        if encoded is None:
            encoded, of_images = family.encode_images(model, inputs)
        images = ImageFeatures.of(encoded)
        placeholders = Placeholders.find(input_ids, family.image_token_id(model.config), images.lengths)
        real = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.bool()
        is_image = torch.zeros_like(real)
        is_image[placeholders.rows, placeholders.columns] = True
        embed = model.get_input_embeddings()
        embeddings = embed(input_ids.masked_fill(is_image, pad_token_of(model))).detach()
        features = images.features.to(embeddings.device)
        is_word = real & ~is_image
        is_word[:, :first_word] = False
        if inputs.get("labels") is not None:  # an answer, and what follows it, is not there when the model is asked
            is_word &= (inputs["labels"] != IGNORED).cumsum(dim=1) == 0
        words = prompt_words(embeddings.to(features.dtype), is_word)
        return cls(images, features, placeholders, words, real, is_image, frozenset(of_images - {"input_ids"}))

    def rest_of(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs that are not for the image encoder or for a reducer alone."""
        gone = self.of_images | {"image_saliency"}
        return {name: value for name, value in inputs.items() if name not in gone}


def encoded_images(inputs: Mapping[str, Any]) -> Any:
    """Return the output of the image encoder that the inputs of a model have already; None if they have none."""
    return (inputs.get("mm_encoder_outputs") or {}).get("image")


def has_images(inputs: Mapping[str, Any]) -> bool:
    """Return whether the inputs of a model have images, encoded or not."""
    return inputs.get("pixel_values") is not None or encoded_images(inputs) is not None
