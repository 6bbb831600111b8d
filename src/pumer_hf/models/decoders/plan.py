"""`LayerPlan`: what the layers of a decoder reduce in one forward.

The stock text model runs its layers one after the other. Hooks on the layers (`hooks.py`) ask the plan, which goes
through them as an argument:

1. In a layer that reduces, the attention function shows the plan its queries and keys. The plan computes from them
   what the method wants to know: the keys of the image tokens, and how much the text attends to these.
2. Before the next layer, the plan reduces the image tokens and cuts the sequence. From there on, each layer gets a
   mask and rotary embeddings for what is left.
3. After the last layer, what is left goes back to its old columns. So the rest of the model sees the whole length.

Shapes use B prompts, L tokens per prompt, L' of them after a cut, and N image tokens in the whole batch.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ... import ops
from ...reducers import TokenReducer
from ...tokens import NUM_PREFIX_TOKENS, Evidence, TokenPair, Tokens
from ..profiling import reduction_region
from .images import ImageTrace, Reduced, by_length, image_tokens, reduce_groups
from .prompt import Cut, Placeholders
from .text_rows import attention_of_rows


@dataclass(frozen=True)
class Stage:
    """What is left of the tokens after some layers. It is never changed: a reduction makes a new one."""

    alive: Tensor
    """long (K,): which of the N image tokens are left, ascending."""
    source: Tensor
    """long (N,): which of the K holds each of the N; -1 for one that was dropped."""
    prior: Tensor | None = None
    """float (K,): the saliency of each from outside the decoder; None if there is none."""
    weight: Tensor | None = None
    """float (K,): how much each counts in attention; None if all count the same."""
    gate: Tensor | None = None
    """float (K,): 1 for each, with a gradient for a method that learns which tokens to keep; None if none learns."""
    cut: Cut | None = None
    """Which of the L columns are left. None if all are."""
    padded: bool = False
    """Whether some prompts have fewer tokens left than others."""
    key_weight: Tensor | None = None
    """float (B, L'): how much each token counts in attention; None if all count the same."""

    def to(self, device: torch.device) -> "Stage":
        """Return the same on a device."""
        if self.alive.device == device:
            return self
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        if self.cut is not None:
            moved["cut"] = replace(self.cut, index=self.cut.index.to(device))
        return replace(self, **moved)


@dataclass(frozen=True)
class DecoderTokens:
    """The tokens of a forward as they come into the first layer."""

    placeholders: Placeholders
    """The image tokens."""
    real: Tensor
    """bool (B, L): False for padding."""
    is_word: Tensor
    """bool (B, L): True for the tokens whose attention counts if they stand after the last image token of their
    prompt: the text, but neither padding nor an answer."""
    is_answer: Tensor | None = None
    """bool (B, L): True for the tokens that have a label. A token after one of them has read the answer, so it does
    not count either, if both stand after the last image. None without labels."""
    maps: Tensor | None = None
    """float (N,): the saliency of each image token from outside the decoder; None if there is none."""
    weight: Tensor | None = None
    """float (N,): how much each counts in attention from the first layer on; None if all count the same."""
    gate: Tensor | None = None
    """float (N,): that of [`Stage`]."""
    copies: int = 1
    """How often each prompt stands in the batch, for beams or several answers. One of them has traces."""
    seen: int = 0
    """How many columns of the prompts are in the cache already."""


class LayerPlan:
    """The reduction inside a decoder, in one forward.

    It is a plain class, since copies of it would not see what the layers tell it.

    Args:
        reducer: the method; None if no layer reduces, and the tokens only have weights.
        tokens: the tokens of this forward, before the first layer.

    Raises:
        ValueError: the method needs what is not there: the attention of text, or `maps`.
    """

    def __init__(self, reducer: TokenReducer | None, tokens: DecoderTokens):
        self.reducer, self.placeholders, self.real = reducer, tokens.placeholders, tokens.real
        self.copies, self.seen = tokens.copies, tokens.seen
        placeholders, real = tokens.placeholders, tokens.real
        device = real.device
        columns = torch.arange(real.shape[1], device=device).expand_as(real)
        last_image = torch.full((len(real),), -1, device=device)
        last_image = last_image.scatter_reduce(0, placeholders.rows, placeholders.columns, "amax")
        after_image = columns > last_image.unsqueeze(1)
        counts = tokens.is_word & after_image
        if tokens.is_answer is not None:
            counts &= (tokens.is_answer & after_image).cumsum(dim=1) == 0
        most = max(int(counts.sum(dim=1).max()), 1)
        self.words = (~counts).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
        """long (B, R): the columns of the words whose attention counts, padded on the right."""
        self.words_mask = counts.gather(1, self.words)
        """bool (B, R)."""
        self._check(tokens.maps)
        everything = torch.arange(len(placeholders.rows), device=device)
        first = Stage(everything, everything, tokens.maps, tokens.weight, tokens.gate)
        self.stages = {-1: replace(first, key_weight=self._key_weight(first, *real.shape))}
        """By layer, what is left after it. A layer that reduces nothing has no entry."""
        self.reductions: dict[int, Reduced] = {}
        """By layer, what it has done to all N image tokens."""
        self._evidence: dict[int, list[tuple[Tensor, Evidence]]] = {}

    def _check(self, maps: Tensor | None) -> None:
        if self.reducer is None:
            return
        with_image = torch.zeros_like(self.real[:, 0])
        with_image[self.placeholders.rows] = True
        if self.reducer.uses_attention and not bool(self.words_mask.any(dim=1)[with_image].all()):
            raise ValueError(
                "input_ids: a prompt ends with its image, so no text has attended to it: put the question after it"
            )
        if self.reducer.uses_prior and maps is None:
            raise ValueError(
                "image_saliency: missing: a part of the schedule needs a float for each image token, in the order of "
                "the prompts"
            )

    def stage_before(self, layer: int) -> Stage:
        """Return what is left when the tokens come into a layer."""
        return self.stages[max(known for known in self.stages if known < layer)]

    def reduces_after(self, layer: int) -> bool:
        """Return whether tokens are reduced after a layer."""
        return layer >= 0 and self.reducer is not None and self.reducer.config.reduces(layer)

    @torch.compiler.disable  # which tokens stay depends on values, so compiled code breaks here anyway
    def see(self, module: Any, query: Tensor, key: Tensor, attention_mask: Tensor | None, **kwargs: Any) -> None:
        """Keep what the attention of a layer knows about the image tokens, if the layer reduces.

        Args:
            module: the attention layer.
            query: float (B, H, L', d), after the position embedding.
            key: float (B, H', Lk, d). Those of this forward are the last L'.
            attention_mask: that of the kernel.
            kwargs: other arguments of the kernel.
        """
        layer = module.layer_idx
        if self.reducer is None or not self.reduces_after(layer):
            return
        self._move(query.device)
        stage = self.stage_before(layer)
        with reduction_region(), torch.no_grad():
            keys = ops.mean_over_heads(key[:, :, -query.shape[2] :])
            self._evidence[layer] = []
            for members in by_length(self.placeholders.rows[stage.alive]):
                row = self.placeholders.rows[stage.alive[members[:, 0]]]
                image = self._places(stage, members)
                words = self._word_places(stage)[row]
                attention = None
                if self.reducer.at(layer).uses_attention:
                    mask = None if attention_mask is None else _of(row, attention_mask.expand(len(query), -1, -1, -1))
                    attention = attention_of_rows(module, _of(row, query), _of(row, key), mask, words, **kwargs)
                    columns = (image + key.shape[2] - query.shape[2])[:, None, None, :]
                    attention = attention.gather(3, columns.expand(-1, *attention.shape[1:3], -1))
                    attention = F.pad(attention, (NUM_PREFIX_TOKENS, 0))
                keys_of_row = _of(row, keys)
                image_keys = F.pad(_take(keys_of_row, image), (0, 0, NUM_PREFIX_TOKENS, 0))
                evidence = Evidence(attention, _take(keys_of_row, words), image_keys, query.dtype)
                self._evidence[layer].append((members, evidence))

    @torch.compiler.disable
    def reduce_after(self, layer: int, states: Tensor) -> Tensor:
        """Reduce the image tokens that come out of a layer.

        Args:
            layer: the index of the layer.
            states: float (B, L', D), what comes out of it.

        Returns:
            float (B, L'', D).
        """
        assert self.reducer is not None, "`reduces_after` says so"
        self._move(states.device)
        before = self.stage_before(layer)
        rows, places = self.placeholders.rows[before.alive], self._places(before, None)
        features = states[rows, places]
        done = reduce_groups(self.reducer, layer, self._pairs(layer, before, states, features), features)
        alive = before.alive[done.kept]
        source = torch.where(before.source >= 0, done.source[before.source.clamp(min=0)], -1)
        saliency = None
        if done.saliency is not None:
            saliency = done.saliency.new_zeros(len(source)).index_copy(0, before.alive, done.saliency)
        self.reductions[layer] = replace(done, kept=alive, source=source, saliency=saliency)
        prior = None if before.prior is None else done.move(before.prior.unsqueeze(1)).squeeze(1)
        keep = self.real.clone()
        keep[self.placeholders.rows, self.placeholders.columns] = False
        keep[self.placeholders.rows[alive], self.placeholders.columns[alive]] = True
        now = replace(before, alive=alive, source=source, prior=prior, weight=done.weight, gate=done.gate)
        if len(alive) < len(before.alive):
            cut = Cut.of(keep, pad_left=False)
            states = _take(states, self._current(before, cut.index.clamp(min=0)))
            now = replace(now, cut=cut, padded=bool((cut.index < 0).any()))
        places_now = rows[done.kept], self._places(now, None)
        states = states.index_put(places_now, done.features.to(states.dtype))
        self.stages[layer] = replace(now, key_weight=self._key_weight(now, *states.shape[:2]))
        return states

    @torch.compiler.disable
    def restore(self, layer: int, states: Tensor) -> Tensor:
        """Bring the tokens back to their columns, with zeros for those that are gone.

        Args:
            layer: the index of the last layer.
            states: float (B, L', D).

        Returns:
            float (B, L, D).
        """
        cut = self.stage_before(layer).cut
        if cut is None:
            return states
        whole = states.new_zeros(len(states), cut.length + 1, states.shape[2])
        index = torch.where(cut.index < 0, cut.length, cut.index).unsqueeze(-1).expand_as(states)
        return whole.scatter(1, index.to(states.device), states)[:, :-1]

    @torch.compiler.disable
    def traces(self, whole: Cut | None = None) -> tuple[ImageTrace, ...]:
        """Return what became of each image in each layer that reduced.

        Args:
            whole: the cut that had been made before the decoder. The columns of the traces are then those of the
                whole prompts.
        """
        rows, columns = self.placeholders.rows, self.placeholders.columns
        columns = columns + self.seen if whole is None else whole.index.to(rows.device)[rows // self.copies, columns]
        placeholders = replace(self.placeholders, columns=columns)
        return tuple(
            replace(trace, row=trace.row // self.copies)
            for layer in sorted(self.reductions)
            for trace in self.reductions[layer].traces(placeholders, layer)
            if trace.row % self.copies == 0
        )

    def _current(self, stage: Stage, columns: Tensor) -> Tensor:
        """Where tokens, given by their columns long (B, n), stand now. They must be left."""
        if stage.cut is None:
            return columns
        places = torch.arange(stage.cut.index.shape[1], device=columns.device).expand_as(stage.cut.index)
        inverse = places.new_zeros(len(places), stage.cut.length + 1)
        index = torch.where(stage.cut.index < 0, stage.cut.length, stage.cut.index)
        return inverse.scatter(1, index, places).gather(1, columns)

    def _places(self, stage: Stage, members: Tensor | None) -> Tensor:
        """Where image tokens stand now: long (G, P) for some of those that are left, else long (K,) for all."""
        alive = stage.alive if members is None else stage.alive[members]
        rows, columns = self.placeholders.rows[alive], self.placeholders.columns[alive]
        if stage.cut is None:
            return columns
        every = torch.arange(stage.cut.length, device=rows.device).expand(len(self.real), -1)
        return self._current(stage, every)[rows, columns]

    def _word_places(self, stage: Stage) -> Tensor:
        return self._current(stage, self.words)

    def _pairs(
        self, layer: int, stage: Stage, states: Tensor, features: Tensor
    ) -> Iterable[tuple[Tensor, TokenPair, Evidence]]:
        places = self._word_places(stage)
        for members, evidence in self._evidence[layer]:
            row = self.placeholders.rows[stage.alive[members[:, 0]]]
            image = image_tokens(features[members], stage.prior, members)
            if stage.weight is not None:
                weight = F.pad(stage.weight[members], (NUM_PREFIX_TOKENS, 0))
                image = replace(image, weight=weight, mask=weight > 0)
            if stage.gate is not None:
                image = replace(image, gate=F.pad(stage.gate[members], (NUM_PREFIX_TOKENS, 0), value=1.0))
            words = Tokens.initial(_take(_of(row, states), places[row]), mask=self.words_mask[row])
            yield members, TokenPair(words, image), evidence

    def _key_weight(self, stage: Stage, batch: int, length: int) -> Tensor | None:
        """How much each token counts in attention, float (batch, length); None if all count the same."""
        weights = [values.float() for values in (stage.weight, stage.gate) if values is not None]
        if not weights:
            return None
        ones = torch.ones(batch, length, device=weights[0].device)
        places = self.placeholders.rows[stage.alive], self._places(stage, None)
        return ones.index_put(places, weights[0] if len(weights) == 1 else weights[0] * weights[1])

    def _move(self, device: torch.device) -> None:
        """Go on on another device, if the layers of the model are spread over several."""
        if self.real.device == device:
            return
        found = self.placeholders
        self.placeholders = Placeholders(*(part.to(device) for part in (found.rows, found.columns, found.images)))
        self.real, self.words, self.words_mask = (part.to(device) for part in (self.real, self.words, self.words_mask))
        self.stages = {layer: stage.to(device) for layer, stage in self.stages.items()}


def _of(rows: Tensor, values: Tensor) -> Tensor:
    """Return some prompts, long (G,) ascending, of `values` (B, ...). All of them are not copied."""
    return values if len(rows) == len(values) else values[rows]


def _take(values: Tensor, places: Tensor) -> Tensor:
    """Return the tokens at places long (G, n) of `values` (G, L, d): (G, n, d)."""
    return values.gather(1, places.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
