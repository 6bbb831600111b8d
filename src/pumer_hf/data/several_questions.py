"""Several questions about one image in one row of a batch, for a faster training of decoder models.

The image comes once, and the questions after it. A mask lets each question see the image and itself alone. Each has
the positions that it would have in a row of its own. So the loss is that of single rows. The image tokens, which are
most of a row, are computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from ..models.decoders.prompt import IGNORED
from .chat import TEACHER_LOG_PROBS, TEACHER_TOKENS, ChatCollator, Row, prompt_text, teacher_answers


def group_by_image(rows: Dataset, most: int) -> list[list[int]]:
    """Return which rows have one image, or the same `images`: lists of row numbers, each with at most `most`.

    Only rows that follow each other are looked at. Their images are equal before they are decoded.
    """
    groups: list[list[int]] = []
    last: Any = None
    column = "image" if "image" in rows.column_names else "images"
    for number, row in enumerate(rows.select_columns([column])):
        if last is None or row[column] != last or len(groups[-1]) == most:
            groups.append([])
        groups[-1].append(number)
        last = row[column]
    return groups


class GroupedRows(torch.utils.data.Dataset[list[Row]]):
    """A dataset whose items are the rows of one image. See [`group_by_image`]."""

    def __init__(self, rows: Dataset, most: int):
        self.rows, self.groups = rows, group_by_image(rows, most)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> list[Row]:
        return [self.rows[number] for number in self.groups[index]]


@dataclass
class SeveralQuestionsCollator:
    """Makes training batches from groups of rows that have one image ([`GroupedRows`]).

    A batch has `input_ids` and `labels` long (B, L), `position_ids` long (B, L), `attention_mask` float (B, 1, L, L),
    0 where a token sees another one and the least number of the type elsewhere, and `pixel_values`. It is for models
    whose tokens have one position each, and whose prompt is read from left to right, such as LLaVA.
    """

    collator: ChatCollator
    """Says how prompts and answers look."""

    def __call__(self, groups: Sequence[Sequence[Row]]) -> dict[str, Tensor]:
        """Return the inputs of a batch of groups."""
        prompts = self.collator.prompts([rows[0] for rows in groups])
        rows = []
        for number, group in enumerate(groups):
            ids = prompts["input_ids"][number][prompts["attention_mask"][number].bool()].tolist()
            shared = ids[: len(ids) - len(self.question_tokens(group[0]))]
            rows.append((shared, [(self.question_tokens(row), self.collator.answer_tokens(row)) for row in group]))
        length = max(len(shared) + sum(len(q) + len(a) for q, a in parts) for shared, parts in rows)
        batch = [one_row(shared, parts, length, self.collator.pad_token_id) for shared, parts in rows]
        stacked = {name: torch.stack([row[name] for row in batch]) for name in batch[0]}
        kept = {name: value for name, value in prompts.items() if name not in ("input_ids", "attention_mask")}
        if TEACHER_TOKENS in groups[0][0]:
            kept |= teacher_answers([joined_answers(group) for group in groups])
        return {**kept, **stacked}

    def question_tokens(self, row: Row) -> list[int]:
        """Return the tokens of the prompt behind the image."""
        processor = self.collator.processor
        behind = prompt_text(processor, row["question"]).rpartition(processor.image_token)[2]
        return processor.tokenizer(behind, add_special_tokens=False)["input_ids"]


def joined_answers(rows: Sequence[Row]) -> Row:
    """Return what a teacher said in advance about the answers of several rows, as of one row."""
    return {name: [item for row in rows for item in row[name]] for name in (TEACHER_TOKENS, TEACHER_LOG_PROBS)}


def one_row(
    shared: list[int], parts: Sequence[tuple[list[int], list[int]]], length: int, pad_token_id: int
) -> dict[str, Tensor]:
    """Return a row with several questions.

    Args:
        shared: the tokens up to the image, which all questions see.
        parts: the tokens of each question and of its answer.
        length: the length to which the row is padded.
        pad_token_id: the token of padding. A padding token sees itself.
    """
    ids, labels = list(shared), [IGNORED] * len(shared)
    owner, positions = [0] * len(shared), list(range(len(shared)))
    for number, (question, answer) in enumerate(parts, start=1):
        ids += question + answer
        labels += [IGNORED] * len(question) + answer
        owner += [number] * (len(question) + len(answer))
        positions += range(len(shared), len(shared) + len(question) + len(answer))
    missing = length - len(ids)
    owners = torch.tensor(owner + [-1] * missing)
    sees = (owners.unsqueeze(1) == owners) | (owners == 0) & (owners.unsqueeze(1) > 0)
    sees = (sees & torch.ones(length, length, dtype=torch.bool).tril()) | torch.eye(length, dtype=torch.bool)
    mask = torch.zeros(1, length, length).masked_fill(~sees, torch.finfo(torch.float32).min)
    return {
        "input_ids": torch.tensor(ids + [pad_token_id] * missing),
        "labels": torch.tensor(labels + [IGNORED] * missing),
        "position_ids": torch.tensor(positions + [0] * missing),
        "attention_mask": mask,
    }
