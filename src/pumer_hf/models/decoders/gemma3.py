"""Gemma-3: The tokens of an image attend to each other in both directions. Those that are left do so too."""

from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from .family import DecoderFamily
from .grids import even_grids
from .modeling import DecoderConfig, ReducedDecoder


class PuMerGemma3Config(DecoderConfig, Gemma3Config):
    """[`~transformers.Gemma3Config`] with `reduction`."""

    model_type = "pumer_gemma3"


class PuMerGemma3ForConditionalGeneration(ReducedDecoder, Gemma3ForConditionalGeneration):
    """[`~transformers.Gemma3ForConditionalGeneration`] with fewer image tokens."""

    config: PuMerGemma3Config


GEMMA3 = DecoderFamily(
    name="gemma3",
    title="Gemma-3",
    model_class=PuMerGemma3ForConditionalGeneration,
    stock_class=Gemma3ForConditionalGeneration,
    grids=even_grids,
)
