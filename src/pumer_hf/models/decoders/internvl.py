"""InternVL: An image is cut into tiles of 256 tokens. Each tile counts as an image."""

from transformers import InternVLConfig, InternVLForConditionalGeneration

from .family import DecoderFamily
from .grids import even_grids
from .modeling import DecoderConfig, ReducedDecoder


class PuMerInternVLConfig(DecoderConfig, InternVLConfig):
    """[`~transformers.InternVLConfig`] with `reduction`."""

    model_type = "pumer_internvl"


class PuMerInternVLForConditionalGeneration(ReducedDecoder, InternVLForConditionalGeneration):
    """[`~transformers.InternVLForConditionalGeneration`] with fewer image tokens."""

    config: PuMerInternVLConfig


INTERNVL = DecoderFamily(
    name="internvl",
    title="InternVL",
    model_class=PuMerInternVLForConditionalGeneration,
    stock_class=InternVLForConditionalGeneration,
    grids=even_grids,
)
