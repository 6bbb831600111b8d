"""SmolVLM: An image is cut into tiles, with words between them. Each tile counts as an image."""

from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

from .family import DecoderFamily
from .grids import even_grids
from .modeling import DecoderConfig, ReducedDecoder


class PuMerSmolVLMConfig(DecoderConfig, SmolVLMConfig):
    """[`~transformers.SmolVLMConfig`] with `reduction`."""

    model_type = "pumer_smolvlm"


class PuMerSmolVLMForConditionalGeneration(ReducedDecoder, SmolVLMForConditionalGeneration):
    """[`~transformers.SmolVLMForConditionalGeneration`] with fewer image tokens."""

    config: PuMerSmolVLMConfig


SMOLVLM = DecoderFamily(
    name="smolvlm",
    title="SmolVLM",
    model_class=PuMerSmolVLMForConditionalGeneration,
    stock_class=SmolVLMForConditionalGeneration,
    grids=even_grids,
)
