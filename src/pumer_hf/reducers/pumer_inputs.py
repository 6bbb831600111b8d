"""PuMer before the first layer, where no attention to the image has been paid yet.

The paper (https://aclanthology.org/2023.acl-long.721) prunes by text-to-image attention inside the model. Before the
first layer, only the likeness of word and patch embeddings is known, and that knows little: pruning by it alone loses
more than pruning at random (`docs/decoders.md` has the table). So this form of the method lets the relevance weigh
little, spreads what it keeps, and merges the rest into it. The paper's own order is there as `form="paper"`.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from .. import ops
from ..tokens import NUM_PREFIX_TOKENS, Evidence, LayerTrace, TokenPair
from .base import num_kept
from .relevant_diverse import RelevantDiverseConfig, RelevantDiverseReducer, embedding_relevance
from .tome import merge_in_rounds

PUMER_FORMS = ("spread", "paper")


@dataclass(frozen=True)
class PuMerInputsConfig(RelevantDiverseConfig):
    """Schedule of PuMer at site `"inputs"`. Give `keep_ratio` or `num_keep`.

    Args:
        form: `"spread"` chooses patches that differ from each other, weighed by their relevance, and merges the rest
            into them. `"paper"` prunes a share of the patches by their relevance alone, and then merges the most
            similar ones until the amount is reached (Algorithm 1).
        prune_ratio: for the form `"paper"`, the part of the image tokens that is pruned, in [0, 1).
        diversity, p, temperature: those of [`RelevantDiverseConfig`], with other defaults.
    """

    method: ClassVar[str] = "pumer"
    ratios: ClassVar[tuple[str, ...]] = ("keep_ratio", "prune_ratio")

    diversity: str = field(default="max_min", kw_only=True)
    p: float = field(default=0.1, kw_only=True)
    merge_rest: bool = field(default=True, kw_only=True)
    form: str = field(default="spread", kw_only=True)
    prune_ratio: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in PUMER_FORMS:
            raise ValueError(f"reduction.form={self.form!r}: choose one of {', '.join(PUMER_FORMS)}")
        if self.form != "paper" and self.prune_ratio:
            raise ValueError(f"reduction.prune_ratio={self.prune_ratio}: only form 'paper' prunes a share first")


class PuMerInputsReducer(RelevantDiverseReducer):
    """Keeps patches that the text may ask about and that differ from each other, and merges the rest into them."""

    config_class = PuMerInputsConfig
    summary = "keep patches that differ from each other and are like the words, and merge the rest into them"
    paper = "[PuMer](https://aclanthology.org/2023.acl-long.721)"
    config: PuMerInputsConfig

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        if self.config.form != "paper":
            return super().forward(layer, pair, evidence)
        num_image = pair.image.mask.shape[1]
        num_left = self.num_keep(layer, num_image)
        num_unpruned = max(num_kept(self.config.prune_ratio, num_image), num_left)
        relevance = embedding_relevance(pair, self.config.temperature)
        keep = ops.keep_salient(relevance, pair.image.mask, num_unpruned, NUM_PREFIX_TOKENS).sort(dim=1).values
        image = pair.image.move(ops.keep_positions(keep, num_image), num_unpruned)
        merged = replace(merge_in_rounds(image, num_unpruned - num_left), weight=pair.image.weight)
        pair = replace(pair, image=merged)
        return pair, LayerTrace.of(layer, pair, relevance, site=self.config.site)
