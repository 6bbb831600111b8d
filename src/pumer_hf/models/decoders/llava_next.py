"""LLaVA-NeXT: The tiles of an image and the ends of its rows stand in the prompt as one image."""

from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from .family import DecoderFamily
from .modeling import DecoderConfig, ReducedDecoder


class PuMerLlavaNextConfig(DecoderConfig, LlavaNextConfig):
    """[`~transformers.LlavaNextConfig`] with `reduction`."""

    model_type = "pumer_llava_next"


class PuMerLlavaNextForConditionalGeneration(ReducedDecoder, LlavaNextForConditionalGeneration):
    """[`~transformers.LlavaNextForConditionalGeneration`] with fewer image tokens."""

    config: PuMerLlavaNextConfig


LLAVA_NEXT = DecoderFamily(
    name="llava_next",
    title="LLaVA-NeXT",
    model_class=PuMerLlavaNextForConditionalGeneration,
    stock_class=LlavaNextForConditionalGeneration,
)
