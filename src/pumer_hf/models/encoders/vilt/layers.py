"""The layers of ViLT, where tokens are reduced."""

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from ....tokens import Evidence, LayerTrace, TokenPair
from ..attention import attend, attention_weights, mean_over_heads, split_heads
from ..chunking import reduction_region, tokenwise
from ..plan import LayerPlan
from .configuration import PuMerViltConfig


class PuMerViltSelfAttention(nn.Module):
    """Joint self-attention over text and image.

    Modifications: `scaled_dot_product_attention` where the stock model is eager only. Where a reducer wants it, the
    attention of the text rows, a small Lt x (Lt + Lv) block, is computed beside it: exactly Eq. 1's probabilities.
    Explicit probabilities everywhere only with `output_attentions` or `attn_implementation="eager"`.
    """

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"hidden_size={config.hidden_size} is not a multiple of "
                f"num_attention_heads={config.num_attention_heads}"
            )
        self.config = config
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.key = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.value = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)

    def forward(self, hidden_states: Tensor, num_queries: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, Lq, D / H), keys and values (B, H, L, D / H) of the states (B, L, D).

        The queries are the first `num_queries` tokens; None for all.
        """
        heads = self.config.num_attention_heads
        return (
            split_heads(self.query(hidden_states[:, :num_queries]), heads),
            split_heads(self.key(hidden_states), heads),
            split_heads(self.value(hidden_states), heads),
        )

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, output_attentions: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Context (B, Lq, D), and the probabilities (B, H, Lq, L) where they are computed."""
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        explicit = output_attentions or self.config._attn_implementation == "eager"
        release = self.config.semantics == "release"
        return attend(query, key, value, key_mask, dropout, explicit, release)


class PuMerViltProjection(nn.Module):
    """Linear layer and dropout."""

    def __init__(self, in_features: int, out_features: int, dropout: float = 0.0):
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dropout(self.dense(hidden_states))


class PuMerViltAttention(nn.Module):
    """Self-attention and its output projection.

    Modifications: it only holds them; the layer runs them, as nothing but the layer need then keep what came in.
    """

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        self.attention = PuMerViltSelfAttention(config)
        self.output = PuMerViltProjection(config.hidden_size, config.hidden_size, config.hidden_dropout_prob)


class PuMerViltLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer.

    Modifications: a reducer, where the layer has one, cuts the tokens between the attention residual and the
    feed-forward part, which then runs on the reduced tokens already.
    """

    def __init__(self, config: PuMerViltConfig):
        super().__init__()
        self.config = config
        self.attention = PuMerViltAttention(config)
        self.intermediate = PuMerViltProjection(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.output = PuMerViltProjection(config.intermediate_size, config.hidden_size, config.hidden_dropout_prob)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, hidden_states: Tensor, key_mask: Tensor | None, pair: TokenPair, plan: LayerPlan
    ) -> tuple[Tensor, Tensor | None, TokenPair, LayerTrace | None]:
        """New hidden states, attention probabilities or None; and where the `plan` says so, the reduced pair and its
        trace.

        Of states, only `hidden_states` carries a gradient in and out: those in `pair` are ignored.
        """
        hidden_states, weights, pair, trace = self.attend(hidden_states, key_mask, pair, plan)
        return tokenwise(self.feed_forward, hidden_states, plan.rows), weights, pair, trace

    def attend(
        self, hidden_states: Tensor, key_mask: Tensor | None, pair: TokenPair, plan: LayerPlan
    ) -> tuple[Tensor, Tensor | None, TokenPair, LayerTrace | None]:
        """The attention with its residual, and the reduction."""
        parts = self.attention
        query, key, value = parts.attention(self.layernorm_before(hidden_states), plan.num_queries)
        attended, weights = parts.attention.attend(query, key, value, key_mask, plan.output_attentions)
        del value
        hidden_states = hidden_states[:, : plan.num_queries] + parts.output(attended)
        del attended
        if plan.reduce is None:
            return hidden_states, weights, pair, None
        num_text = pair.text.mask.shape[1]
        query = query[:, :, :num_text].contiguous()  # the rest may go
        release = self.config.semantics == "release"
        with reduction_region():
            evidence = collect_evidence(query, key, key_mask, plan.with_attention, release)
            del query, key
            pair, trace = plan.reduce(pair.with_states(hidden_states), evidence)
            return pair.joined(), weights, pair, trace

    def feed_forward(self, states: Tensor) -> Tensor:
        """The feed-forward part with its residual, of each token by itself."""
        return states + self.output(self.activation(self.intermediate(self.layernorm_after(states))))


@torch.no_grad()
def collect_evidence(
    text_query: Tensor, key: Tensor, key_mask: Tensor | None, with_attention: bool, release: bool
) -> Evidence:
    """The evidence of a reducer, from the queries of the text (B, H, Lt, d) and all keys (B, H, Lt + Lv, d)."""
    num_text, text_to_image = text_query.shape[2], None
    if with_attention:
        text_to_image = attention_weights(text_query.float(), key.float(), key_mask, release)[..., num_text:]
    mean_key = mean_over_heads(key)
    return Evidence(text_to_image, mean_key[:, :num_text], mean_key[:, num_text:], key.dtype)
