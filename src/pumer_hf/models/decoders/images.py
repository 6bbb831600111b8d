"""The image tokens of a batch of prompts, and how a reducer makes fewer of them, before the decoder or inside it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.integrations import is_deepspeed_zero3_enabled

from ...reducers import ReductionConfig, TokenReducer
from ...reducers.keeping import KeepingConfig
from ...tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair, Tokens
from .prompt import Placeholders


@dataclass(frozen=True)
class ImageTrace:
    """What became of the tokens of one image. Inside the decoder, images that stand side by side count as one."""

    row: int
    """Its prompt in the batch."""
    columns: Tensor
    """long (P,): the places of its tokens in the whole prompt."""
    source: Tensor
    """long (P,): for each of its tokens, which kept one holds it now, counted in this image; -1 if it was dropped.
    With `per_prompt`, a token that went into another image has -1 too."""
    holder: Tensor
    """long (P,): for each of its tokens, the place in the whole prompt of the kept one that holds it now, which with
    `per_prompt` may be in another image; -1 if it was dropped."""
    kept: Tensor
    """long (K,): the places of its kept tokens in the whole prompt, ascending."""
    saliency: Tensor | None = None
    """float (P,): the saliency of each of its tokens, if the method has one; 0 for one that was gone before."""
    layer: int | None = None
    """The layer of the decoder after which the tokens were reduced; None if that was before the decoder."""
    losses: dict[str, Tensor] = field(default_factory=dict)
    """Auxiliary training losses of the method, scalars by name. Only the first image of a layer has them."""


@dataclass(frozen=True)
class Reduced:
    """What is left of N image tokens: K of them, in the order of the prompts."""

    kept: Tensor
    """long (K,): which of the N tokens stay, ascending."""
    source: Tensor
    """long (N,): which of the K tokens holds each of the N; -1 for one that was dropped."""
    features: Tensor
    """float (K, D)."""
    saliency: Tensor | None
    """float (N,)."""
    weight: Tensor | None = None
    """float (K,): how much each token counts in attention. None if all count the same."""
    gate: Tensor | None = None
    """float (K,): 1 for each, with a gradient for a method that learns which tokens to keep. None if none learns."""
    losses: dict[str, Tensor] = field(default_factory=dict)
    """Auxiliary training losses of the method, scalars by name."""

    def move(self, values: Tensor) -> Tensor:
        """Return other values of the tokens, (N, d), after the cut: (K, d). A token has the mean of what it holds.

        A token that is masked in training holds nothing, and has 0.
        """
        held = self.source >= 0
        if len(self.kept) == int(held.sum()):
            return values[self.kept.to(values.device)]
        source, held = self.source.to(values.device), held.to(values.device)
        sums = values.new_zeros(len(self.kept), values.shape[1]).index_add(0, source[held], values[held])
        numbers = torch.bincount(source[held], minlength=len(self.kept)).unsqueeze(1)
        return sums / numbers.clamp(min=1).to(values.dtype)

    def counts(self, lengths: Sequence[int]) -> list[int]:
        """Return how many tokens are kept of consecutive items of `lengths` tokens."""
        ends = torch.tensor(lengths, dtype=torch.long, device=self.kept.device).cumsum(0)
        upto = torch.searchsorted(self.kept, ends)
        return upto.diff(prepend=upto.new_zeros(1)).tolist()

    @torch.compiler.disable
    def traces(self, placeholders: Placeholders, layer: int | None = None) -> tuple[ImageTrace, ...]:
        """Return what became of each image. `layer` is that of [`ImageTrace`]."""
        traces: list[ImageTrace] = []
        columns_kept = placeholders.columns[self.kept]
        last = int(placeholders.images[-1]) if len(placeholders.images) else -1
        for image in range(last + 1):
            mine = (placeholders.images == image).nonzero().squeeze(1)
            kept_mine = placeholders.images[self.kept] == image
            kept = self.kept[kept_mine]
            begin = int(kept_mine.nonzero()[0]) if len(kept) else 0
            held = self.source[mine]
            source = held - begin
            source = torch.where((held >= 0) & (source >= 0) & (source < len(kept)), source, -1)
            traces.append(
                ImageTrace(
                    row=int(placeholders.rows[mine[0]]),
                    columns=placeholders.columns[mine],
                    source=source,
                    holder=torch.where(held >= 0, columns_kept[held.clamp(min=0)], -1),
                    kept=placeholders.columns[kept],
                    saliency=None if self.saliency is None else self.saliency[mine],
                    layer=layer,
                    losses={} if traces else self.losses,
                )
            )
        return tuple(traces)


@torch.compiler.disable  # the numbers of tokens depend on the values: in compiled code these are breaks anyway
def reduce_images(
    reducer: TokenReducer, features: Tensor, placeholders: Placeholders, words: Tokens, maps: Tensor | None = None
) -> Reduced:
    """Reduce the image tokens of a batch of prompts.

    Each image is reduced by itself, with the words of its prompt; with `per_prompt`, all images of a prompt together.
    Those with equally many tokens are reduced in one batch. So the result of an image does not depend on others.

    Args:
        reducer: the method, at site `"inputs"`.
        features: float (N, D), the image tokens as the decoder gets them.
        placeholders: where they stand in the prompts.
        words: the words of the prompts, states float (B, Lw, D).
        maps: float (N,), the saliency of each token from outside the model, for a method with `uses_prior`.
    """
    groups = (
        (members, whole, Evidence(None, whole.text.states, whole.image.states))
        for members, whole in image_groups(features, placeholders, words, per_prompt(reducer.config), maps)
    )
    reduced = reduce_groups(reducer, 0, groups, features)
    weight = reduced.weight
    if weight is not None and not weight.requires_grad and bool((weight > 0).all()):
        return replace(reduced, weight=None)  # only what is masked in training has a weight in the decoder
    return reduced


def reduce_groups(
    reducer: TokenReducer, layer: int, groups: Iterable[tuple[Tensor, TokenPair, Evidence]], features: Tensor
) -> Reduced:
    """Reduce the image tokens of a batch, group by group. Together the groups have all of them.

    Args:
        reducer: the method.
        layer: the index of the layer.
        groups: which of the N tokens a group has, long (G, P); the tokens, with an empty one in front of the image;
            and what is known about them.
        features: float (N, D), the states of the tokens.
    """
    kept: list[Tensor] = []
    states: list[Tensor] = []
    weights: dict[str, list[Tensor]] = {"weight": [], "gate": []}
    losses: dict[str, Tensor] = {}
    number = 0  # of images, or of prompts whose images are reduced together
    sources = torch.full((len(features),), -1, dtype=torch.long, device=features.device)
    saliencies: Tensor | None = None
    total = 0
    # ZeRO-3 compares what each process calls, and the number of groups may differ there
    reduce = reducer.forward if is_deepspeed_zero3_enabled() else reducer
    for members, whole, evidence in groups:
        pair, trace = reduce(layer, whole, evidence)
        source = trace.image_source[:, NUM_PREFIX_TOKENS:] - NUM_PREFIX_TOKENS
        places = kept_places(trace, source)
        own = is_own(trace)
        order = (places if own is None else places.masked_fill(~own, source.shape[1])).argsort(dim=1, stable=True)
        new_place = order.argsort(dim=1)
        num_keep = torch.full((len(members),), places.shape[1], device=features.device) if own is None else own.sum(1)
        moved = torch.where(source >= 0, new_place.gather(1, source.clamp(min=0)), -1)
        first = total + num_keep.cumsum(0) - num_keep
        sources[members] = torch.where(moved >= 0, moved + first.unsqueeze(1), -1)
        kept.append(flattened(members.gather(1, places.gather(1, order)), own))
        total += len(kept[-1])
        new_states = pair.image.states[:, NUM_PREFIX_TOKENS:]
        states.append(flattened(new_states.gather(1, order.unsqueeze(-1).expand_as(new_states)), own))
        for name, found in weights.items():
            values = getattr(pair.image, name)
            if values is not None:
                found.append(flattened(values[:, NUM_PREFIX_TOKENS:].gather(1, order), own))
        number += len(members)
        for name, loss in trace.losses.items():
            losses[name] = losses.get(name, 0.0) + len(members) * loss
        if trace.saliency is not None:
            if saliencies is None:
                saliencies = torch.zeros(len(features), device=features.device)
            saliencies[members] = trace.saliency[:, NUM_PREFIX_TOKENS:].float()
    all_kept, all_states = torch.cat(kept), torch.cat(states)
    order = all_kept.argsort()
    new_place = order.argsort()
    sources = torch.where(sources >= 0, new_place[sources.clamp(min=0)], -1)
    means = {name: loss / number for name, loss in losses.items()}
    weight, gate = (torch.cat(found)[order] if found else None for found in weights.values())
    return Reduced(all_kept[order], sources, all_states[order], saliencies, weight, gate, means)


def is_own(trace: LayerTrace) -> Tensor | None:
    """Return which of the kept tokens of each image are its own, bool (G, K), the own ones first. None: all are."""
    if trace.image_lengths is None:
        return None
    num_kept = trace.num_image - NUM_PREFIX_TOKENS
    places = torch.arange(num_kept, device=trace.image_lengths.device)
    return places < (trace.image_lengths - NUM_PREFIX_TOKENS).unsqueeze(1)


def flattened(values: Tensor, own: Tensor | None) -> Tensor:
    """Return the values of the kept tokens of images, (G, K, ...), in one row. `own` is that of [`is_own`]."""
    return values.flatten(0, 1) if own is None else values[own]


def image_groups(
    features: Tensor, placeholders: Placeholders, words: Tokens, together: bool, maps: Tensor | None = None
) -> Iterable[tuple[Tensor, TokenPair]]:
    """Yield the images of a batch as a reducer gets them. Those with equally many tokens are in one batch.

    The arguments are those of [`reduce_images`].

    Args:
        together: whether all images of a prompt count as one.

    Yields:
        Which of the N tokens the images have, long (G, P); and the tokens, with the words of their prompts.
    """
    for members in by_length(placeholders.rows if together else placeholders.images):
        rows = placeholders.rows[members[:, 0]]
        yield members, TokenPair(words_of(words, rows), image_tokens(features[members], maps, members))


def per_prompt(config: ReductionConfig) -> bool:
    """Return whether a method reduces all images of a prompt together."""
    return isinstance(config, KeepingConfig) and config.per_prompt


def by_length(group: Tensor) -> Iterable[Tensor]:
    """Yield the members of the groups, long (G, P), for each number P of members that a group has.

    Args:
        group: long (N,), the group of each of N tokens. Those of a group follow each other.
    """
    _, sizes = torch.unique_consecutive(group, return_counts=True)
    begins = sizes.cumsum(0) - sizes
    for size in sorted(set(sizes.tolist())):
        yield begins[sizes == size].unsqueeze(1) + torch.arange(size, device=group.device)


def kept_places(trace: LayerTrace, source: Tensor) -> Tensor:
    """Return the place that each kept token had, long (G, K). A merged token has that of the first one it holds.

    If a method keeps tokens and merges all others into them, the place is that of the kept one.

    Args:
        trace: the trace of the reduction.
        source: long (G, P), which kept token holds each of the P tokens; -1 for a dropped one.
    """
    if trace.keep is not None and trace.image_matching is None:  # nothing has merged after the choice
        return trace.keep[:, NUM_PREFIX_TOKENS:] - NUM_PREFIX_TOKENS
    num_kept = trace.num_image - NUM_PREFIX_TOKENS
    places = torch.arange(source.shape[1], device=source.device).expand_as(source)
    first = torch.full((len(source), num_kept + 1), source.shape[1], dtype=torch.long, device=source.device)
    target = torch.where(source >= 0, source, num_kept)
    first = first.scatter_reduce(1, target, places, "amin")[:, :num_kept]
    # in training, a method that learns where to prune masks tokens, which then hold nothing and keep their places
    return torch.where(first < source.shape[1], first, places[:, :num_kept])


def image_tokens(states: Tensor, maps: Tensor | None, members: Tensor) -> Tokens:
    """Return the tokens of images, with an empty token in front that counts as padding ([`TokenReducer.in_decoder`]).

    Args:
        states: float (G, P, D).
        maps: float (N,) or None.
        members: long (G, P), which of the N tokens they are.
    """
    prior = None if maps is None else F.pad(maps[members], (NUM_PREFIX_TOKENS, 0))
    mask = F.pad(torch.ones_like(members, dtype=torch.bool), (NUM_PREFIX_TOKENS, 0))
    return Tokens.initial(F.pad(states, (0, 0, NUM_PREFIX_TOKENS, 0)), mask, prior)


def words_of(words: Tokens, rows: Tensor) -> Tokens:
    """Return the words of some prompts."""
    return Tokens(words.states[rows], words.mask[rows], words.source[rows])


def prompt_words(embeddings: Tensor, is_word: Tensor) -> Tokens:
    """Return the words of prompts without the rest: states float (B, Lw, D), padded on the right.

    Args:
        embeddings: float (B, L, D), of all tokens.
        is_word: bool (B, L), True for a word, False for padding and placeholders.
    """
    longest = max(int(is_word.sum(dim=1).max()), 1)
    order = (~is_word).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
    states = embeddings.gather(1, order.unsqueeze(-1).expand(-1, -1, embeddings.shape[-1]))
    return Tokens.initial(states, mask=is_word.gather(1, order))
