"""The words of a text that a model does not read: the text is cut before them, or the vocabulary lacks them."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import ProcessorMixin

from .inputs import Encoder
from .models.encoders.base import PuMerPreTrainedModel

NAMED, LONGEST = 8, 80
"""How many words a sentence names, and how many characters of a cut text it shows."""
Piece = tuple[int, int, int]
"""A token: its id, the place of its first character in the text, and the place after its last character."""


@dataclass(frozen=True)
class Unread:
    """What a model does not read of a text. If all fields are empty, it reads everything."""

    cut: str = ""
    """The end of the text, after the last token that the model reads."""
    limit: int = 0
    """How many tokens the model reads; 0 if nothing is cut off."""
    unknown: tuple[str, ...] = ()
    """Words that all become the same token, `[UNK]`, or none at all."""
    spelled: tuple[str, ...] = ()
    """Words that the vocabulary lacks, so that the model gets single letters or bytes."""

    def sentences(self) -> list[str]:
        """Say the same in words, with one sentence for each kind."""
        found = []
        if self.cut:
            shown = shortened(self.cut, LONGEST)
            found.append(f"Not read, as the text is longer than {self.limit} tokens: “{shown}”.")
        if self.unknown:
            found.append(f"Not read, as the model's vocabulary lacks these words: {listed(self.unknown)}.")
        if self.spelled:
            found.append(
                f"Read letter by letter, as the model's vocabulary lacks these words: {listed(self.spelled)}."
            )
        return found


def listed(words: Sequence[str]) -> str:
    """List words in quotes. Of many words, the last ones are only counted."""
    named = ", ".join(f"“{visible(shortened(word, LONGEST))}”" for word in words[:NAMED])
    return named if len(words) <= NAMED else f"{named} and {len(words) - NAMED} more"


def shortened(text: str, length: int) -> str:
    """Return the text, or its first `length` characters and dots."""
    return text if len(text) <= length else f"{text[:length].rstrip()} ..."


def visible(word: str) -> str:
    """Return a word with each invisible character replaced by its code."""
    return "".join(sign if sign.isprintable() else f"U+{ord(sign):04X}" for sign in word)


def unread_words(
    model: PuMerPreTrainedModel, processor: ProcessorMixin, text: str, max_text_length: int | None = None
) -> Unread:
    """Return what the model does not read of a text.

    Args:
        model: a model of any family.
        processor: the processor of the checkpoint.
        text: a question, a hypothesis, a caption or a statement.
        max_text_length: as in [`encode_example`].
    """
    limit = Encoder.of(model, processor, max_text_length=max_text_length).record.max_text_length
    tokenizer = processor.tokenizer
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    room = limit - tokenizer.num_special_tokens_to_add()
    pieces = [(token, *span) for token, span in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)]
    words: dict[int, list[Piece]] = {}
    for number, piece in zip(encoded.word_ids()[:room], pieces[:room], strict=True):
        words.setdefault(number, [])
        if piece[1] < piece[2]:  # not a lone space (RoBERTa)
            words[number].append(piece)
    end = len(text)
    if len(pieces) > room:  # a word that is read in part counts as cut off
        last, following = encoded.word_ids()[room - 1 : room + 1]
        end = pieces[encoded.word_ids().index(last)][1] if last == following else pieces[room - 1][2]
    unknown, spelled = [], []
    for word in words.values():
        if not word or word[-1][2] > end:
            continue
        start, stop = word[0][1], word[-1][2]
        if any(token == tokenizer.unk_token_id for token, _, _ in word):
            unknown.append((start, stop))
        elif is_spelled(text[start:stop].strip(), word):
            spelled.append((start, stop))
    unknown.extend(left_out(text[:end], [span for word in words.values() for _, *span in word]))
    named = [tuple(dict.fromkeys(text[start:stop] for start, stop in sorted(spans))) for spans in (unknown, spelled)]
    cut = text[end:].strip()
    return Unread(cut=cut, limit=limit if cut else 0, unknown=named[0], spelled=named[1])


def is_spelled(word: str, pieces: Sequence[Piece]) -> bool:
    """Return whether most tokens of a word are letters or bytes, and not words or parts of words."""
    if len(pieces) == 1:
        return len(word) == 1 and word.isalpha() and "LATIN" not in unicodedata.name(word, "")
    return (word.isalpha() or len(pieces) > len(word)) and len(word) < 2 * len(pieces)


def left_out(text: str, spans: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Yield the places of the characters without a token. Invisible ones count only if there is no token at all."""
    covered = {place for start, stop in spans for place in range(start, stop)}
    for place, sign in enumerate(text):
        hidden = unicodedata.category(sign) in ("Cc", "Cf", "Mn")
        if place not in covered and not sign.isspace() and not (hidden and spans):
            yield place, place + 1
