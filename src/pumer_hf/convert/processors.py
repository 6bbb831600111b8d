"""The processor of a checkpoint: its tokenizer, and the image processing that it was trained with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    CLIPImageProcessorPil,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    ViltImageProcessorPil,
    ViTImageProcessorPil,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling
from transformers.utils import logging

from ..encoding import EncodingRecord, record_in, with_record
from ..inputs import makes_squares

logger = logging.get_logger(__name__)

VOCAB_SIZES = {"bert-base-uncased": 30_522, "roberta-base": 50_265}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
HALF = [0.5, 0.5, 0.5]


@dataclass(frozen=True)
class ProcessorPlan:
    """What a checkpoint says about its processor."""

    processor_class: type[ProcessorMixin]
    image_processor: Callable[["ProcessorPlan"], Any]
    """As in [`Layout`]."""
    task: str
    image_size: int
    """The side of the square in pixels; for original and stock ViLT, the shorter edge of the image."""
    patch_size: int
    resized: bool
    """Whether the user has chosen `image_size`."""
    tokenizer: str
    vocab_size: int
    max_text_length: int
    """How many tokens the model takes."""
    record: EncodingRecord
    """How inputs were made in training."""
    folder: Path
    """The folder of the checkpoint. A tokenizer may be in it."""


def make_processor(processor: Any, plan: ProcessorPlan) -> ProcessorMixin | None:
    """Return the processor to save with a model, or None.

    Args:
        processor: a processor, a tokenizer, or the folder or Hub id of either. A processor is saved as it is, but gets
            the record of the plan if it has none. None takes the tokenizer next to the checkpoint, or the one that the
            checkpoint names. False means no processor.
        plan: what the checkpoint says.

    Raises:
        ValueError: the processor that was asked for does not load, or it knows more tokens than the model.
    """
    if processor is False:
        return None
    if processor is None:
        processor = default_tokenizer(plan)
        if processor is None:
            return None
    elif isinstance(processor, (str, Path)):
        processor = limited(load_given(str(processor)), plan)
    tokenizer = getattr(processor, "tokenizer", processor)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ValueError(f"processor={processor!r}: give a processor, a tokenizer, or the folder or Hub id of one")
    if len(tokenizer) > plan.vocab_size:
        raise ValueError(f"the tokenizer knows {len(tokenizer)} tokens, but the checkpoint has {plan.vocab_size}")
    if not isinstance(processor, ProcessorMixin):
        processor = plan.processor_class(plan.image_processor(plan), tokenizer)
    if record_in(processor) is not None:
        return processor
    keeps_shape = plan.record.keep_aspect_ratio and not makes_squares(processor)
    return with_record(processor, replace(plan.record, keep_aspect_ratio=keeps_shape))


def load_given(name: str) -> Any:
    """Load the processor, or else the tokenizer, from a folder or from the Hub."""
    loader = AutoProcessor if (Path(name) / "processor_config.json").is_file() else AutoTokenizer
    try:
        return loader.from_pretrained(name)
    except OSError as error:
        raise ValueError(f"processor={name!r} does not load: {error}") from error


def limited(processor: Any, plan: ProcessorPlan) -> Any:
    """Limit a processor or tokenizer that was just loaded to the longest text of the model."""
    tokenizer = processor.tokenizer if isinstance(processor, ProcessorMixin) else processor
    tokenizer.model_max_length = min(tokenizer.model_max_length, plan.max_text_length)
    return processor


def default_tokenizer(plan: ProcessorPlan) -> Any:
    """Load the tokenizer next to the checkpoint, else the one that it names. Without either, warn; return None."""
    if any((plan.folder / name).is_file() for name in TOKENIZER_FILES):
        return limited(AutoTokenizer.from_pretrained(plan.folder), plan)
    reason = f"its vocabulary ({plan.vocab_size}) is not that of {plan.tokenizer}"
    if VOCAB_SIZES.get(plan.tokenizer, plan.vocab_size) == plan.vocab_size:
        try:
            # Without a network this fails at once. `AutoTokenizer` would first retry.
            folder = snapshot_download(plan.tokenizer, allow_patterns=["*.json", "*.txt"])
            return limited(AutoTokenizer.from_pretrained(folder), plan)
        except (OSError, HFValidationError) as error:
            reason = f"{plan.tokenizer} does not load: {error}"
    logger.warning(
        f"The model is saved without a processor: {reason}. To add one, convert again with processor= (--processor), "
        "the folder or Hub id of a tokenizer."
    )
    return None


def vilt_image_processor(plan: ProcessorPlan) -> Any:
    """Make the image processor of original ViLT. It keeps the aspect ratio: `image_size` is the shorter edge."""
    size = {"shortest_edge": plan.image_size}
    return ViltImageProcessorPil(size=size, size_divisor=plan.patch_size, image_mean=HALF, image_std=HALF)


def stock_image_processor(plan: ProcessorPlan) -> Any:
    """Make the image processor of a stock ViLT: the one that is in its folder, else that of original ViLT."""
    if not any((plan.folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        return vilt_image_processor(plan)
    resize = {"size": {"shortest_edge": plan.image_size}} if plan.resized else {}
    return ViltImageProcessorPil.from_pretrained(plan.folder, **resize)


def square_image_processor(plan: ProcessorPlan) -> Any:
    """Make the image processor of released ViLT. It squeezes images into squares."""
    return ViTImageProcessorPil(size=square(plan), image_mean=HALF, image_std=HALF, do_convert_rgb=True)


def cropping_image_processor(plan: ProcessorPlan) -> Any:
    """Make the image processor of original METER. It cuts a square out of the middle."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": plan.image_size},
        crop_size=square(plan),
        image_mean=list(OPENAI_CLIP_MEAN),
        image_std=list(OPENAI_CLIP_STD),
    )


def released_meter_image_processor(plan: ProcessorPlan) -> Any:
    """Make the image processor of released METER. It squeezes images into squares.

    For VQA and retrieval it has the mean, the deviation and the filter of CLIP. For visual entailment and NLVR2 it has
    those of ViLT, with a bilinear filter, as the released commands say.
    """
    like_clip = plan.task not in ("snli_ve", "nlvr2")
    return CLIPImageProcessorPil(
        size=square(plan),
        do_center_crop=False,
        resample=PILImageResampling.BICUBIC if like_clip else PILImageResampling.BILINEAR,
        image_mean=list(OPENAI_CLIP_MEAN) if like_clip else HALF,
        image_std=list(OPENAI_CLIP_STD) if like_clip else HALF,
    )


def square(plan: ProcessorPlan) -> dict[str, int]:
    """Return the size of a square image in the form that image processors take."""
    return {"height": plan.image_size, "width": plan.image_size}
