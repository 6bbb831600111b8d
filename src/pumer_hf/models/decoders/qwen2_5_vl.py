"""Qwen2.5-VL: Each image has as many tokens as its size asks for. Tokens have positions in time, height and width."""

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from .family import DecoderFamily
from .grids import merged_grids
from .modeling import DecoderConfig, ReducedDecoder


class PuMerQwen2_5_VLConfig(DecoderConfig, Qwen2_5_VLConfig):
    """[`~transformers.Qwen2_5_VLConfig`] with `reduction`."""

    model_type = "pumer_qwen2_5_vl"


class PuMerQwen2_5_VLForConditionalGeneration(ReducedDecoder, Qwen2_5_VLForConditionalGeneration):
    """[`~transformers.Qwen2_5_VLForConditionalGeneration`] with fewer image tokens."""

    config: PuMerQwen2_5_VLConfig


QWEN2_5_VL = DecoderFamily(
    name="qwen2_5_vl",
    title="Qwen2.5-VL",
    model_class=PuMerQwen2_5_VLForConditionalGeneration,
    stock_class=Qwen2_5_VLForConditionalGeneration,
    multimodal_rope=True,
    grids=merged_grids,
)
