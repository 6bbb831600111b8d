"""What a decoder that reduces between its layers must compute, from transformers' own model alone.

Hooks of this file work on whole prompts. In the layers after a cut they mask the columns of the tokens that are gone,
and put the mean of merged tokens into the column that stays. Nothing here calls the code that is tested. From it come
only the traces: which image tokens were kept, and which hold others.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models.decoders.oracle import NEW, Oracle
from models.decoders.tiny import IMAGE
from torch import Tensor

from pumer_hf.models.families import DECODERS

NAMES = tuple(name for name, row in DECODERS.items() if not row.no_layers)
"""The families that can reduce inside the decoder."""
DISTINCT = ("llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "paligemma")
"""Families whose text models differ from each other. Those of the others are like one of them."""
FAMILIES = tuple(name if name in DISTINCT else pytest.param(name, marks=pytest.mark.slow) for name in NAMES)
"""All families, of which a usual run takes the distinct ones."""


def pumer(*layers: int, prune: Any = 0.5, merge: Any = 0.0, **more: Any) -> dict[str, Any]:
    """A schedule of PuMer."""
    return {
        "method": "pumer",
        "layers": list(layers),
        "prune_ratio": prune,
        "image_merge_ratio": merge,
        "text_merge_ratio": 0.0,
        **more,
    }


@dataclass(frozen=True)
class Cut:
    """What is left after a layer."""

    layer: int
    keep: Tensor
    """bool (B, L)."""
    groups: tuple[tuple[int, int, tuple[int, ...]], ...]
    """Row and column of each kept image token, and the columns of the tokens of which it is the mean. These were left
    before."""
    size: Tensor
    """float (B, L), how many image tokens each one holds; 1 for text."""


def cuts_of(inputs: dict[str, Tensor], traces: Sequence[Any]) -> list[Cut]:
    """The cuts that traces tell of, by layer."""
    real = inputs["attention_mask"].bool()
    holders: dict[tuple[int, int], int] = {}
    cuts = []
    for layer in sorted({trace.layer for trace in traces if trace.layer is not None}):
        mine = [trace for trace in traces if trace.layer == layer]
        groups: dict[tuple[int, int], set[int]] = {}
        size = torch.ones(real.shape)
        keep = real & (inputs["input_ids"] != IMAGE)
        now: dict[tuple[int, int], int] = {}
        counts: dict[tuple[int, int], int] = {}
        for trace in mine:
            keep[trace.row, trace.kept] = True
            for column, holder in zip(trace.columns.tolist(), trace.holder.tolist(), strict=True):
                before = holders.get((trace.row, column), column)
                now[trace.row, column] = holder
                if holder >= 0:
                    assert before >= 0, "a token that was dropped does not come back"
                    groups.setdefault((trace.row, holder), set()).add(before)
                    counts[trace.row, holder] = counts.get((trace.row, holder), 0) + 1
        for (row, column), number in counts.items():
            size[row, column] = number
        cuts.append(Cut(layer, keep, tuple((*place, tuple(sorted(of))) for place, of in groups.items()), size))
        holders = now
    return cuts


@contextmanager
def cutting(model: Any, cuts: Sequence[Cut], sized: bool = False) -> Iterator[None]:
    """Let a stock model compute on whole prompts what it would compute without the tokens that are gone.

    Args:
        model: a stock model.
        cuts: what is left after some of its layers.
        sized: whether a merged token counts as often as it holds tokens, in means and in attention.
    """
    handles = []
    for index, layer in enumerate(model.get_decoder().layers):
        earlier = [number for number, cut in enumerate(cuts) if cut.layer < index]
        if earlier:
            cut = cuts[earlier[-1]]
            before = cuts[earlier[-1] - 1].size if len(earlier) > 1 else torch.ones(cut.keep.shape)
            merging = before if cut.layer == index - 1 else None
            handles.append(layer.register_forward_pre_hook(partial(_cut_layer, cut, merging, sized), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _cut_layer(cut: Cut, merging: Tensor | None, sized: bool, layer: Any, args: Any, kwargs: Any) -> Any:
    states = args[0]
    times, length = len(states) // len(cut.keep), cut.keep.shape[1]
    if merging is not None and states.shape[1] >= length:  # not a token of the answer
        states = merged_states(states, cut, merging if sized else torch.ones(merging.shape), times)
    cache = kwargs.get("past_key_values")
    cache = kwargs.get("cache") if cache is None else cache
    seen = 0 if cache is None else cache.get_seq_length(layer.self_attn.layer_idx)
    columns = seen + states.shape[1]
    keep = torch.nn.functional.pad(cut.keep, (0, columns - length), value=True).repeat_interleave(times, dim=0)
    size = torch.nn.functional.pad(cut.size, (0, columns - length), value=1.0).repeat_interleave(times, dim=0)
    mask = kwargs.get("attention_mask")
    if mask is None:
        mask = torch.ones(len(states), 1, states.shape[1], columns, dtype=torch.bool)
        if layer.self_attn.is_causal:
            mask = mask.tril(columns - states.shape[1])
    itself = torch.eye(mask.shape[2], dtype=torch.bool)  # a row that sees nothing would be no number
    itself = torch.nn.functional.pad(itself, (mask.shape[3] - mask.shape[2], 0))
    keep = keep[:, None, None, -mask.shape[3] :] | itself
    lowest = torch.finfo(states.dtype).min
    if mask.dtype != torch.bool:
        mask = mask.masked_fill(~keep, lowest).masked_fill(itself & ~(mask >= 0), 0.0)
    else:
        mask = (mask & keep) | itself
    if sized:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=states.dtype).masked_fill(~mask, lowest)
        mask = (mask + size[:, None, None, -mask.shape[3] :].log().to(states.dtype)).clamp(min=lowest)
    return (states, *args[1:]), {**kwargs, "attention_mask": mask}


def merged_states(states: Tensor, cut: Cut, weight: Tensor, times: int) -> Tensor:
    """The states (times * B, L, D) in which each kept token is the mean of its group, by a weight (B, L)."""
    new = {}
    for row, column, members in cut.groups:
        index = torch.tensor(members)
        share = (weight[row, index] / weight[row, index].sum()).to(states.dtype)
        for copy in range(row * times, (row + 1) * times):
            new[copy, column] = share @ states[copy, index]
    if not new:
        return states
    rows, columns = torch.tensor(list(new)).T
    return states.index_put((rows, columns), torch.stack(list(new.values())))


def everything(inputs: dict[str, Tensor]) -> list[Any]:
    """The traces of a cut before the decoder that keeps every image token."""
    is_image = inputs["input_ids"] == IMAGE
    return [SimpleNamespace(row=row, kept=places.nonzero().squeeze(1)) for row, places in enumerate(is_image)]


class LayersOracle:
    """The stock model on whole prompts, in whose layers columns are masked, with a cache.

    The arguments are those of [`Oracle`], and `sized` as in [`cutting`]. Traces may also tell of a cut before the
    decoder.
    """

    def __init__(
        self, name: str, model: Any, inputs: dict[str, Tensor], traces: Sequence[Any], sized: bool = False, **more: Any
    ):
        self.model, self.sized = model, sized
        before = [trace for trace in traces if trace.layer is None] or everything(inputs)
        self.cuts = cuts_of(inputs, traces)
        with self.hooks():
            self.inner = Oracle(name, model, inputs, before, **more)
        self.outputs = self.inner.outputs
        self.keep = self.cuts[-1].keep if self.cuts else self.inner.keep

    def hooks(self) -> Any:
        """The hooks of the cuts."""
        return cutting(self.model, self.cuts, self.sized)

    @property
    def logits(self) -> list[Tensor]:
        """The logits of what stays of each prompt, (L', V)."""
        return self.rows(self.outputs.logits)

    def rows(self, logits: Tensor) -> list[Tensor]:
        """The logits of what stays of each prompt, from those of all columns."""
        return [row[stays] for row, stays in zip(logits, self.keep, strict=True)]

    def feed(self, tokens: Tensor) -> Tensor:
        """As in [`Oracle`]."""
        with self.hooks():
            return self.inner.feed(tokens)

    def answer(self, logits: Tensor | None = None, number: int = NEW) -> Tensor:
        """The most probable tokens, long (B, number), but for placeholders of images. The last one is not fed."""
        logits = self.outputs.logits[:, -1] if logits is None else logits
        tokens: list[Tensor] = []
        while len(tokens) < number:
            logits = self.feed(tokens[-1]) if tokens else logits
            tokens.append(logits.index_fill(1, torch.tensor([IMAGE]), -torch.inf).argmax(dim=-1, keepdim=True))
        return torch.cat(tokens, dim=1)
