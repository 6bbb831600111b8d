"""Pure tensor functions of token reduction: saliency, top-k keep, bipartite soft matching, merge.

Every function takes and returns plain tensors. How many tokens stay is always a Python integer computed from shapes,
so no result has a data-dependent shape and all of them compile with `torch.compile(fullgraph=True)`.

A reduction is decided once and then applied to whatever the tokens carry. Pruning decides `keep` ([`keep_salient`]),
and merging decides `src`, `dst` and `unm` ([`bipartite_soft_matching`]). Both become *positions*, which say where each
token goes. Two reductions in a row compose ([`follow`]). Tokens that go to the same position are averaged
([`group_weights`], [`merge_groups`]).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def saliency_from_text(attention: Tensor, text_mask: Tensor) -> Tensor:
    """The saliency of each image token: how much the text attends to it (PuMer, Eq. 1).

    Args:
        attention: float `(batch, heads, text_len, image_len)`, the probability that a text token attends to an image
            token.
        text_mask: bool `(batch, text_len)`, True for real text tokens. Padding does not count.

    Returns:
        float `(batch, image_len)`, the attention averaged over the heads and over the real text tokens, in [0, 1].
    """
    weight = text_mask.to(attention.dtype)
    weight = weight / weight.sum(dim=-1, keepdim=True).clamp(min=1)
    return (weight[:, None, None] @ attention).mean(dim=(1, 2))


def saliency_from_token(attention: Tensor, token: Tensor) -> Tensor:
    """The saliency of each image token: how much one text token attends to it.

    Args:
        attention: float `(batch, heads, text_len, image_len)`, the probability that a text token attends to an image
            token.
        token: long `(batch,)`, the text token of each example, in [0, text_len).

    Returns:
        float `(batch, image_len)`, the attention averaged over the heads, in [0, 1].
    """
    row = token[:, None, None, None].expand(-1, attention.shape[1], 1, attention.shape[3])
    return attention.gather(2, row).squeeze(2).mean(dim=1)


def keep_salient(saliency: Tensor, mask: Tensor, num_keep: int, num_prefix_tokens: int = 1) -> Tensor:
    """Choose the tokens that survive pruning (PuMer, Algorithm 1, lines 2 and 3).

    Equal saliencies keep their order, so the choice is the same on every device and in every batch.

    Args:
        saliency: float `(batch, length)`.
        mask: bool `(batch, length)`, True for real tokens. Padding is kept only when there is nothing else to keep.
        num_keep: tokens to keep, prefix included; at least `num_prefix_tokens` and at most `length`.
        num_prefix_tokens: leading tokens ([CLS]) that are never pruned and stay in front.

    Returns:
        long `(batch, num_keep)`: positions of the survivors, the prefix first, then by descending saliency.
    """
    ranked = saliency.masked_fill(~mask, -torch.inf)[:, num_prefix_tokens:]
    order = ranked.argsort(dim=-1, descending=True, stable=True)[:, : num_keep - num_prefix_tokens]
    prefix = torch.arange(num_prefix_tokens, device=order.device).expand(order.shape[0], -1)
    return torch.cat([prefix, order + num_prefix_tokens], dim=1)


def max_merges(length: int) -> int:
    """Return how many tokens one bipartite matching can merge away: the even half without the protected token 0."""
    return max(length - 1, 0) // 2


def bipartite_soft_matching(metric: Tensor, mask: Tensor, num_merge: int) -> tuple[Tensor, Tensor, Tensor]:
    """Match each even token to its most similar odd token, and choose the most similar matches to merge.

    This is PuMer's Algorithm 1, lines 6 to 8, after ToMe (https://arxiv.org/abs/2210.09461). Two rules go beyond it:

    * token 0 is protected: it is never merged;
    * padding leaves first: an even padding token merges before any real one, and a real token gets a padding partner
      only if there is no real partner.

    Args:
        metric: float `(batch, length, dim)`, compared by cosine.
        mask: bool `(batch, length)`, True for real tokens.
        num_merge: tokens to merge away, from 0 to [`max_merges`].

    Returns:
        `src` long `(batch, num_merge)`: which tokens of the even half merge away (`i` is token `2 * i`);
        `dst` long `(batch, num_merge)`: into which token of the odd half each goes (`j` is token `2 * j + 1`);
        `unm` long `(batch, even_len - num_merge)`: the rest of the even half, in ascending order.
    """
    if metric.shape[1] < 3:  # token 0 and at most one odd token: nothing to match
        none = torch.empty((metric.shape[0], 0), dtype=torch.long, device=metric.device)
        return none, none, torch.zeros((metric.shape[0], 1), dtype=torch.long, device=metric.device)
    metric = F.normalize(metric.float(), dim=-1)
    similarity = metric[:, 2::2] @ metric[:, 1::2].transpose(1, 2)  # without token 0
    similarity = similarity.masked_fill(~mask[:, None, 1::2], -torch.inf)
    score, partner = similarity.max(dim=-1)
    score = score.masked_fill(~mask[:, 2::2], torch.inf)
    order = score.argsort(dim=-1, descending=True, stable=True)
    merged, rest = order[:, :num_merge], order[:, num_merge:].sort(dim=-1).values
    first = torch.zeros_like(order[:, :1])
    return merged + 1, partner.gather(1, merged), torch.cat([first, rest + 1], dim=1)


def keep_positions(keep: Tensor, length: int) -> Tensor:
    """Return where pruning puts each of `length` tokens: long `(batch, length)`, -1 for a pruned token."""
    batch, num_keep = keep.shape
    positions = torch.full((batch, length), -1, dtype=torch.long, device=keep.device)
    return positions.scatter(1, keep, torch.arange(num_keep, device=keep.device).expand(batch, -1))


def merge_positions(src: Tensor, dst: Tensor, unm: Tensor, length: int) -> Tensor:
    """Return where a matching puts each of `length` tokens: long `(batch, length)`.

    The unmerged even tokens come first, in order. Then come all odd ones. A merged token goes where its partner goes.
    With nothing to merge, every token stays where it is.
    """
    if src.shape[1] == 0:
        return torch.arange(length, device=src.device).expand(src.shape[0], -1)
    batch, num_unm = unm.shape
    even = torch.zeros((batch, num_unm + src.shape[1]), dtype=torch.long, device=src.device)
    even = even.scatter(1, unm, torch.arange(num_unm, device=src.device).expand(batch, -1))
    even = even.scatter(1, src, dst + num_unm)
    odd = torch.arange(num_unm, num_unm + length // 2, device=src.device)
    positions = torch.empty((batch, length), dtype=torch.long, device=src.device)
    positions[:, ::2], positions[:, 1::2] = even, odd
    return positions


def follow(first: Tensor, then: Tensor) -> Tensor:
    """Return where `first` and then `then` put each of n tokens: long `(batch, n)`. -1 stays -1."""
    return then.gather(1, first.clamp(min=0)).masked_fill(first < 0, -1)


def group_sums(values: Tensor, positions: Tensor, num_groups: int) -> Tensor:
    """Sum the `values` `(batch, length)` of each group: `(batch, num_groups)`.

    `positions`, long `(batch, length)`, is the group of each value, or -1 for none.
    """
    sums = torch.zeros((values.shape[0], num_groups), dtype=values.dtype, device=values.device)
    return sums.scatter_add(1, positions.clamp(min=0), values.masked_fill(positions < 0, 0))


def group_sizes(source: Tensor, num_groups: int) -> Tensor:
    """Count the tokens of each group: long `(batch, num_groups)`. `source`, long `(batch, n)`, is -1 for no group."""
    return group_sums(torch.ones_like(source), source, num_groups)


def group_weights(positions: Tensor, weight: Tensor, num_groups: int) -> Tensor:
    """Return the weight that each token has in the mean of its group.

    Args:
        positions: long `(batch, length)`, the group of each token, -1 for none.
        weight: float32 `(batch, length)`, at least 0. With 1 for each real token the mean is plain, with other numbers
            it is weighted. Padding has weight 0: it counts only in a group that holds nothing else.
        num_groups: tokens after the reduction.

    Returns:
        float32 `(batch, length)`. The weights of each group sum to 1. A token of no group has weight 0.
    """
    group = positions.clamp(min=0)
    total = group_sums(weight, positions, num_groups)
    only_padding = total == 0
    weight = torch.where(only_padding.gather(1, group), 1.0, weight)
    total = torch.where(only_padding, group_sizes(positions, num_groups), total)
    return (weight / total.gather(1, group)).masked_fill(positions < 0, 0.0)


def merge_groups(states: Tensor, weights: Tensor, positions: Tensor, num_groups: int) -> Tensor:
    """Return the weighted sum of the states of each group.

    Most groups hold one token. So the first token of each group is gathered, and a matrix product adds the others.

    Args:
        states: float `(batch, length, dim)`.
        weights: float `(batch, length)`, from [`group_weights`].
        positions: long `(batch, length)`, the group of each token, -1 for none; every group has at least one token.
        num_groups: tokens after the reduction.

    Returns:
        float `(batch, num_groups, dim)`, in the dtype of `states`.
    """
    first, rest = split_groups(positions, num_groups)
    merged = take_tokens(states, first).mul_(weights.gather(1, first).unsqueeze(-1).to(states.dtype))
    if rest.shape[1] == 0:
        return merged
    groups = torch.arange(num_groups, device=positions.device).unsqueeze(1)
    joins = positions.gather(1, rest).unsqueeze(1) == groups
    rest_weights = torch.where(joins, weights.gather(1, rest).unsqueeze(1), 0.0).to(states.dtype)
    return merged.baddbmm_(rest_weights, take_tokens(states, rest))


def split_groups(positions: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Split the tokens into the first one of each group and all others, in order. Every group must have a token.

    Returns:
        The first tokens, long `(batch, num_groups)`, and the others, long `(batch, length - num_groups)`.
    """
    batch, length = positions.shape
    index = torch.arange(length, device=positions.device).expand(batch, -1)
    # float, because MPS has no "amin" for integers
    first = torch.full((batch, num_groups + 1), length - 1.0, device=positions.device)
    group = positions.masked_fill(positions < 0, num_groups)  # tokens of no group get an extra one
    first = first.scatter_reduce(1, group, index.float(), "amin")[:, :num_groups].long()
    is_first = torch.zeros_like(positions).scatter(1, first, 1)
    return first, is_first.argsort(dim=1, stable=True)[:, : length - num_groups]


def take_tokens(states: Tensor, index: Tensor) -> Tensor:
    """Take the tokens `index`, long `(batch, n)`, from states `(batch, length, dim)`: `(batch, n, dim)`."""
    batch, length, dim = states.shape
    places = index + length * torch.arange(batch, device=index.device).unsqueeze(1)
    return states.reshape(-1, dim).index_select(0, places.flatten()).view(*index.shape, dim)  # `gather` is slower


def exact_product(one: Tensor, other: Tensor) -> Tensor:
    """Return the matrix product in the dtype of the arguments, also where `torch.autocast` would round it.

    A choice of tokens follows from it, and a choice should not depend on the precision of the training.

    Args:
        one: float (*, n, d).
        other: float (*, d, m).
    """
    device = one.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return one @ other
    with torch.autocast(device, enabled=False):
        return one @ other


def weighted_softmax(scores: Tensor, weight: Tensor) -> Tensor:
    """Compute a softmax in which `exp(score)` of each key is multiplied by its weight.

    Gradients are finite even at weight 0. There they say what a larger weight would change.

    Args:
        scores: float `(batch, heads, queries, keys)`.
        weight: float, broadcastable to the scores, of at least 0; above 0 for at least one key of each query.

    Returns:
        float32 in the shape of the scores; each row sums to 1.
    """
    scores = scores.float()
    highest = scores.masked_fill(weight <= 0, -torch.inf).amax(dim=-1, keepdim=True).detach()
    exponentials = (scores - highest).clamp(max=0).exp() * weight  # higher scores are of keys with weight 0
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def mean_over_heads(key: Tensor) -> Tensor:
    """Return the metric of token similarity: keys `(batch, heads, length, dim)`, averaged over the heads.

    The result is float32 `(batch, length, dim)`.
    """
    # A sum of slices takes a third of the time of `mean` on a CPU.
    first, *others = (head.float() for head in key.unbind(dim=1))
    return sum(others, start=first) / key.shape[1]
