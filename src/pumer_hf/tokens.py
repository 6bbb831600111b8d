"""What flows through a token reducer: `TokenPair` and `Evidence` go in, `TokenPair` and `LayerTrace` come out.

Shapes use B examples, H heads, D width, Lt text tokens and Lv image tokens. All classes are immutable: a reduction
makes new ones.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.export
from torch import Tensor

from . import ops

NUM_PREFIX_TOKENS = 1
"""How many image tokens come before the patches in all models here. It is the image [CLS], which no method prunes."""


@dataclass(frozen=True)
class Matching:
    """Which tokens merge, as decided by [`ops.bipartite_soft_matching`]."""

    src: Tensor
    """long (B, num_merge): tokens of the even half that merge away; `i` is token `2 * i`."""
    dst: Tensor
    """long (B, num_merge): the token of the odd half that takes each; `j` is token `2 * j + 1`."""
    unm: Tensor
    """long (B, even_len - num_merge): tokens of the even half that stay as they are, ascending."""

    def positions(self, length: int) -> Tensor:
        """Return where each of the `length` matched tokens goes: long (B, length)."""
        return ops.merge_positions(self.src, self.dst, self.unm, length)


class KeyMask(NamedTuple):
    """Which keys an attention sees, and how much each of them counts."""

    real: Tensor | None
    """bool (B, 1, 1, L): True for a real token, False for padding. None if all tokens are real, or if `weight` says
    which ones are."""
    weight: Tensor | None
    """float (B, 1, 1, L): what `exp(score)` is multiplied with, 0 for padding. None if all real tokens count the
    same."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of one modality. Token 0 is its [CLS]."""

    states: Tensor
    """float (B, L, D)."""
    mask: Tensor
    """bool (B, L): True for a real token; False for padding, and for a token that a learned pruner has masked."""
    source: Tensor
    """long (B, L0): for each of the L0 tokens that the model began with, which token holds it now. It is -1 for a
    token that nothing holds, because it was pruned or is padding."""
    weight: Tensor | None = None
    """float (B, L): what `exp(score)` is multiplied with where a token is attended to; 0 where `mask` is False. None
    if all real tokens count the same."""
    gate: Tensor | None = None
    """float (B, L): 1 for every token. Attention to a token is multiplied by it, so its gradient reaches a method that
    learns which tokens to keep. None if no method learns in this way."""
    prior: Tensor | None = None
    """float (B, L): saliency of each token, from the input `image_saliency`. None if that is not given."""
    grid: tuple[int, int] | None = None
    """Rows and columns of patches that the image began with. None if tokens 1 to L0 - 1 are not all of these patches
    in raster order."""
    padded: bool = True
    """Whether `mask` may hold False. If not, attention needs no mask."""

    @classmethod
    def initial(
        cls,
        states: Tensor,
        mask: Tensor | None = None,
        prior: Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> "Tokens":
        """Make tokens that nothing has reduced yet. Each real token holds itself. Without a `mask`, all are real."""
        padded = mask is not None
        if mask is None:
            mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        positions = torch.arange(states.shape[1], device=states.device)
        return cls(states, mask, positions.masked_fill(~mask, -1), prior=prior, grid=grid, padded=padded)

    @property
    def size(self) -> Tensor:
        """Long (B, L): how many original tokens each token holds; 0 for padding."""
        return ops.group_sizes(self.source, self.mask.shape[1])

    @property
    def last(self) -> Tensor:
        """Long (B,): the token that holds the last real one of the tokens that the model began with.

        Without a real token it is 0.
        """
        places = torch.arange(self.source.shape[1], device=self.source.device, dtype=torch.float32)
        # float, because MPS has not every function for integers
        place = torch.where(self.source >= 0, places, 0.0).amax(dim=1, keepdim=True).long()
        return self.source.gather(1, place).squeeze(1).clamp(min=0)

    @property
    def attention_weight(self) -> Tensor:
        """Float (B, L): `weight`. If there is none, it is 1 for a real token and 0 for padding."""
        return self.mask.float() if self.weight is None else self.weight

    @property
    def key_weight(self) -> Tensor | None:
        """Float (B, L): `weight` with the `gate`; None if all real tokens count the same and none has a gate.

        Raises:
            ValueError: the weight or the gate learns in a layer whose gradients are switched off.
        """
        learns = any(values is not None and values.requires_grad for values in (self.weight, self.gate))
        if learns and not torch.is_grad_enabled():
            raise ValueError(
                "gradient_checkpointing_kwargs={'use_reentrant': True}: a method learns through the attention of "
                "later layers, and its gradients would be lost: set use_reentrant=False"
            )
        return self.weight if self.gate is None else self.attention_weight * self.gate

    def key_mask(self) -> KeyMask:
        """Return the mask for attention to these tokens."""
        weight = self.key_weight
        if weight is not None:
            return KeyMask(None, weight[:, None, None])
        return KeyMask(self.mask[:, None, None] if self.padded else None, None)

    def move(self, positions: Tensor, num_tokens: int) -> "Tokens":
        """Reduce to `num_tokens` tokens. Each becomes the mean of the real tokens that go to it.

        Without `weight` the mean is plain. With it the mean is weighted, and the weights of merged tokens add up. The
        gate of a token is the mean of the gates of the tokens that go to it, so it stays 1.

        Args:
            positions: long (B, L), where each token goes, or -1 to drop it. At least one token goes to every place.
        """
        mean_weights = ops.group_weights(positions, self.attention_weight, num_tokens)
        source = ops.follow(self.source, positions)
        weight = None if self.weight is None else ops.group_sums(self.weight, positions, num_tokens)
        return replace(
            self,
            states=ops.merge_groups(self.states, mean_weights, positions, num_tokens),
            mask=ops.group_sizes(source, num_tokens) > 0 if weight is None else weight > 0,
            source=source,
            weight=weight,
            gate=None if self.gate is None else ops.group_sums(mean_weights * self.gate, positions, num_tokens),
            prior=None if self.prior is None else ops.group_sums(mean_weights * self.prior, positions, num_tokens),
        )


@dataclass(frozen=True)
class TokenPair:
    """The tokens of both modalities at one place in the model."""

    text: Tokens
    image: Tokens

    def joined(self) -> Tensor:
        """Return the text states, then the image states: float (B, Lt + Lv, D)."""
        return torch.cat([self.text.states, self.image.states], dim=1)

    def joined_mask(self) -> Tensor:
        """Return the text mask, then the image mask: bool (B, Lt + Lv)."""
        return torch.cat([self.text.mask, self.image.mask], dim=1)

    def key_mask(self) -> KeyMask:
        """Return the mask for attention to the joined tokens."""
        weights = [tokens.key_weight for tokens in (self.text, self.image)]
        if any(weight is not None for weight in weights):
            text, image = (
                tokens.attention_weight if weight is None else weight
                for tokens, weight in zip((self.text, self.image), weights, strict=True)
            )
            return KeyMask(None, torch.cat([text, image], dim=1)[:, None, None])
        return KeyMask(self.joined_mask()[:, None, None] if self.text.padded or self.image.padded else None, None)

    def with_states(self, joined: Tensor) -> "TokenPair":
        """Return the same tokens with other states, float (B, Lt + Lv, D)."""
        num_text = self.text.mask.shape[1]
        return TokenPair(
            text=replace(self.text, states=joined[:, :num_text]),
            image=replace(self.image, states=joined[:, num_text:]),
        )

    def without_states(self) -> "TokenPair":
        """Return the same tokens with empty states, float (B, L, 0).

        Between two layers the states are separate arguments. So gradients pass through these arguments, and no second
        reference keeps the states in memory.
        """
        text, image = (
            replace(tokens, states=tokens.states.new_empty((*tokens.mask.shape, 0)))
            for tokens in (self.text, self.image)
        )
        return TokenPair(text, image)


@dataclass(frozen=True)
class Evidence:
    """What the attention of a layer knows about its tokens. It carries no gradient."""

    text_to_image: Tensor | None
    """float (B, H, Lt, Lv): probability that a text token attends to an image token. None if the reducer does not use
    it."""
    text_keys: Tensor
    """float (B, Lt, D / H): the keys of the text tokens, averaged over the heads."""
    image_keys: Tensor
    """float (B, Lv, D / H): the keys of the image tokens, averaged over the heads."""
    dtype: torch.dtype = torch.float32
    """The dtype of the queries and keys from which the evidence was computed, in float32. Values that differ by less
    than the precision of this dtype count as equal, because such differences depend on the attention kernel."""

    def rounded(self, saliency: Tensor) -> Tensor:
        """Return a saliency that was computed from the attention, float32 (B, Lv), rounded once to `dtype`.

        So equal tokens tie and keep their order with every attention kernel (pinned by
        `test_half_precision_picks_the_same_tokens_with_every_kernel`).
        """
        return saliency.to(self.dtype).float()


@dataclass(frozen=True)
class LayerTrace:
    """What the reduction of one layer did. The model returns a trace for each such layer in `outputs.reduction`."""

    layer: int
    """Index of the layer at its site."""
    num_text: int
    """Text tokens after the reduction."""
    num_image: int
    """Image tokens after the reduction, [CLS] included."""
    text_source: Tensor
    """long (B, Lt0): for each original text token, which token holds it after this layer; -1 if none does."""
    image_source: Tensor
    """long (B, Lv0): the same for the image; entry 0 is the [CLS], entry 1 + p is patch p in raster order."""
    saliency: Tensor | None = None
    """float (B, Lv): saliency of the image tokens that came in, if the method has one."""
    keep: Tensor | None = None
    """long (B, n): positions of the image tokens that survived pruning, in their new order."""
    image_matching: Matching | None = None
    """How the kept image tokens were merged."""
    text_matching: Matching | None = None
    """How the text tokens were merged."""
    image_index: int = 0
    """Index of the image that the trace is about, if an example has several."""
    losses: dict[str, Tensor] = field(default_factory=dict)
    """Auxiliary training losses of the method, scalars by name."""
    site: str = "layers"
    """Where the layer is, one of [`reducers.base.SITES`]."""
    image_lengths: Tensor | None = None
    """long (B,): how many of the image tokens of each example are its own; those after them are padding. None if the
    method keeps as many of each example."""

    @property
    def place(self) -> str:
        """The place in words, as [`place_in_words`] says it."""
        return place_in_words(self.site, self.layer)

    @classmethod
    def of(
        cls,
        layer: int,
        pair: TokenPair,
        saliency: Tensor | None = None,
        keep: Tensor | None = None,
        image_matching: Matching | None = None,
        text_matching: Matching | None = None,
        site: str = "layers",
    ) -> "LayerTrace":
        """Make the trace of a layer from the tokens that leave it. The other arguments are the fields of that name."""
        return cls(
            layer=layer,
            num_text=pair.text.mask.shape[1],
            num_image=pair.image.mask.shape[1],
            text_source=pair.text.source,
            image_source=pair.image.source,
            saliency=saliency,
            keep=keep,
            image_matching=image_matching,
            text_matching=text_matching,
            site=site,
        )


def place_in_words(site: str, layer: int) -> str:
    """Return where a model reduces tokens: `"layer 2"`, `"image tower, layer 2"` or `"before the first layer"`.

    Args:
        site: one of [`reducers.base.SITES`].
        layer: index of the layer at the site.
    """
    return {"inputs": "before the first layer", "tower": f"image tower, layer {layer}"}.get(site, f"layer {layer}")


for _cls in (Matching, Tokens, TokenPair, Evidence, LayerTrace):
    # so that torch.compile, torch.export (with its files) and FSDP see the tensors inside
    torch.export.register_dataclass(_cls, serialized_type_name=f"pumer_hf.{_cls.__name__}")
