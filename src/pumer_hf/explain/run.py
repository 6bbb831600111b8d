"""A model, an image and a text: encode, run, read the answer."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor
from transformers import ProcessorMixin

from ..models import meter, vilt
from ..models.base import PuMerPreTrainedModel
from ..models.heads import ImagesClassifierHead, RetrievalHead, num_images


def encode(
    model: PuMerPreTrainedModel, processor: ProcessorMixin, image: PILImage.Image | Sequence[PILImage.Image], text: str
) -> dict[str, Tensor]:
    """The inputs of the model for one example, on its device; a text that is too long is cut.

    Args:
        model: of either family.
        processor: of the checkpoint.
        image: of any size; a list where the model takes several (NLVR2).
        text: a question, a hypothesis, a caption or a statement.
    """
    images = [image] if isinstance(image, PILImage.Image) else list(image)
    if len(images) != num_images(model):
        raise ValueError(f"{len(images)} images are given, but {type(model).__name__} takes {num_images(model)}")
    inputs = processor(
        images=[one.convert("RGB") for one in images],
        text=[text],
        truncation=True,
        max_length=model.config.max_text_length,
        return_tensors="pt",
    )
    if "pixel_mask" in inputs and inputs["pixel_mask"].all():
        del inputs["pixel_mask"]  # as in training: no padding needs no mask
    if isinstance(model, RetrievalHead):
        inputs.pop("token_type_ids", None)  # all 0, and not an input of this head
    if isinstance(model, ImagesClassifierHead):
        inputs |= {name: value.unsqueeze(0) for name, value in inputs.items() if name.startswith("pixel")}
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


def probabilities(model: PuMerPreTrainedModel, logits: Tensor) -> dict[str, float]:
    """What the head says of one example, `logits` float (num_labels,), most probable first.

    Answers to questions each have their own probability of being right, classes share one. Empty for a model whose
    labels have no meaning of their own (retrieval).
    """
    if isinstance(model, RetrievalHead):
        return {}
    answering = isinstance(model, (vilt.PuMerViltForQuestionAnswering, meter.PuMerMeterForQuestionAnswering))
    values = logits.float().sigmoid() if answering else logits.float().softmax(dim=-1)
    ranked = values.argsort(descending=True).tolist()
    return {model.config.id2label[index]: values[index].item() for index in ranked}
