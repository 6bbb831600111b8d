"""A page on which one can try a model. `pumer-hf demo` serves it, or writes it as a Space."""

from .asker import Asker, Reply, Times
from .decoder_asker import DecoderAsker, DecoderReply
from .decoder_page import build_decoder_page
from .launching import launch
from .page import build_page
from .space import export_space

__all__ = [
    "Asker",
    "DecoderAsker",
    "DecoderReply",
    "Reply",
    "Times",
    "build_decoder_page",
    "build_page",
    "export_space",
    "launch",
]
