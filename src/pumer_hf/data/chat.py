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
    place of a question it may have `messages`, the turns of a chat up to the question ([`read_chats`]).
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
    saliency_side: int | None = None
    """Rows and columns of the image tokens of an image, to add `image_saliency` float (B * side * side,) from the
    column `boxes`, for the method `grounded`. None: it is not added."""

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return the inputs of a batch.

        Raises:
            ValueError: a row has no image, or, for training, no answer; or the tokenizer lacks the end token.
        """
        inputs = self.prompts(rows)
        tails = [self.answer_tokens(row) if self.with_answers else [] for row in rows]
        fills = {"input_ids": self.pad_token_id, **ANSWER_TYPES.get(type(self.processor).__name__, {})}
        batch = repadded(inputs, tails, fills, pad_left=not self.with_answers)
        if self.with_answers:
            batch["labels"] = answer_labels(batch["attention_mask"], batch["input_ids"], tails)
            if TEACHER_TOKENS in rows[0]:
                batch |= teacher_answers(rows)
        if self.saliency_side is not None:
            maps = [saliency_from_boxes(row["boxes"], self.saliency_side) for row in rows]
            batch["image_saliency"] = torch.cat([one.flatten() for one in maps])
        return batch

    def prompts(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return what the processor makes of the images and questions of rows, padded as its tokenizer does.

        Raises:
            ValueError: a prompt has more placeholders than images.
        """
        images = [images_of(row) for row in rows]
        texts = [row_prompt(self.processor, row, len(found)) for row, found in zip(rows, images, strict=True)]
        token = self.processor.image_token
        for row, text, found in zip(rows, texts, images, strict=True):
            if text.count(token) > len(found):
                raise ValueError(
                    f"{row.get('origin', 'a row')}: its prompt has {text.count(token)} {token} for {len(found)} "
                    "images: each image has one, and is put before a question without a chat template"
                )
        options = special_tokens(self.processor, texts[0])
        return dict(self.processor(images=images, text=texts, padding=True, return_tensors="pt", **options))

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
    origin = row.get("origin", "")
    sources = row["images"] if "images" in row else [row["image"]] if "image" in row else []
    if not sources:
        raise ValueError(f"{origin or 'a row'}: no image: give a column `image`, or a list in `images`")
    return [open_image(source, origin) for source in sources]


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
    if getattr(processor, "chat_template", None) is None:
        raise ValueError(
            f"{row.get('origin', 'a row')}: messages: the processor has no chat template: set processor.chat_template"
        )
    turns = [{**turn, "content": list(map(without_none, turn["content"]))} for turn in row["messages"]]
    return processor.apply_chat_template(turns, add_generation_prompt=True)


def without_none(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part of a turn without the keys that another part needs, as chat templates look for them."""
    return {name: value for name, value in part.items() if value is not None}


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
    inputs: Mapping[str, Tensor], tails: Sequence[Sequence[int]], fills: Mapping[str, int], pad_left: bool
) -> dict[str, Tensor]:
    """Return the inputs of prompts with tokens added behind each, padded anew.

    Args:
        inputs: the output of a processor for B prompts.
        tails: the tokens that each prompt gets.
        fills: the token of padding, under `input_ids`, and the types of the tokens that are added; default 0.
        pad_left: whether the padding stands on the left.
    """
    real = inputs["attention_mask"].bool()
    lengths = [int(row.sum()) + len(tail) for row, tail in zip(real, tails, strict=True)]
    shape = (len(tails), max(lengths))
    batch = {}
    for name, value in inputs.items():
        if value.shape != real.shape:
            batch[name] = value
            continue
        batch[name] = value.new_full(shape, fills["input_ids"] if name == "input_ids" else 0)
        for row, tail in enumerate(tails):
            place = slice(shape[1] - lengths[row], None) if pad_left else slice(lengths[row])
            added = {"input_ids": list(tail), "attention_mask": [1] * len(tail)}
            end = value.new_tensor(added.get(name, [fills.get(name, 0)] * len(tail)))
            batch[name][row, place] = torch.cat([value[row, real[row]], end])
    return batch


def answer_labels(mask: Tensor, input_ids: Tensor, tails: Sequence[Sequence[int]]) -> Tensor:
    """Return the labels of prompts that are padded on the right, long (B, L), -100 but for their last tokens.

    Args:
        mask: long (B, L), 0 for padding.
        input_ids: long (B, L).
        tails: the tokens at the end of each prompt that have labels.
    """
    places = torch.arange(mask.shape[1])
    ends = mask.sum(dim=1, keepdim=True)
    begins = ends - torch.tensor([[len(tail)] for tail in tails])
    return input_ids.masked_fill((places < begins) | (places >= ends), IGNORED)
