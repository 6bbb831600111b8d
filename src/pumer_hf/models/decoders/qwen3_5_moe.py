"""Qwen3.5, mixture of experts.

Most layers are linear attention, whose state a mask does not reach. So a cut equals the shortened prompt.
"""

from transformers import Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration

from .family import DecoderFamily
from .grids import merged_grids
from .modeling import DecoderConfig, ReducedDecoder


class PuMerQwen3_5MoeConfig(DecoderConfig, Qwen3_5MoeConfig):
    """[`~transformers.Qwen3_5MoeConfig`] with `reduction`."""

    model_type = "pumer_qwen3_5_moe"


class PuMerQwen3_5MoeForConditionalGeneration(ReducedDecoder, Qwen3_5MoeForConditionalGeneration):
    """[`~transformers.Qwen3_5MoeForConditionalGeneration`] with fewer image tokens."""

    config: PuMerQwen3_5MoeConfig


QWEN3_5_MOE = DecoderFamily(
    name="qwen3_5_moe",
    title="Qwen3.5, mixture of experts",
    model_class=PuMerQwen3_5MoeForConditionalGeneration,
    stock_class=Qwen3_5MoeForConditionalGeneration,
    multimodal_rope=True,
    shortened_prompt=True,
    no_layers="its layers of linear attention hold a state that a mask does not reach",
    grids=merged_grids,
)
