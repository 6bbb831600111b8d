"""Qwen2-VL: Each image has as many tokens as its size asks for. Tokens have positions in time, height and width."""

from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from .family import DecoderFamily
from .grids import merged_grids
from .modeling import DecoderConfig, ReducedDecoder


class PuMerQwen2VLConfig(DecoderConfig, Qwen2VLConfig):
    """[`~transformers.Qwen2VLConfig`] with `reduction`."""

    model_type = "pumer_qwen2_vl"


class PuMerQwen2VLForConditionalGeneration(ReducedDecoder, Qwen2VLForConditionalGeneration):
    """[`~transformers.Qwen2VLForConditionalGeneration`] with fewer image tokens."""

    config: PuMerQwen2VLConfig


QWEN2_VL = DecoderFamily(
    name="qwen2_vl",
    title="Qwen2-VL",
    model_class=PuMerQwen2VLForConditionalGeneration,
    stock_class=Qwen2VLForConditionalGeneration,
    multimodal_rope=True,
    grids=merged_grids,
)
