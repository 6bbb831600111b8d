"""A later turn of a chat on the cache of an earlier one, whose prompts were cut before the decoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .family import DecoderFamily, cut_inputs, pad_token_of
from .prompt import Cut, contiguous_positions

RECORD = "pumer_cut"
"""The attribute of a cache that holds its [`CutRecord`]."""


@dataclass(frozen=True)
class CutRecord:
    """What a cache knows about the prompts whose keys and values it holds."""

    cut: Cut
    last: Tensor
    """long (B, 1) or (4, B, 1): the positions of the last token of the prompts."""

    def repeated(self, times: int) -> "CutRecord":
        """Return the record of a batch in which each prompt stands `times` times."""
        return self if times == 1 else CutRecord(self.cut.repeated(times), self.last.repeat_interleave(times, dim=-2))

    def positions_after(self, mask: Tensor) -> Tensor:
        """Return the positions of the n tokens that follow the cut prompts, long (B, n) or (4, B, n).

        Args:
            mask: long (B, L' + n), 0 for padding.
        """
        new_mask = mask[:, self.cut.index.shape[1] :]
        positions = contiguous_positions(new_mask) + 1 + self.last
        if positions.ndim == 3:  # the first row is the place in the text, without gaps
            places = contiguous_positions(mask)[:, mask.shape[1] - new_mask.shape[1] :]
            positions = torch.cat([places.unsqueeze(0), positions[1:]])
        return positions


def later_turn(
    family: DecoderFamily, model: PreTrainedModel, inputs: Mapping[str, Any], record: CutRecord, cache: Any
) -> tuple[dict[str, Any], Cut]:
    """Return the arguments of `generate` for a later turn, whose beginning the cache holds already, and its cut.

    The cache gets the record of its batch.

    Args:
        family: the family of the model.
        model: the model.
        inputs: the arguments, with the whole chat as `input_ids`.
        record: what the cache knows about its cut.
        cache: the cache.

    Raises:
        ValueError: the new part of the chat has an image.
    """
    input_ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    new = input_ids[:, record.cut.length :]
    if bool((new == family.image_token_id(model.config)).any()):
        raise ValueError(
            "input_ids: a new image in a later turn on the same cache cannot be reduced: give the whole chat and "
            "its images without past_key_values, or set reduction.reread"
        )
    times = len(input_ids) // len(record.cut.index)
    cut = record.cut.repeated(times).extended(input_ids.shape[1])
    of_images = family.image_inputs(model) - {"input_ids"}
    rest = {name: value for name, value in inputs.items() if name not in of_images}
    shorter = cut_inputs({**rest, "position_ids": None}, cut, pad_token_of(model))
    mask = cut.mask if mask is None else cut.take(mask) * cut.mask
    new_mask = mask[:, record.cut.index.shape[1] :]
    record = record.repeated(times)
    after = record.positions_after(mask)
    before = after.new_zeros(*after.shape[:-1], mask.shape[1] - new_mask.shape[1])
    shorter |= {"attention_mask": mask, "position_ids": torch.cat([before, after], dim=-1)}
    setattr(cache, RECORD, record)
    return shorter, cut


def next_tokens(inputs: Mapping[str, Any], record: CutRecord, cache: Any, contiguous: bool) -> dict[str, Any]:
    """Return the inputs of a forward that gets new tokens alone, and the mask of all if any.

    Args:
        inputs: keyword arguments of the forward.
        record: what the cache knows about its cut.
        cache: the cache.
        contiguous: whether the positions after the cut have no gaps.

    Raises:
        ValueError: the mask has neither the columns of the whole chat nor those of the cache and the new tokens.
    """
    tokens = inputs["inputs_embeds"] if inputs.get("input_ids") is None else inputs["input_ids"]
    record = record.repeated(len(tokens) // len(record.cut.index))
    cached = cache.get_seq_length()
    cut = record.cut.extended(record.cut.length + cached - record.cut.index.shape[1] + tokens.shape[1])
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape[1] not in (cut.length, cached + tokens.shape[1]):
        raise ValueError(
            f"attention_mask: {mask.shape[1]} columns, but the whole prompt and what came after it have "
            f"{cut.length}: give a column for each of them"
        )
    if mask is None:
        mask = cut.mask
    elif mask.shape[1] == cut.length:
        mask = cut.take(mask) * cut.mask
    changed = {**inputs, "attention_mask": mask}
    if inputs.get("position_ids") is None or contiguous:
        changed["position_ids"] = record.positions_after(mask)[..., -tokens.shape[1] :]
    return changed


def refuse_cut(cache: Any) -> None:
    """Raise `ValueError` if the prompts of a cache were cut before the decoder, for a model that does not cut there.

    Args:
        cache: a cache or None.
    """
    if getattr(cache, RECORD, None) is not None:
        raise ValueError(
            "past_key_values: it holds prompts that were cut before the decoder, and this model does not cut there: "
            "go on with the reduction that it was made with, or give the whole chat without the cache"
        )


def anew(inputs: Mapping[str, Any], cache: Any, record: CutRecord | None) -> tuple[dict[str, Any], int]:
    """Return the arguments of `generate` for a whole chat without its cache, and the column of its new question.

    Args:
        inputs: the arguments.
        cache: the cache of an earlier turn.
        record: what it knows about its cut; None if nothing was cut.

    Raises:
        ValueError: the cache holds all of the chat.
    """
    held = cache.get_seq_length()
    if record is not None:
        held += record.cut.length - record.cut.index.shape[1]
    length = inputs["input_ids"].shape[1]
    if held >= length:
        raise ValueError(
            f"input_ids: {length} tokens, but past_key_values holds {held} of the chat already: give the whole chat "
            "with a new question"
        )
    return {name: value for name, value in inputs.items() if name not in ("cache", "past_key_values")}, held
