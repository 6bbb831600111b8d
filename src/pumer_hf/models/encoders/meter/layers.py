"""The cross-layers of METER, where text and image meet and where tokens are reduced."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from ....tokens import Evidence, LayerTrace, TokenPair
from ..attention import attend, attention_weights, key_mask, mean_over_heads, split_heads
from ..chunking import reduction_region, tokenwise
from ..plan import LayerPlan
from .configuration import PuMerMeterConfig

PairAttentions = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
"""Attention probabilities of a pair, float (B, H, queries, keys), where asked for; in the order of [`ATTENTIONS`]."""


class Attended(NamedTuple):
    """What an attention makes."""

    states: Tensor
    """float (B, Lq, D)."""
    weights: Tensor | None
    """float (B, H, Lq, Lk), where asked for."""
    query: Tensor
    """float (B, H, Lq, D / H)."""
    key: Tensor
    """float (B, H, Lk, D / H)."""


class PuMerMeterAttention(nn.Module):
    """Attention to `context`, residual and LayerNorm (post-norm, as in BERT)."""

    def __init__(self, config: PuMerMeterConfig):
        super().__init__()
        self.config = config
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: Tensor, context: Tensor, key_mask: Tensor | None, output_attentions: bool) -> Attended:
        """
        Args:
            states: float (B, Lq, D), the queries.
            context: float (B, Lk, D), the keys and values; `states` itself for self-attention.
            key_mask: bool (B, 1, 1, Lk), False for padding; None if there is none.
            output_attentions: return the probabilities.
        """
        heads = self.config.num_attention_heads
        query = split_heads(self.query(states), heads)
        key, value = split_heads(self.key(context), heads), split_heads(self.value(context), heads)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        explicit = output_attentions or self.config._attn_implementation == "eager"
        release = self.config.semantics == "release"
        attended, weights = attend(query, key, value, key_mask, dropout, explicit, release)
        return Attended(self.layernorm(states + self.dropout(self.output(attended))), weights, query, key)


class PuMerMeterFeedForward(nn.Module):
    """Feed-forward part, residual and LayerNorm."""

    def __init__(self, config: PuMerMeterConfig):
        super().__init__()
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: Tensor, rows: int | None = None) -> Tensor:
        """States, float (B, L, D). With `rows`, so many tokens at once, and `states` is overwritten."""
        return tokenwise(self.update, states, rows)

    def update(self, states: Tensor) -> Tensor:
        """The new states, of each token by itself."""
        expanded = self.activation(self.intermediate(states))
        return self.layernorm(states + self.dropout(self.output(expanded)))


class PuMerMeterCrossLayer(nn.Module):
    """Self-attention, cross-attention to the other modality, feed-forward part."""

    def __init__(self, config: PuMerMeterConfig):
        super().__init__()
        self.self_attention = PuMerMeterAttention(config)
        self.cross_attention = PuMerMeterAttention(config)
        self.feed_forward = PuMerMeterFeedForward(config)

    def attend(
        self,
        states: Tensor,
        mask: Tensor | None,
        other: Tensor,
        other_mask: Tensor | None,
        output_attentions: bool,
        num_queries: int | None,
    ) -> tuple[Attended, Attended]:
        """Self-attention and then cross-attention of the first `num_queries` tokens, None for all; what is left to do
        is `feed_forward`.
        """
        within = self.self_attention(states[:, :num_queries], states, mask, output_attentions)
        return within, self.cross_attention(within.states, other, other_mask, output_attentions)


class PuMerMeterPair(GradientCheckpointingLayer):
    """A text layer and an image layer.

    Where a reducer acts, it does so in the text layer, after its cross-attention and before its feed-forward part: the
    saliency and the image keys are those of this cross-attention, the text keys those of the self-attention. What it
    reduces are the text states there, and the image states that came into the pair. The image layer then runs on fewer
    image tokens.
    """

    def __init__(self, config: PuMerMeterConfig):
        super().__init__()
        self.config = config
        self.sequential = config.co_attention == "sequential"
        self.text_layer = PuMerMeterCrossLayer(config)
        self.image_layer = PuMerMeterCrossLayer(config)

    def forward(
        self, text: Tensor, image: Tensor, pair: TokenPair, padded: bool, plan: LayerPlan
    ) -> tuple[Tensor, Tensor, PairAttentions, TokenPair, LayerTrace | None]:
        """
        Args:
            text: float (B, Lt, D).
            image: float (B, Lv, D).
            pair: the same tokens, for their masks and sources. Its states are ignored: gradients pass through `text`
                and `image` only.
            padded: whether some text token may be padding. Image tokens never are.
            plan: what to do.

        Returns:
            Text and image states, attentions, the tokens that leave, and the trace of a reduction or None.
        """
        # The image layer of published METER reads the text as it came into the pair: all of it, also where the pair
        # reduces its tokens (pinned by `test_the_image_layer_reads_the_text_that_came_into_the_pair`).
        other, other_mask = text, key_mask(pair.text.mask, padded)
        pair, trace, of_text = self.attend_text(text, image, pair, padded, plan)
        text = self.text_layer.feed_forward(pair.text.states, plan.rows)
        if self.sequential:
            other, other_mask = text, key_mask(pair.text.mask, padded)
        image_mask = key_mask(pair.image.mask, padded=False)
        seen, answered = self.image_layer.attend(
            pair.image.states, image_mask, other, other_mask, plan.output_attentions, plan.num_queries
        )
        attentions = (*of_text, seen.weights, answered.weights)
        image = answered.states
        del seen, answered
        return text[:, : plan.num_queries], self.image_layer.feed_forward(image, plan.rows), attentions, pair, trace

    def attend_text(
        self, text: Tensor, image: Tensor, pair: TokenPair, padded: bool, plan: LayerPlan
    ) -> tuple[TokenPair, LayerTrace | None, tuple[Tensor | None, Tensor | None]]:
        """The attention of the text layer, to itself and to the image, and the reduction: tokens with states, trace,
        attention probabilities.
        """
        text_mask, image_mask = key_mask(pair.text.mask, padded), key_mask(pair.image.mask, padded=False)
        num_queries = None if self.sequential else plan.num_queries  # there the image layer reads all of the new text
        within, across = self.text_layer.attend(
            text, text_mask, image, image_mask, plan.output_attentions, num_queries
        )
        pair = TokenPair(replace(pair.text, states=across.states), replace(pair.image, states=image))
        trace = None
        if plan.reduce is not None:
            release = self.config.semantics == "release"
            with reduction_region():
                evidence = collect_evidence(within, across, image_mask, plan.with_attention, release)
                pair, trace = plan.reduce(pair, evidence)
        return pair, trace, (within.weights, across.weights)


@torch.no_grad()
def collect_evidence(
    within: Attended, across: Attended, image_mask: Tensor | None, with_attention: bool, release: bool
) -> Evidence:
    """The evidence of a reducer, from the self-attention and the cross-attention of a text layer."""
    text_to_image = None
    if with_attention:
        text_to_image = attention_weights(across.query.float(), across.key.float(), image_mask, release)
    return Evidence(text_to_image, mean_over_heads(within.key), mean_over_heads(across.key), across.key.dtype)
