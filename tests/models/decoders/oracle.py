"""What a reduced decoder model must compute, from transformers' own model alone.

Nothing here calls the code that is tested. From it come only the traces: which image tokens were kept.
"""

import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
import torch
from models.decoders.tiny import IMAGE, PAD, tiny_model
from torch import Tensor

from pumer_hf.models.decoders.call_checks import REPEATS_IMAGES
from pumer_hf.models.families import DECODERS

NAMES = tuple(DECODERS)
with_beams = pytest.mark.skipif(not REPEATS_IMAGES, reason="needs transformers 5.20")
NEW = 5
"""How many tokens an answer has."""
OF_IMAGES = ("pixel_values", "image_grid_thw", "image_sizes", "image_position_ids", "pixel_attention_mask")


@cache
def stock(name: str) -> Any:
    """The stock model of a family. Tests do not change it."""
    return tiny_model(name)


@cache
def ours(name: str) -> Any:
    """Our model with the same weights. A test sets its schedule."""
    return tiny_model(name, ours=True)


def kept_columns(inputs: dict[str, Tensor], traces: Sequence[Any]) -> Tensor:
    """Which columns of the prompts stay, bool (B, L)."""
    keep = inputs["attention_mask"].bool() & (inputs["input_ids"] != IMAGE)
    for trace in traces:
        keep[trace.row, trace.kept] = True
    return keep


def encoded(model: Any, inputs: dict[str, Tensor]) -> Any:
    """The output of the image encoder."""
    encode = model.base_model.get_image_features
    names = inspect.signature(encode).parameters
    given = {name: inputs[name] for name in names if name in inputs}
    return encode(**given, return_dict=True)


def changed(output: Any, change: Any) -> Any:
    """An output of an image encoder whose token features (N, D) were changed by a function."""

    def replaced(values: Any, one_each: bool) -> Any:
        if isinstance(values, Tensor):
            new = change(values.reshape(-1, values.shape[-1]))
            return new.unsqueeze(1) if one_each and len(new) else new
        lengths = [len(item) for item in values]
        new = change(torch.cat(list(values)))
        return list(new.split(lengths)) if len(new) == sum(lengths) else [new]

    found = type(output)(**dict(output))
    found.pooler_output = replaced(output.pooler_output, True)
    if output.get("deepstack_features") is not None:
        found.deepstack_features = [replaced(layer, False) for layer in output.deepstack_features]
    return found


def merged(inputs: dict[str, Tensor], traces: Sequence[Any]) -> Any:
    """A function of features (N, D): each kept token becomes the mean of the tokens that it holds."""
    order = {
        (int(row), int(column)): index
        for index, (row, column) in enumerate((inputs["input_ids"] == IMAGE).nonzero().tolist())
    }

    held: dict[int, list[int]] = {}
    for trace in traces:
        for column, holder in zip(trace.columns.tolist(), trace.holder.tolist(), strict=True):
            if holder >= 0:
                held.setdefault(order[trace.row, holder], []).append(order[trace.row, column])

    def change(features: Tensor) -> Tensor:
        new = list(features)
        for place, members in held.items():
            new[place] = torch.stack([features[index] for index in members]).mean(dim=0)
        return torch.stack(new)

    return change


def whole_positions(name: str, model: Any, inputs: dict[str, Tensor], generating: bool) -> Tensor:
    """The positions of all columns as the stock model counts them: long (B, L), or (3, B, L) with M-RoPE."""
    mask = inputs["attention_mask"]
    if DECODERS[name].multimodal_rope:
        names = inspect.signature(model.base_model.get_rope_index).parameters
        return model.base_model.get_rope_index(**{key: inputs[key] for key in names if key in inputs})[0]
    first = int(name == "paligemma")
    if generating:
        return (mask.cumsum(dim=1) - 1).clamp(min=0) + first
    return torch.arange(mask.shape[1]).expand(len(mask), -1) + first


class Oracle:
    """The stock model on whole prompts whose dropped columns are masked, with a cache.

    For a family whose memory a mask does not reach, it is the stock model on shortened prompts.

    Args:
        name: the family.
        model: a stock model.
        inputs: whole prompts.
        traces: what was kept.
        contiguous: whether the positions of what stays have no gaps.
        generating: whether positions are counted as `generate` does.
        merge: whether kept tokens are means.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        inputs: dict[str, Tensor],
        traces: Sequence[Any],
        contiguous: bool = False,
        generating: bool = False,
        merge: bool = False,
        **more: Any,
    ):
        self.model = model
        self.keep = keep = kept_columns(inputs, traces)
        positions = whole_positions(name, model, inputs, generating)
        if contiguous:
            first = int(name == "paligemma")
            positions = (keep.cumsum(dim=1) - 1).clamp(min=0).expand_as(positions) + first
        given = {key: value for key, value in inputs.items() if key not in OF_IMAGES} | more
        if merge:
            given["mm_encoder_outputs"] = {"image": changed(encoded(model, inputs), merged(inputs, traces))}
        else:
            given |= {key: inputs[key] for key in OF_IMAGES if key in inputs}
        self.mask = given["attention_mask"] = keep.long()
        given["position_ids"] = positions
        if DECODERS[name].shortened_prompt:
            given = self.shortened(given, inputs, merge, traces)
        self.outputs = model(**given, use_cache=True)
        self.cache = self.outputs.past_key_values
        self.last = given["position_ids"][..., -1:]

    def shortened(self, given: dict[str, Any], inputs: dict[str, Tensor], merge: bool, traces: Sequence[Any]) -> Any:
        """The arguments of a forward with shorter prompts, padded on the left."""
        keep = self.keep
        change = merged(inputs, traces) if merge else (lambda features: features)
        chosen = keep[inputs["input_ids"] == IMAGE]
        longest = int(keep.sum(dim=1).max())

        def cut(values: Tensor, fill: int = 0) -> Tensor:
            if values.ndim == 3:
                return torch.stack([cut(layer) for layer in values])
            rows = torch.full((len(keep), longest), fill)
            for index, (row, stays) in enumerate(zip(values, keep, strict=True)):
                rows[index, longest - int(stays.sum()) :] = row[stays]
            return rows

        fills = {"input_ids": PAD, "labels": -100}
        short = {
            key: cut(value, fills.get(key, 0))
            for key, value in given.items()
            if isinstance(value, Tensor) and value.shape[-2:] == keep.shape
        }
        self.mask = short["attention_mask"]
        short["mm_encoder_outputs"] = {
            "image": changed(encoded(self.model, inputs), lambda features: change(features)[chosen])
        }
        return short

    def rows(self, logits: Tensor) -> list[Tensor]:
        """The logits of what stays of each prompt, from those of all columns."""
        if logits.shape[1] == self.keep.shape[1]:
            return [row[stays] for row, stays in zip(logits, self.keep, strict=True)]
        return [row[len(row) - int(stays.sum()) :] for row, stays in zip(logits, self.keep, strict=True)]

    @property
    def logits(self) -> list[Tensor]:
        """The logits of what stays of each prompt, (L', V)."""
        return self.rows(self.outputs.logits)

    def feed(self, tokens: Tensor) -> Tensor:
        """Give more tokens, long (B, n), and return the logits of the last one, (B, V)."""
        number = tokens.shape[1]
        self.mask = torch.cat([self.mask, torch.ones_like(tokens)], dim=1)
        positions = self.last + 1 + torch.arange(number)
        self.last = positions[..., -1:]
        outputs = self.model(
            input_ids=tokens, attention_mask=self.mask, position_ids=positions, past_key_values=self.cache
        )
        return outputs.logits[:, -1]

    def answer(self, logits: Tensor | None = None, number: int = NEW) -> Tensor:
        """The most probable tokens, long (B, number), after the logits (B, V). The last one is not fed."""
        logits = self.outputs.logits[:, -1] if logits is None else logits
        tokens = [logits.argmax(dim=-1, keepdim=True)]
        while len(tokens) < number:
            tokens.append(self.feed(tokens[-1]).argmax(dim=-1, keepdim=True))
        return torch.cat(tokens, dim=1)


def in_threads(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make calls at the same time, each in a thread of its own. Return their results."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]
