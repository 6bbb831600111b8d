"""The two kinds of pages: for encoders, whose heads score answers, and for decoders, which write them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..models.decoder_loading import is_decoder
from .asker import Asker
from .decoder_asker import DecoderAsker
from .decoder_page import build_decoder_page, decoder_appearance
from .examples import Example, find_decoder_examples, find_examples, knows_only_digit_scenes, knows_scene_words
from .page import appearance, build_page


@dataclass(frozen=True)
class PageKind:
    """What makes a page for a kind of model."""

    load: Callable[..., Any]
    """Loads the asker: from a checkpoint, a teacher or None, and perhaps `reduction=`."""
    find_examples: Callable[[str | None, Any], list[Example]]
    """Finds the examples for an asker; the first argument is the `source` of [`find_examples`]."""
    knows_only_scenes: Callable[[Any], bool]
    """Says whether the model of an asker was trained on digit scenes."""
    build_page: Callable[..., Any]
    """Builds the page: from an asker, a name, and examples."""
    appearance: Callable[[Any], dict[str, Any]]
    """Returns the arguments for the look of the page."""


ENCODERS = PageKind(
    load=Asker.load,
    find_examples=lambda source, asker: find_examples(source, asker.model, asker.processor),
    knows_only_scenes=lambda asker: knows_only_digit_scenes(asker.model, asker.processor),
    build_page=build_page,
    appearance=appearance,
)
DECODERS = PageKind(
    load=DecoderAsker.load,
    find_examples=lambda source, asker: find_decoder_examples(source, asker.processor, asker.model.name_or_path),
    knows_only_scenes=lambda asker: knows_scene_words(asker.processor),
    build_page=build_decoder_page,
    appearance=decoder_appearance,
)


def kind_of(checkpoint: str) -> PageKind:
    """Return the kind of page for a checkpoint, a folder or an id on the Hub.

    Raises:
        ValueError: there is no such checkpoint.
    """
    return DECODERS if is_decoder(checkpoint) else ENCODERS
