"""Qwen3.5.

Most layers are linear attention, whose state a mask does not reach. So a cut equals the shortened prompt.
"""

from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

from .family import DecoderFamily
from .grids import merged_grids
from .modeling import DecoderConfig, ReducedDecoder


class PuMerQwen3_5Config(DecoderConfig, Qwen3_5Config):
    """[`~transformers.Qwen3_5Config`] with `reduction`."""

    model_type = "pumer_qwen3_5"


class PuMerQwen3_5ForConditionalGeneration(ReducedDecoder, Qwen3_5ForConditionalGeneration):
    """[`~transformers.Qwen3_5ForConditionalGeneration`] with fewer image tokens."""

    config: PuMerQwen3_5Config


QWEN3_5 = DecoderFamily(
    name="qwen3_5",
    title="Qwen3.5",
    model_class=PuMerQwen3_5ForConditionalGeneration,
    stock_class=Qwen3_5ForConditionalGeneration,
    multimodal_rope=True,
    shortened_prompt=True,
    no_layers="its layers of linear attention hold a state that a mask does not reach",
    grids=merged_grids,
)
