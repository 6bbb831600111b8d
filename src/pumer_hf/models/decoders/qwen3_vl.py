"""Qwen3-VL.

Features of middle layers of the tower are added in the first decoder layers (DeepStack). They are cut as the tokens
are.
"""

from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from .family import DecoderFamily
from .grids import merged_grids
from .modeling import DecoderConfig, ReducedDecoder


class PuMerQwen3VLConfig(DecoderConfig, Qwen3VLConfig):
    """[`~transformers.Qwen3VLConfig`] with `reduction`."""

    model_type = "pumer_qwen3_vl"


class PuMerQwen3VLForConditionalGeneration(ReducedDecoder, Qwen3VLForConditionalGeneration):
    """[`~transformers.Qwen3VLForConditionalGeneration`] with fewer image tokens."""

    config: PuMerQwen3VLConfig


QWEN3_VL = DecoderFamily(
    name="qwen3_vl",
    title="Qwen3-VL",
    model_class=PuMerQwen3VLForConditionalGeneration,
    stock_class=Qwen3VLForConditionalGeneration,
    multimodal_rope=True,
    grids=merged_grids,
)
