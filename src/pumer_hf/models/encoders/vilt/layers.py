"""The layers of ViLT, where tokens are reduced."""

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .... import ops
from ....tokens import Evidence, KeyMask, LayerTrace, TokenPair
from ...profiling import reduction_region
from ..attention import AttentionKernel, Heads, split_heads
from ..chunking import tokenwise
from ..plan import LayerPlan
from .configuration import PuMerViltConfig


class PuMerViltSelfAttention(nn.Module):
    """Joint self-attention over text and image.

    Modifications: it uses `scaled_dot_product_attention`; the stock model is eager only. It computes explicit
    probabilities of all tokens only with `output_attentions` or `attn_implementation="eager"`. If a reducer needs the
    attention of the text, an Lt x (Lt + Lv) block, the layer computes these probabilities (Eq. 1) separately.
    """

    def __init__(self, config: PuMerViltConfig, kernel: AttentionKernel):
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"hidden_size={config.hidden_size} is not a multiple of "
                f"num_attention_heads={config.num_attention_heads}"
            )
        self.config = config
        self.kernel = kernel
        self.query = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.key = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.value = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)

    def forward(self, hidden_states: Tensor, num_queries: int | None) -> Heads:
        """Return the heads of the states (B, L, D). The queries are the first `num_queries` tokens; None for all."""
        num_heads = self.config.num_attention_heads
        return Heads(
            split_heads(self.query(hidden_states[:, :num_queries]), num_heads),
            split_heads(self.key(hidden_states), num_heads),
            split_heads(self.value(hidden_states), num_heads),
        )

    def attend(self, heads: Heads, key_mask: KeyMask, with_attentions: bool) -> tuple[Tensor, Tensor | None]:
        """Return the context (B, Lq, D), and the probabilities (B, H, Lq, L) if they are computed."""
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        explicit = with_attentions or self.config._attn_implementation == "eager"
        return self.kernel.attend(heads, key_mask, dropout, explicit)


class PuMerViltProjection(nn.Module):
    """A linear layer and dropout."""

    def __init__(self, in_features: int, out_features: int, dropout: float = 0.0):
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dropout(self.dense(hidden_states))


class PuMerViltAttention(nn.Module):
    """Self-attention and its output projection.

    Modifications: this module only holds the two; the layer runs them. So the memory of the input is freed as soon as
    the layer does not need it any more.
    """

    def __init__(self, config: PuMerViltConfig, kernel: AttentionKernel):
        super().__init__()
        self.attention = PuMerViltSelfAttention(config, kernel)
        self.output = PuMerViltProjection(config.hidden_size, config.hidden_size, config.hidden_dropout_prob)


class PuMerViltLayer(GradientCheckpointingLayer):
    """A pre-norm transformer layer.

    Modifications: if the layer has a reducer, it reduces the tokens between the attention residual and the
    feed-forward part, which then runs on fewer tokens.
    """

    def __init__(self, config: PuMerViltConfig, kernel: AttentionKernel):
        super().__init__()
        self.attention = PuMerViltAttention(config, kernel)
        self.intermediate = PuMerViltProjection(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.output = PuMerViltProjection(config.intermediate_size, config.hidden_size, config.hidden_dropout_prob)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, hidden_states: Tensor, pair: TokenPair, plan: LayerPlan
    ) -> tuple[Tensor, TokenPair, tuple[Tensor | None], LayerTrace | None]:
        """Run the layer.

        Args:
            hidden_states: float (B, Lt + Lv, D), text, then image.
            pair: the same tokens, without states.
            plan: what to do.

        Returns:
            The new hidden states; the tokens that leave, without states; the attention probabilities, float
            (B, H, Lq, L), or None; and the trace of the reduction, or None.
        """
        hidden_states, pair, probabilities, trace = self.attend(hidden_states, pair, plan)
        return tokenwise(self.feed_forward, hidden_states, plan.chunk), pair, (probabilities,), trace

    def attend(
        self, hidden_states: Tensor, pair: TokenPair, plan: LayerPlan
    ) -> tuple[Tensor, TokenPair, Tensor | None, LayerTrace | None]:
        """Run the attention with its residual, and the reduction. Arguments and results are those of `forward`."""
        attention, key_mask = self.attention, pair.key_mask()
        heads = attention.attention(self.layernorm_before(hidden_states), plan.num_queries)
        context, probabilities = attention.attention.attend(heads, key_mask, plan.with_attentions)
        query, key = heads.query, heads.key
        del heads  # frees the values
        hidden_states = hidden_states[:, : plan.num_queries] + attention.output(context)
        del context
        if plan.reducer is None:
            return hidden_states, pair, probabilities, None
        text_query = query[:, :, : pair.text.mask.shape[1]].contiguous()
        del query  # frees the queries of the image
        with reduction_region():
            evidence = self.evidence(text_query, key, key_mask, plan.reducer.uses_attention)
            del text_query, key
            pair, trace = plan.reducer(plan.index, pair.with_states(hidden_states), evidence)
            return pair.joined(), pair.without_states(), probabilities, trace

    @torch.no_grad()
    def evidence(self, text_query: Tensor, key: Tensor, key_mask: KeyMask, uses_attention: bool) -> Evidence:
        """Make the evidence of a reducer from the text queries (B, H, Lt, d) and all keys (B, H, Lt + Lv, d)."""
        num_text, text_to_image = text_query.shape[2], None
        if uses_attention:
            kernel = self.attention.attention.kernel
            text_to_image = kernel.probabilities(text_query.float(), key.float(), key_mask)[..., num_text:]
        mean_key = ops.mean_over_heads(key)
        return Evidence(text_to_image, mean_key[:, :num_text], mean_key[:, num_text:], key.dtype)

    def feed_forward(self, states: Tensor) -> Tensor:
        """Run the feed-forward part with its residual. It works on each token by itself."""
        return states + self.output(self.activation(self.intermediate(self.layernorm_after(states))))
