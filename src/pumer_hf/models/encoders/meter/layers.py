"""The cross-layers of METER, where text and image meet and where tokens are reduced."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .... import ops
from ....tokens import Evidence, KeyMask, LayerTrace, TokenPair, Tokens
from ...profiling import reduction_region
from ..attention import AttentionKernel, Heads, split_heads
from ..chunking import tokenwise
from ..plan import LayerPlan
from .configuration import PuMerMeterConfig

BlockAttentions = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
"""Attention probabilities of a block, float (B, H, queries, keys) or None, in the order of [`outputs.ATTENTIONS`]."""


class AttentionOutput(NamedTuple):
    """What an attention returns."""

    states: Tensor
    """float (B, Lq, D)."""
    probabilities: Tensor | None
    """float (B, H, Lq, Lk), or None if they were not computed."""
    query: Tensor
    """float (B, H, Lq, D / H)."""
    key: Tensor
    """float (B, H, Lk, D / H)."""
    key_mask: KeyMask
    """The mask of the keys."""


class PuMerMeterAttention(nn.Module):
    """Attention to `context`, residual and LayerNorm (post-norm, as in BERT)."""

    def __init__(self, config: PuMerMeterConfig, kernel: AttentionKernel):
        super().__init__()
        self.config = config
        self.kernel = kernel
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: Tensor, context: Tokens, with_attentions: bool) -> AttentionOutput:
        """Attend from the states to the context.

        Args:
            states: float (B, Lq, D), the queries.
            context: the keys and values. In self-attention they are the same tokens.
            with_attentions: return the probabilities.
        """
        num_heads = self.config.num_attention_heads
        heads = Heads(
            *(
                split_heads(project(given), num_heads)
                for project, given in ((self.query, states), (self.key, context.states), (self.value, context.states))
            )
        )
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        explicit = with_attentions or self.config._attn_implementation == "eager"
        key_mask = context.key_mask()
        attended, probabilities = self.kernel.attend(heads, key_mask, dropout, explicit)
        states = self.layernorm(states + self.dropout(self.output(attended)))
        return AttentionOutput(states, probabilities, heads.query, heads.key, key_mask)


class PuMerMeterFeedForward(nn.Module):
    """A feed-forward part, residual and LayerNorm."""

    def __init__(self, config: PuMerMeterConfig):
        super().__init__()
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: Tensor, chunk: int | None) -> Tensor:
        """Return the new states, float (B, L, D). With a `chunk`, `states` may be overwritten ([`tokenwise`])."""
        return tokenwise(self.update, states, chunk)

    def update(self, states: Tensor) -> Tensor:
        """Return the new states. Each token is computed by itself."""
        expanded = self.activation(self.intermediate(states))
        return self.layernorm(states + self.dropout(self.output(expanded)))


class PuMerMeterCrossLayer(nn.Module):
    """Self-attention, cross-attention to the other modality, and a feed-forward part."""

    def __init__(self, config: PuMerMeterConfig, kernel: AttentionKernel):
        super().__init__()
        self.self_attention = PuMerMeterAttention(config, kernel)
        self.cross_attention = PuMerMeterAttention(config, kernel)
        self.feed_forward = PuMerMeterFeedForward(config)

    def attend(self, tokens: Tokens, other: Tokens, plan: LayerPlan) -> tuple[AttentionOutput, AttentionOutput]:
        """Run the self-attention and then the cross-attention, without the feed-forward part.

        Args:
            tokens: the tokens of this modality. The first `plan.num_queries` of them are computed.
            other: the tokens of the other modality.
            plan: what to do.
        """
        output = self.self_attention(tokens.states[:, : plan.num_queries], tokens, plan.with_attentions)
        return output, self.cross_attention(output.states, other, plan.with_attentions)


class PuMerMeterCrossBlock(GradientCheckpointingLayer):
    """A text layer and an image layer.

    A reducer acts in the text layer, after its cross-attention and before its feed-forward part. The saliency and the
    image keys come from this cross-attention, the text keys from the self-attention. The reducer reduces the text
    states of this point, and the image states that came into the block. So the image layer runs on fewer image tokens.
    """

    def __init__(self, config: PuMerMeterConfig, kernel: AttentionKernel):
        super().__init__()
        self.kernel = kernel
        self.sequential = config.co_attention == "sequential"
        self.text_layer = PuMerMeterCrossLayer(config, kernel)
        self.image_layer = PuMerMeterCrossLayer(config, kernel)

    def forward(
        self, text: Tensor, image: Tensor, pair: TokenPair, plan: LayerPlan
    ) -> tuple[Tensor, Tensor, TokenPair, BlockAttentions, LayerTrace | None]:
        """Run the block.

        Args:
            text: float (B, Lt, D).
            image: float (B, Lv, D).
            pair: the same tokens, without states.
            plan: what to do.

        Returns:
            The new states of text and image; the tokens that leave, without states; the attention probabilities; and
            the trace of the reduction, or None.
        """
        tokens = TokenPair(replace(pair.text, states=text), replace(pair.image, states=image))
        # The image layer of published METER reads all text tokens that came into the block, even if the block reduces
        # them (pinned by `test_the_image_layer_reads_the_text_that_came_into_the_block`).
        other = tokens.text
        tokens, text_attentions, trace = self.attend_text(tokens, plan)
        if trace is not None:
            pair = tokens.without_states()
        text = self.text_layer.feed_forward(tokens.text.states, plan.chunk)
        if self.sequential:
            other = replace(tokens.text, states=text)
        image_self, image_cross = self.image_layer.attend(tokens.image, other, plan)
        attentions = (*text_attentions, image_self.probabilities, image_cross.probabilities)
        image = image_cross.states
        del image_self, image_cross, tokens, other  # free their memory before the feed-forward part
        return text[:, : plan.num_queries], self.image_layer.feed_forward(image, plan.chunk), pair, attentions, trace

    def attend_text(
        self, pair: TokenPair, plan: LayerPlan
    ) -> tuple[TokenPair, tuple[Tensor | None, Tensor | None], LayerTrace | None]:
        """Run the attention of the text layer, to itself and to the image, and the reduction.

        Args:
            pair: the tokens that come into the block, with states.
            plan: what to do.

        Returns:
            The tokens that are left, with states; the probabilities of the two attentions; and the trace of the
            reduction, or None.
        """
        if self.sequential:  # the image layer reads all new text tokens
            plan = replace(plan, num_queries=None)
        text_self, text_cross = self.text_layer.attend(pair.text, pair.image, plan)
        attentions = (text_self.probabilities, text_cross.probabilities)
        reduced, trace = TokenPair(replace(pair.text, states=text_cross.states), pair.image), None
        if plan.reducer is not None:
            with reduction_region():
                evidence = self.evidence(text_self, text_cross, plan.reducer.uses_attention)
                reduced, trace = plan.reducer(plan.index, reduced, evidence)
        return reduced, attentions, trace

    @torch.no_grad()
    def evidence(self, text_self: AttentionOutput, text_cross: AttentionOutput, uses_attention: bool) -> Evidence:
        """Make the evidence of a reducer from the self-attention and the cross-attention of the text layer."""
        query, key, text_to_image = text_cross.query, text_cross.key, None
        if uses_attention:
            text_to_image = self.kernel.probabilities(query.float(), key.float(), text_cross.key_mask)
        return Evidence(text_to_image, ops.mean_over_heads(text_self.key), ops.mean_over_heads(key), key.dtype)
