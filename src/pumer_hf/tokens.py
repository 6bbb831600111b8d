"""What flows through a token reducer: `TokenPair` and `Evidence` go in, `TokenPair` and `LayerTrace` come out.

Shapes use B examples, H heads, D width, Lt text tokens and Lv image tokens. All classes are immutable: a reduction
makes new ones.
"""

from dataclasses import dataclass, field, replace

import torch
import torch.export
from torch import Tensor

from . import ops


@dataclass(frozen=True)
class Matching:
    """Which tokens merge, as [`ops.bipartite_soft_matching`] decided it."""

    src: Tensor
    """long (B, num_merge): tokens of the even half that merge away; `i` is token `2 * i`."""
    dst: Tensor
    """long (B, num_merge): the token of the odd half that takes each; `j` is token `2 * j + 1`."""
    unm: Tensor
    """long (B, even_len - num_merge): tokens of the even half that stay as they are, ascending."""

    def positions(self, length: int) -> Tensor:
        """Long (B, length): where each of the `length` matched tokens goes."""
        return ops.merge_positions(self.src, self.dst, self.unm, length)


@dataclass(frozen=True)
class Tokens:
    """The tokens of one modality. Token 0 is its [CLS]."""

    states: Tensor
    """float (B, L, D)."""
    mask: Tensor
    """bool (B, L): True for a real token, False for padding. Or float, what `exp(score)` is multiplied with where the
    token is attended to: 0 for padding, else the weight that a reducer gives it (or `semantics="release"`)."""
    source: Tensor
    """long (B, L0): for each of the L0 tokens that the model began with, which token holds it now; -1 where none does
    (it was pruned, or is padding)."""
    prior: Tensor | None = None
    """float (B, L): saliency of each token from outside the model, its input `image_saliency`."""
    grid: tuple[int, int] | None = None
    """Rows and columns of patches that the image began with, if tokens 1 to L0 - 1 are all of them in raster order."""

    @classmethod
    def initial(
        cls, states: Tensor, mask: Tensor, prior: Tensor | None = None, grid: tuple[int, int] | None = None
    ) -> "Tokens":
        """Tokens that nothing has reduced yet: each real one holds itself."""
        positions = torch.arange(states.shape[1], device=states.device)
        return cls(states, mask, positions.masked_fill(~mask, -1), prior, grid)

    @property
    def size(self) -> Tensor:
        """Long (B, L): how many original tokens each token holds; 0 for padding."""
        return ops.group_sizes(self.source, self.mask.shape[1])

    def move(self, positions: Tensor, num_tokens: int) -> "Tokens":
        """Reduce to `num_tokens` tokens: each becomes the mean of the real tokens that go to it, the plain one or
        that with the weights of a float mask, which then add up.

        Args:
            positions: long (B, L), where each token goes, or -1 to drop it. To every place goes at least one.
        """
        weights = ops.group_weights(positions, self.mask, num_tokens)
        source = ops.follow(self.source, positions)
        if self.mask.is_floating_point():
            mask = ops.group_sums(self.mask, positions, num_tokens)
        else:
            mask = ops.group_sizes(source, num_tokens) > 0
        return replace(
            self,
            states=ops.merge_groups(self.states, weights, positions, num_tokens),
            mask=mask,
            source=source,
            prior=None if self.prior is None else ops.group_sums(weights * self.prior, positions, num_tokens),
        )


@dataclass(frozen=True)
class TokenPair:
    """The tokens of both modalities at one place in the model."""

    text: Tokens
    image: Tokens

    def joined(self) -> Tensor:
        """Float (B, Lt + Lv, D): text states, then image states."""
        return torch.cat([self.text.states, self.image.states], dim=1)

    def joined_mask(self) -> Tensor:
        """Bool (B, Lt + Lv)."""
        return torch.cat([self.text.mask, self.image.mask], dim=1)

    def with_states(self, joined: Tensor) -> "TokenPair":
        """The same tokens with other states, float (B, Lt + Lv, D)."""
        num_text = self.text.mask.shape[1]
        return TokenPair(
            text=replace(self.text, states=joined[:, :num_text]),
            image=replace(self.image, states=joined[:, num_text:]),
        )


@dataclass(frozen=True)
class Evidence:
    """What the attention of a layer knows about its tokens. Carries no gradient."""

    text_to_image: Tensor | None
    """float (B, H, Lt, Lv): probability that a text token attends to an image token; only for reducers that ask."""
    text_keys: Tensor
    """float (B, Lt, D / H): the keys of the text tokens, averaged over the heads."""
    image_keys: Tensor
    """float (B, Lv, D / H): the keys of the image tokens, averaged over the heads."""
    dtype: torch.dtype = torch.float32
    """Of the queries and keys from which all this was computed, in float32. What differs by less than the precision of
    this type is equal: it depends on the attention kernel."""


@dataclass(frozen=True)
class LayerTrace:
    """What one layer's reduction did. Leaves the model in `outputs.reduction`, one per reduction layer."""

    layer: int
    """Index of the layer."""
    num_text: int
    """Text tokens after the reduction."""
    num_image: int
    """Image tokens after the reduction, [CLS] included."""
    text_source: Tensor
    """long (B, Lt0): for each original text token, which token holds it after this layer; -1 where none does."""
    image_source: Tensor
    """long (B, Lv0): the same for the image; entry 0 is the [CLS], entry 1 + p is patch p in raster order."""
    saliency: Tensor | None = None
    """float (B, Lv): saliency of the image tokens that came in, where the method has one."""
    keep: Tensor | None = None
    """long (B, n): positions of the image tokens that survived pruning, in their new order."""
    image_matching: Matching | None = None
    """How the kept image tokens were merged."""
    text_matching: Matching | None = None
    """How the text tokens were merged."""
    image_index: int = 0
    """Which image of the example it is about, where a model takes several."""
    losses: dict[str, Tensor] = field(default_factory=dict)
    """Auxiliary training losses of the method, scalars by name."""


for _cls in (Matching, Tokens, TokenPair, Evidence, LayerTrace):
    # so that torch.compile, torch.export (with its files) and FSDP see the tensors inside
    torch.export.register_dataclass(_cls, serialized_type_name=f"pumer_hf.{_cls.__name__}")
