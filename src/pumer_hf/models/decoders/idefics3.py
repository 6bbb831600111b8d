"""Idefics3: An image is cut into tiles, with words between them. Each tile counts as an image."""

from transformers import Idefics3Config, Idefics3ForConditionalGeneration

from .family import DecoderFamily
from .grids import even_grids
from .modeling import DecoderConfig, ReducedDecoder


class PuMerIdefics3Config(DecoderConfig, Idefics3Config):
    """[`~transformers.Idefics3Config`] with `reduction`."""

    model_type = "pumer_idefics3"


class PuMerIdefics3ForConditionalGeneration(ReducedDecoder, Idefics3ForConditionalGeneration):
    """[`~transformers.Idefics3ForConditionalGeneration`] with fewer image tokens."""

    config: PuMerIdefics3Config


IDEFICS3 = DecoderFamily(
    name="idefics3",
    title="Idefics3",
    model_class=PuMerIdefics3ForConditionalGeneration,
    stock_class=Idefics3ForConditionalGeneration,
    grids=even_grids,
)
