"""LLaVA-1.5: Images have a fixed number of tokens, or, with a Pixtral tower, one that depends on their size."""

from transformers import LlavaConfig, LlavaForConditionalGeneration

from .family import DecoderFamily
from .grids import even_grids
from .modeling import DecoderConfig, ReducedDecoder


class PuMerLlavaConfig(DecoderConfig, LlavaConfig):
    """[`~transformers.LlavaConfig`] with `reduction`."""

    model_type = "pumer_llava"


class PuMerLlavaForConditionalGeneration(ReducedDecoder, LlavaForConditionalGeneration):
    """[`~transformers.LlavaForConditionalGeneration`] with fewer image tokens."""

    config: PuMerLlavaConfig


LLAVA = DecoderFamily(
    name="llava",
    title="LLaVA-1.5",
    model_class=PuMerLlavaForConditionalGeneration,
    stock_class=LlavaForConditionalGeneration,
    grids=even_grids,
)
