"""A model, an image and a text: encode, run, read the answer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import ProcessorMixin

from ..data.tasks import task_of_model
from ..images import ImageSource
from ..inputs import encode_example
from ..models.encoders.base import PuMerPreTrainedModel


def encode(
    model: PuMerPreTrainedModel,
    processor: ProcessorMixin,
    image: ImageSource | Sequence[ImageSource],
    text: str,
    keep_aspect_ratio: bool | None = None,
) -> dict[str, Tensor]:
    """The inputs of the model for one example, on its device; arguments as of [`encode_example`]."""
    inputs = encode_example(model, processor, image, text, keep_aspect_ratio=keep_aspect_ratio)
    return {name: value.to(model.device) for name, value in inputs.items()}


def text_tokens(processor: ProcessorMixin, input_ids: Tensor) -> list[str]:
    """The tokens of one text, long (Lt,), as readable strings; a lone space is `_`."""
    return [processor.tokenizer.decode([token]).strip() or "_" for token in input_ids.tolist()]


@torch.inference_mode()
def run(model: PuMerPreTrainedModel, inputs: dict[str, Tensor]) -> Any:
    """The outputs of the model in eval mode; its training mode is kept."""
    training = model.training
    model.eval()
    try:
        return model(**inputs)
    finally:
        model.train(training)


def scores_add_up(model: PuMerPreTrainedModel) -> bool:
    """Whether the probabilities of the labels of a model sum to one, as those of classes do."""
    task = task_of_model(model)
    return task is not None and task.activation == "softmax"


def probabilities(model: PuMerPreTrainedModel, logits: Tensor) -> dict[str, float]:
    """The probability of each label for one example, the highest first; none for a model whose logits are no labels
    (retrieval).

    Args:
        model: with a head.
        logits: float (num_labels,), of the head.
    """
    task = task_of_model(model)
    if task is None or task.activation is None:
        return {}
    values = logits.float().softmax(dim=-1) if task.activation == "softmax" else logits.float().sigmoid()
    ranked = values.argsort(descending=True).tolist()
    return {model.config.id2label[index]: values[index].item() for index in ranked}
