"""PuMer before the first layer, where no attention to the image has been paid yet.

The paper (https://aclanthology.org/2023.acl-long.721) prunes by text-to-image attention inside the model, and then
merges in one round. Before the first layer, only the likeness of word and patch embeddings is known. It knows little:
pruning by it alone keeps far less than methods that look at how the patches differ (`docs/decoders.md` has the table).
And one round of bipartite matching has to merge half of the tokens, also those that no other is like. So this form of
the method prunes nothing, lets the relevance weigh little, and merges pair by pair what is most alike. What stands out
from the rest of the image is merged last. The paper's own order is there as `form="paper"`.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from .. import ops
from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair
from .base import num_kept
from .groups import group_alike
from .keeping import with_prefix_places
from .relevant_diverse import RelevantDiverseConfig, RelevantDiverseReducer, embedding_relevance
from .tome import merge_in_rounds

PUMER_FORMS = ("groups", "spread", "paper")
DIVERSITY = "max_min"
P, CONTRAST = 0.1, 1.0
LEAST_CONTRAST = 1e-3
"""The least contrast of a patch. So a patch that is like the mean still counts for something."""


@dataclass(frozen=True)
class PuMerInputsConfig(RelevantDiverseConfig):
    """Schedule of PuMer at site `"inputs"`. Give `keep_ratio` or `num_keep`.

    Args:
        form: `"groups"` merges pair by pair what is most alike, weighed by the relevance and the contrast
            ([`group_alike`]). A group has the place of the patch that is most like its mean. `"spread"` chooses
            patches that differ from each other, weighed in the same way, and merges the rest into them. `"paper"`
            prunes a share of the patches by their relevance alone, and then merges the most similar ones in rounds
            (Algorithm 1).
        contrast: for the other forms, exponent of the contrast of the patches ([`contrast_of`]), at least 0. At 0 it
            has no influence.
        prune_ratio: for the form `"paper"`, the part of the image tokens that is pruned, in [0, 1).
        diversity: for the form `"spread"`, that of [`RelevantDiverseConfig`].
        p: for the other forms, that of [`RelevantDiverseConfig`].
        temperature: that of [`RelevantDiverseConfig`].
        merge_rest: whether a group is the mean of its patches. If not, its other patches are dropped.
    """

    method: ClassVar[str] = "pumer"
    ratios: ClassVar[tuple[str, ...]] = ("keep_ratio", "prune_ratio")

    diversity: str = field(default=DIVERSITY, kw_only=True)
    p: float = field(default=P, kw_only=True)
    merge_rest: bool = field(default=True, kw_only=True)
    form: str = field(default="groups", kw_only=True)
    contrast: float = field(default=CONTRAST, kw_only=True)
    prune_ratio: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._validate_weight("contrast")
        if self.form not in PUMER_FORMS:
            raise ValueError(f"reduction.form={self.form!r}: choose one of {', '.join(PUMER_FORMS)}")
        if self.form != "paper" and self.prune_ratio:
            raise ValueError(f"reduction.prune_ratio={self.prune_ratio}: only form 'paper' prunes a share first")
        if self.form == "paper":
            for name, value, default in (("p", self.p, P), ("contrast", self.contrast, CONTRAST)):
                if value != default:
                    raise ValueError(f"reduction.{name}={value!r}: form 'paper' does not weigh by it: leave it out")
        if self.form != "spread" and self.diversity != DIVERSITY:
            raise ValueError(f"reduction.diversity={self.diversity!r}: only form 'spread' has it: leave it out")


class PuMerInputsReducer(RelevantDiverseReducer):
    """Merges patches that are alike. Patches that the text may ask about stay apart from others for longer."""

    config_class = PuMerInputsConfig
    summary = "merge patches that are alike, and keep those apart that are like the words"
    paper = "[PuMer](https://aclanthology.org/2023.acl-long.721)"
    config: PuMerInputsConfig

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        if self.config.form == "spread":
            return super().forward(layer, pair, evidence)
        num_left = self.num_keep(layer, pair.image.mask.shape[1])
        relevance = embedding_relevance(pair, self.config.temperature)
        if self.config.form == "groups":
            return self.grouped(layer, pair, evidence.image_keys, relevance, num_left)
        return self.pruned_and_merged(layer, pair, relevance, num_left)

    def grouped(
        self, layer: int, pair: TokenPair, features: Tensor, relevance: Tensor, num_left: int
    ) -> tuple[TokenPair, LayerTrace]:
        """Merge the patches into groups.

        Args:
            layer: the index that the trace gets.
            pair: the tokens that come in.
            features: float (B, Lv, d), what the tokens are compared by.
            relevance: float (B, Lv), of the image tokens.
            num_left: image tokens that stay, the [CLS] included.
        """
        mask, patches = pair.image.mask[:, NUM_PREFIX_TOKENS:], features[:, NUM_PREFIX_TOKENS:]
        quality = self.quality(relevance[:, NUM_PREFIX_TOKENS:], patches, mask)
        group, typical = group_alike(patches, quality, mask, num_left - NUM_PREFIX_TOKENS)
        keep = with_prefix_places(typical)
        if self.config.merge_rest:
            places = F.pad(group + NUM_PREFIX_TOKENS, (NUM_PREFIX_TOKENS, 0))
        else:
            places = ops.keep_positions(keep, pair.image.mask.shape[1])
        pair = replace(pair, image=pair.image.move(places, num_left))
        return pair, LayerTrace.of(layer, pair, relevance, keep, site=self.config.site)

    def quality(self, relevance: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        return super().quality(relevance, features, mask) * contrast_of(features, mask) ** self.config.contrast

    def pruned_and_merged(
        self, layer: int, pair: TokenPair, relevance: Tensor, num_left: int
    ) -> tuple[TokenPair, LayerTrace]:
        """Prune a share by the relevance, and then merge what is alike. Arguments: see `grouped`."""
        num_image = pair.image.mask.shape[1]
        num_unpruned = max(num_kept(self.config.prune_ratio, num_image), num_left)
        keep = ops.keep_salient(relevance, pair.image.mask, num_unpruned, NUM_PREFIX_TOKENS).sort(dim=1).values
        image = pair.image.move(ops.keep_positions(keep, num_image), num_unpruned)
        merged = replace(merge_in_rounds(image, num_unpruned - num_left), weight=pair.image.weight)
        pair = replace(pair, image=merged)
        return pair, LayerTrace.of(layer, pair, relevance, site=self.config.site)


def contrast_of(features: Tensor, mask: Tensor) -> Tensor:
    """Return how much each patch stands out: its cosine distance to the mean patch of its image, over the largest one.

    Args:
        features: float (B, P, d).
        mask: bool (B, P), True for real patches.

    Returns:
        float32 (B, P), in [[`LEAST_CONTRAST`], 1].
    """
    real = mask.unsqueeze(-1)
    features = features.detach().float()
    mean = (features * real).sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True).clamp(min=1)
    distance = (1 - F.cosine_similarity(features, mean, dim=-1)).masked_fill(~mask, 0.0)
    return (distance / distance.amax(dim=1, keepdim=True).clamp(min=LEAST_CONTRAST**2)).clamp(min=LEAST_CONTRAST)
