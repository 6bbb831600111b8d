"""Chats of several turns as prompts and answers, so that a model learns what the assistant said and nothing else.

The chat template of the processor writes a chat. What it writes between the prompt for an answer and the end of the
turn of the assistant is an *answer*.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import ProcessorMixin

from ..models.decoders.prompt import IGNORED

ASSISTANT, USER = "assistant", "user"
Turn = Mapping[str, Any]


class Exchange(NamedTuple):
    """A part of a chat: what is between two answers, and the second one."""

    prompt: str
    """What comes before the answer, from the end of the last one on."""
    answer: str
    """What the assistant says, and the mark of its end, if the template writes one."""


def plain_turns(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Return turns whose parts have no keys that only other parts need, as chat templates look for them."""
    return [{**turn, "content": content_of(turn["content"])} for turn in turns]


def content_of(content: Any) -> Any:
    """Return the content of a turn: a text, or parts without the keys whose value is None."""
    if isinstance(content, str):
        return content
    return [{name: value for name, value in part.items() if value is not None} for part in content]


def is_answered(turns: Sequence[Turn]) -> bool:
    """Return whether a chat ends with a turn of the assistant."""
    return bool(turns) and turns[-1]["role"] == ASSISTANT


def asked(turns: Sequence[Turn]) -> Sequence[Turn]:
    """Return a chat without the answer at its end."""
    while is_answered(turns):
        turns = turns[:-1]
    return turns


def exchanges_of(processor: ProcessorMixin, turns: Sequence[Turn], origin: str) -> list[Exchange]:
    """Return the parts of a chat, one for each turn of the assistant.

    White space at the end of an answer belongs to the next prompt. What comes after the last answer is left out.

    Args:
        processor: its chat template writes the chat.
        turns: the chat, which ends with a turn of the assistant.
        origin: where the chat is, for messages.

    Raises:
        ValueError: the template does not write one turn after the other.
    """
    parts: list[Exchange] = []
    done = ""
    for number, turn in enumerate(turns):
        if turn["role"] != ASSISTANT:
            continue
        before = processor.apply_chat_template(turns[:number], add_generation_prompt=True)
        after = processor.apply_chat_template(turns[: number + 1], add_generation_prompt=False)
        if not before.startswith(done) or not after.startswith(before):
            raise ValueError(
                f"{origin}: messages: the chat template changes what it wrote before turn {number}, so the tokens of "
                "the answers cannot be told: set processor.chat_template to one that writes one turn after the "
                "other, or give a row for each answer"
            )
        answer = after[len(before) :].rstrip()
        parts.append(Exchange(before[len(done) :], answer))
        done = before + answer
    return parts


def following_tokens(tokenizer: Any, context: str, text: str) -> list[int]:
    """Return the tokens of a text as they are behind its context, unless the two share a token.

    Many tokenizers make other tokens of a text that stands alone.
    """
    together, before = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (context + text, context))
    if together[: len(before)] == before:
        return together[len(before) :]
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def separator_of(processor: ProcessorMixin, texts: Sequence[str]) -> str:
    """Return a special token that is in none of the texts, to put between parts of a text. It never joins others.

    Raises:
        ValueError: each is in one of them.
    """
    tokenizer = processor.tokenizer
    for token in dict.fromkeys(filter(None, (tokenizer.pad_token, *tokenizer.all_special_tokens))):
        if token != processor.image_token and not any(token in text for text in texts):
            return token
    raise ValueError(
        "messages: each special token of the tokenizer is in the prompts, so none can separate the turns: add one "
        "with `processor.tokenizer.add_special_tokens`"
    )


def pieces_of(tokens: Tensor, separator: int | None, number: int) -> list[Tensor]:
    """Return the places of the tokens of each part of a prompt.

    Args:
        tokens: long (L,), without padding.
        separator: the token between two parts; None if there is one part.
        number: how many parts there are.

    Raises:
        ValueError: the processor has not kept the separators.
    """
    places = torch.arange(len(tokens))
    if separator is None:
        return [places]
    ends = (tokens == separator).nonzero().squeeze(1).tolist()
    if len(ends) != number - 1:
        raise ValueError(
            f"messages: {number} turns of the assistant, but the processor has kept {len(ends)} of the tokens between "
            "them: give a row for each answer"
        )
    begins = [0, *(end + 1 for end in ends)]
    return [places[begin:end] for begin, end in zip(begins, [*ends, len(tokens)], strict=True)]


def joined(pieces: Sequence[Tensor], added: Sequence[Sequence[int]]) -> Tensor:
    """Return the values of the parts of a prompt, each with what is added behind it, in one row."""
    rows = [part for piece, end in zip(pieces, added, strict=True) for part in (piece, piece.new_tensor(end))]
    return torch.cat(rows)


def labels_of(pieces: Sequence[Tensor], answers: Sequence[Sequence[int]]) -> Tensor:
    """Return the labels of a row: its answers, -100 elsewhere."""
    return joined([torch.full_like(piece, IGNORED) for piece in pieces], answers)
