"""A checkpoint, an image and a text: load, encode, run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from PIL import Image as PILImage
from torch import Tensor
from transformers import AutoProcessor, PreTrainedConfig, ProcessorMixin

from ..models import meter, vilt
from ..models.base import PuMerPreTrainedModel
from ..models.heads import ImagesClassifierHead, RetrievalHead

SAVED = "saved"
"""`reduction` of [`load_checkpoint`]: as the checkpoint says."""
UNREDUCED = (
    "the model reduces no tokens (config.reduction is None): give a schedule, such as --reduction "
    '\'{"method": "pumer", "layers": [2, 5, 8], "prune_ratio": 0.1, "image_merge_ratio": 0.3, '
    '"text_merge_ratio": 0.2}\''
)
"""The error of commands that need a reduction."""


def load_checkpoint(source: str, reduction: Any = SAVED) -> tuple[PuMerPreTrainedModel, ProcessorMixin]:
    """A saved model of either family, with the head that it was saved with, in eval mode, on a GPU if there is one;
    and its processor. Reads stock ViLT checkpoints too.

    Args:
        source: a folder, or an id on the Hub.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.

    Raises:
        ValueError: there is no such checkpoint, or it is none of ours.
    """
    overrides = {} if isinstance(reduction, str) and reduction == SAVED else {"reduction": reduction}
    try:
        config, _ = PreTrainedConfig.get_config_dict(source)
        if not config:
            raise ValueError(f"{source!r} has no config.json: give a folder that save_pretrained made, or a Hub id")
        model = model_class(config, source).from_pretrained(source, **overrides)
        processor = AutoProcessor.from_pretrained(source)
    except (OSError, HFValidationError) as error:
        where = "in this folder" if Path(source).is_dir() else "here or on the Hub"
        raise ValueError(f"{source!r}: there is no model with its processor {where}: {error}") from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), processor


def model_class(config: dict[str, Any], source: str) -> type[PuMerPreTrainedModel]:
    """The class for a checkpoint, from its `config.json`."""
    name = (config.get("architectures") or [""])[0]
    for family in (vilt, meter):
        found = getattr(family, name if name.startswith("PuMer") else f"PuMer{name}", None)
        if isinstance(found, type) and issubclass(found, PuMerPreTrainedModel):
            return found
    raise ValueError(
        f"{source!r}: architectures={config.get('architectures')} in its config.json is neither a ViLT nor a PuMer "
        "model; `pumer-hf convert` reads older checkpoints"
    )


def num_images(model: PuMerPreTrainedModel) -> int:
    """Images per example."""
    return model.config.num_images if isinstance(model, ImagesClassifierHead) else 1


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
