"""Gemma-4.

Each layer also embeds the tokens themselves, and the last layers share keys and values. So a cut equals the
shortened prompt.
"""

from transformers import Gemma4Config, Gemma4ForConditionalGeneration

from .family import DecoderFamily
from .grids import pooled_grids
from .modeling import DecoderConfig, ReducedDecoder


class PuMerGemma4Config(DecoderConfig, Gemma4Config):
    """[`~transformers.Gemma4Config`] with `reduction`."""

    model_type = "pumer_gemma4"


class PuMerGemma4ForConditionalGeneration(ReducedDecoder, Gemma4ForConditionalGeneration):
    """[`~transformers.Gemma4ForConditionalGeneration`] with fewer image tokens."""

    config: PuMerGemma4Config


GEMMA4 = DecoderFamily(
    name="gemma4",
    title="Gemma-4",
    model_class=PuMerGemma4ForConditionalGeneration,
    stock_class=Gemma4ForConditionalGeneration,
    shortened_prompt=True,
    no_layers="its layers read embeddings of each input token, and the last ones share the keys of earlier ones",
    grids=pooled_grids,
)
