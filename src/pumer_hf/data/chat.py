"""From rows with an image, a question and an answer to the inputs of a decoder model.

The image stands before the question. If the processor has a chat template, the prompt is one turn of a chat.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import ProcessorMixin

from ..grounding import saliency_from_boxes
from ..images import open_image
from ..models.decoders.prompt import IGNORED
from .conversations import (
    Exchange,
    asked,
    exchanges_of,
    following_tokens,
    is_answered,
    joined,
    labels_of,
    pieces_of,
    plain_turns,
    separator_of,
)

ANSWER_TYPES = {"PaliGemmaProcessor": {"token_type_ids": 1}}
"""For each processor, the types of the tokens of an answer where they are not 0. PaliGemma's prompt attends in both
directions, and its answer, of type 1, from left to right."""
TEACHER_TOKENS, TEACHER_LOG_PROBS = "teacher_token_ids", "teacher_log_probs"
"""The columns with what a teacher said in advance about the T answer tokens of a row: the most probable tokens,
(T, k), and the logs of their probabilities and of that of all others together, (T, k + 1)."""
Row = Mapping[str, Any]


@dataclass
class ChatCollator:
    """Makes a batch of a decoder's own inputs from rows.

    A row has a `question`, an `image` or a list `images`, and, for training, an `answer`, or a list `answers`. In the
    place of a question it may have `messages`, the turns of a chat ([`read_chats`]). If the last one is of the
    assistant, the row has as many answers as turns of the assistant, and the prompts for `generate` end before it.
    A batch has what the processor makes of images and prompts, such as `input_ids` long (B, L), `attention_mask` long
    (B, L) and `pixel_values`. Without answers the prompts are padded on the left, for `generate`. With answers they
    are padded on the right, and `labels` long (B, L) has the tokens of the answers and of what ends them, -100
    elsewhere.
    """

    processor: ProcessorMixin
    """The processor of the model."""
    with_answers: bool = False
    """Whether the batch is for training: the answers follow their questions."""
    end_token: str | None = None
    """The token that ends an answer, such as `"<end_of_turn>"`. None: the end token of the tokenizer."""
    max_length: int | None = None
    """The most tokens of a row, with those of its images. A longer row is an error: if it were cut, image tokens or
    the answer would be missing. None: any number."""
    saliency_side: int | None = None
    """Rows and columns of the image tokens of an image, to add `image_saliency` float (B * side * side,) from the
    column `boxes`, for the method `grounded`. None: it is not added."""

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return the inputs of a batch.

        Raises:
            ValueError: a row has no image, or, for training, no answer, or too many tokens; or the tokenizer lacks the
                end token.
        """
        parts = [self.exchanges(row) for row in rows]
        texts = [[exchange.prompt for exchange in row] for row in parts]
        several = any(len(row) > 1 for row in texts)
        separator = separator_of(self.processor, [text for row in texts for text in row]) if several else None
        inputs = self._processed(rows, [(separator or "").join(row) for row in texts])
        number = None if separator is None else self.processor.tokenizer.convert_tokens_to_ids(separator)
        answers = [self._answers(row, exchanges) for row, exchanges in zip(rows, parts, strict=True)]
        fills = {"input_ids": self.pad_token_id, **ANSWER_TYPES.get(type(self.processor).__name__, {})}
        batch = repadded(inputs, answers, fills, pad_left=not self.with_answers, separator=number)
        self._check_length(rows, batch["attention_mask"])
        if not self.with_answers:
            del batch["labels"]
        elif TEACHER_TOKENS in rows[0]:
            batch |= teacher_answers(rows)
        if self.saliency_side is not None:
            maps = [saliency_from_boxes(row["boxes"], self.saliency_side) for row in rows]
            batch["image_saliency"] = torch.cat([one.flatten() for one in maps])
        return batch

    def exchanges(self, row: Row) -> list[Exchange]:
        """Return the prompts and the answers of a row. An answer is empty if the chat of the row does not have it."""
        turns = plain_turns(row.get("messages", ()))
        if not self.with_answers or not is_answered(turns):
            return [Exchange(row_prompt(self.processor, row, len(image_sources(row))), "")]
        check_template(self.processor, row)
        return exchanges_of(self.processor, turns, row.get("origin", "a row"))

    def prompts(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return what the processor makes of the images and questions of rows, padded as its tokenizer does.

        Raises:
            ValueError: a prompt has more placeholders than images.
        """
        return self._processed(rows, [row_prompt(self.processor, row, len(image_sources(row))) for row in rows])

    def _processed(self, rows: Sequence[Row], texts: Sequence[str]) -> dict[str, Tensor]:
        images = [images_of(row) for row in rows]
        token = self.processor.image_token
        for row, text, found in zip(rows, texts, images, strict=True):
            if text.count(token) > len(found):
                raise ValueError(
                    f"{row.get('origin', 'a row')}: its prompt has {text.count(token)} {token} for {len(found)} "
                    "images: each image has one, and is put before a question without a chat template"
                )
        options = special_tokens(self.processor, texts[0])
        return dict(self.processor(images=images, text=list(texts), padding=True, return_tensors="pt", **options))

    def _answers(self, row: Row, exchanges: Sequence[Exchange]) -> list[list[int]]:
        """Return the tokens with labels behind each prompt of a row."""
        if not self.with_answers:
            return [[]]
        if not exchanges[-1].answer:
            return [self.answer_tokens(row)]
        tokens = [following_tokens(self.processor.tokenizer, *exchange) for exchange in exchanges]
        if tokens[-1][-1:] != [self.end_token_id]:
            tokens[-1].append(self.end_token_id)
        return tokens

    def _check_length(self, rows: Sequence[Row], mask: Tensor) -> None:
        for row, length in zip(rows, mask.sum(dim=1).tolist(), strict=True):
            if self.max_length is not None and length > self.max_length:
                raise ValueError(
                    f"{row.get('origin', 'a row')}: {length} tokens, and max_length={self.max_length}: leave the row "
                    "out, make its images smaller, or set a larger max_length"
                )

    def answer_tokens(self, row: Row) -> list[int]:
        """Return the tokens of a row's answer, and the one that ends it."""
        tokens = self.processor.tokenizer(answer_of(row), add_special_tokens=False)["input_ids"]
        return [*tokens, self.end_token_id]

    @property
    def end_token_id(self) -> int:
        """The token that ends an answer."""
        tokenizer = self.processor.tokenizer
        token = tokenizer.eos_token if self.end_token is None else self.end_token
        number = None if token is None else tokenizer.get_vocab().get(token)
        if number is None:
            raise ValueError(f"end_token={token!r}: the tokenizer has no such token: name the one that ends an answer")
        return number

    @property
    def pad_token_id(self) -> int:
        """The token of padding; the end token if the tokenizer has none."""
        tokenizer = self.processor.tokenizer
        return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def teacher_answers(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Return what a teacher said in advance, padded to T answer tokens.

    Returns:
        `teacher_token_ids` long (B, T, k), -1 for padding, and `teacher_log_probs` float (B, T, k + 1).
    """
    tokens = [torch.as_tensor(row[TEACHER_TOKENS], dtype=torch.long) for row in rows]
    log_probs = [torch.as_tensor(row[TEACHER_LOG_PROBS], dtype=torch.float32) for row in rows]
    return {
        TEACHER_TOKENS: pad_sequence(tokens, batch_first=True, padding_value=-1),
        TEACHER_LOG_PROBS: pad_sequence(log_probs, batch_first=True),
    }


def images_of(row: Row) -> list[PILImage.Image]:
    """Return the images of a row: those of its column `images`, else the one of `image`."""
    return [open_image(source, row.get("origin", "")) for source in image_sources(row)]


def image_sources(row: Row) -> list[Any]:
    """Return what [`images_of`] opens."""
    sources = row["images"] if "images" in row else [row["image"]] if "image" in row else []
    if not sources:
        raise ValueError(f"{row.get('origin') or 'a row'}: no image: give a column `image`, or a list in `images`")
    return sources


def answer_of(row: Row) -> str:
    """Return the answer of a row: `answer`, else the one of `answers` that most annotators gave, the first of equals.

    With `answer_weights` it is the one of the highest weight.
    """
    if "answer" in row:
        return row["answer"]
    answers = row.get("answers")
    if not answers:
        raise ValueError(f"{row.get('origin', 'a row')}: no answer: give a column `answer` or `answers`")
    weights = row.get("answer_weights")
    if weights:
        return max(zip(answers, weights, strict=True), key=lambda pair: pair[1])[0]
    return Counter(answers).most_common(1)[0][0]


def row_prompt(processor: ProcessorMixin, row: Row, num_images: int) -> str:
    """Return the prompt of a row with `num_images` images: that of its chat `messages`, else that of its `question`.

    Raises:
        ValueError: the row has a chat, but the processor has no chat template.
    """
    if "messages" not in row:
        return prompt_text(processor, row["question"], num_images)
    check_template(processor, row)
    return processor.apply_chat_template(plain_turns(asked(row["messages"])), add_generation_prompt=True)


def check_template(processor: ProcessorMixin, row: Row) -> None:
    """Raise `ValueError` if a processor has no chat template, which the chat of a row needs."""
    if getattr(processor, "chat_template", None) is None:
        raise ValueError(
            f"{row.get('origin', 'a row')}: messages: the processor has no chat template: set processor.chat_template"
        )


def prompt_text(processor: ProcessorMixin, question: str, num_images: int = 1) -> str:
    """Return the prompt for a question about images that stand before it.

    Args:
        processor: its chat template makes the prompt. Without one, the prompt is a placeholder for each image and the
            question.
        question: the text.
        num_images: how many images the prompt has.
    """
    if getattr(processor, "chat_template", None) is None:
        return processor.image_token * num_images + question
    content = [*[{"type": "image"}] * num_images, {"type": "text", "text": question}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


def special_tokens(processor: ProcessorMixin, prompt: str) -> dict[str, bool]:
    """Return the argument of a processor that keeps it from adding the first token to a prompt that has it already.

    A chat template may write it.
    """
    begin = processor.tokenizer.bos_token
    return {"add_special_tokens": False} if begin is not None and prompt.startswith(begin) else {}


def repadded(
    inputs: Mapping[str, Tensor],
    answers: Sequence[Sequence[Sequence[int]]],
    fills: Mapping[str, int],
    pad_left: bool,
    separator: int | None = None,
) -> dict[str, Tensor]:
    """Return the inputs of prompts with the answers put in, padded anew, and `labels`, -100 but for the answers.

    Args:
        inputs: the output of a processor for B prompts.
        answers: the tokens of the answers of each prompt, one for each of its parts.
        fills: the token of padding, under `input_ids`, and the types of the tokens that are added; default 0.
        pad_left: whether the padding stands on the left.
        separator: the token between the parts of a prompt, which is left out; None if each has one part.
    """
    real = inputs["attention_mask"].bool()
    pieces = [
        pieces_of(tokens[mask], separator if len(ends) > 1 else None, len(ends))
        for tokens, mask, ends in zip(inputs["input_ids"], real, answers, strict=True)
    ]
    labels = [labels_of(*row) for row in zip(pieces, answers, strict=True)]
    batch = {"labels": padded(labels, IGNORED, pad_left)}
    for name, value in inputs.items():
        if value.shape != real.shape:
            batch[name] = value
            continue
        rows = []
        for row, (places, ends) in enumerate(zip(pieces, answers, strict=True)):
            of_tokens = {"input_ids": ends, "attention_mask": [[1] * len(end) for end in ends]}
            added = of_tokens.get(name, [[fills.get(name, 0)] * len(end) for end in ends])
            rows.append(joined([value[row, real[row]][place] for place in places], added))
        batch[name] = padded(rows, fills["input_ids"] if name == "input_ids" else 0, pad_left)
    return batch


def padded(rows: Sequence[Tensor], fill: int, left: bool) -> Tensor:
    """Return rows of different lengths as one tensor, (B, L), with `fill` for padding, on the left or on the right."""
    side = "left" if left else "right"
    return pad_sequence(list(rows), batch_first=True, padding_value=fill, padding_side=side)
