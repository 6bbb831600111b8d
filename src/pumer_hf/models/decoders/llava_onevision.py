"""LLaVA-OneVision.

The tiles of an image and the ends of its rows stand in the prompt as one image. Videos are not reduced.
"""

from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from .family import DecoderFamily
from .modeling import DecoderConfig, ReducedDecoder


class PuMerLlavaOnevisionConfig(DecoderConfig, LlavaOnevisionConfig):
    """[`~transformers.LlavaOnevisionConfig`] with `reduction`."""

    model_type = "pumer_llava_onevision"


class PuMerLlavaOnevisionForConditionalGeneration(ReducedDecoder, LlavaOnevisionForConditionalGeneration):
    """[`~transformers.LlavaOnevisionForConditionalGeneration`] with fewer image tokens."""

    config: PuMerLlavaOnevisionConfig


LLAVA_ONEVISION = DecoderFamily(
    name="llava_onevision",
    title="LLaVA-OneVision",
    model_class=PuMerLlavaOnevisionForConditionalGeneration,
    stock_class=LlavaOnevisionForConditionalGeneration,
)
