"""PaliGemma: The image comes first, and the whole prompt attends in both directions. Positions begin at 1."""

from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from .family import DecoderFamily
from .grids import even_grids
from .modeling import DecoderConfig, ReducedDecoder


class PuMerPaliGemmaConfig(DecoderConfig, PaliGemmaConfig):
    """[`~transformers.PaliGemmaConfig`] with `reduction`."""

    model_type = "pumer_paligemma"


class PuMerPaliGemmaForConditionalGeneration(ReducedDecoder, PaliGemmaForConditionalGeneration):
    """[`~transformers.PaliGemmaForConditionalGeneration`] with fewer image tokens."""

    config: PuMerPaliGemmaConfig


PALIGEMMA = DecoderFamily(
    name="paligemma",
    title="PaliGemma",
    model_class=PuMerPaliGemmaForConditionalGeneration,
    stock_class=PaliGemmaForConditionalGeneration,
    first_position=1,
    grids=even_grids,
)
