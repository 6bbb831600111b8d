"""Functions that encode an image and a text for a model, run the model, and read its answer."""

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
    """Return the inputs of the model for one example, on its device. The arguments are those of [`encode_example`]."""
    inputs = encode_example(model, processor, image, text, keep_aspect_ratio=keep_aspect_ratio)
    return {name: value.to(model.device) for name, value in inputs.items()}


def text_tokens(processor: ProcessorMixin, input_ids: Tensor) -> list[str]:
    """Return the tokens of one text, long (Lt,), as readable strings. A token that is only a space becomes `_`."""
    return [processor.tokenizer.decode([token]).strip() or "_" for token in input_ids.tolist()]


@torch.inference_mode()
def run(model: PuMerPreTrainedModel, inputs: dict[str, Tensor]) -> Any:
    """Run the model in eval mode and return its outputs. Afterwards the model is in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        return model(**inputs)
    finally:
        model.train(training)


def scores_add_up(model: PuMerPreTrainedModel) -> bool:
    """Return whether the probabilities of a model's labels sum to one, as those of classes do."""
    task = task_of_model(model)
    return task is not None and task.activation == "softmax"


def probabilities(model: PuMerPreTrainedModel, logits: Tensor) -> dict[str, float]:
    """Return the probability of each label for one example, the highest first.

    A model whose logits are not about labels (retrieval) has none.

    Args:
        model: a model with a head.
        logits: the logits of the head, float (num_labels,).
    """
    task = task_of_model(model)
    if task is None or task.activation is None:
        return {}
    values = logits.float().softmax(dim=-1) if task.activation == "softmax" else logits.float().sigmoid()
    ranked = values.argsort(descending=True).tolist()
    return {model.config.id2label[index]: values[index].item() for index in ranked}
