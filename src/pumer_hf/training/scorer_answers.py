"""`AnswersTrainer`: it trains a scorer of `lookahead` further, so that the frozen model keeps its answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models.observing import Observation
from ..reducers import TokenReducer
from ..reducers.choice import Draw
from ..reducers.lookahead import LookaheadReductionConfig
from ..tokens import NUM_PREFIX_TOKENS, TokenPair
from .answers import BUDGETS, GivenReducer
from .losses import reward_loss
from .scorer import ScorerTrainer
from .trainer import batch_size_of

NUM_DRAWS = 6
"""Choices that are drawn for each example."""
DRAWN = ("1/9", "2/9")
"""The parts of the patches that the draws keep, in turn, of [`BUDGETS`]."""


class AnswersTrainer(ScorerTrainer):
    """Trains a scorer further than its target goes: what counts is that the frozen model gives the same answer.

    The attention of a layer says where that layer looks, which is not always what the answer needs. So each step draws
    some choices of patches for an example, with the probabilities that the scorer and the diversity give. The model
    answers with each choice. Choices with which the answer of the unreduced model is kept become more probable
    ([`reward_loss`]). No labels are needed, and no gradient passes through the model.

    Begin with a scorer that [`ScorerTrainer`] has trained. The arguments are those of that trainer.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.base.check_answers()

    def loss_and_scores(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        share = BUDGETS[DRAWN[self.state.global_step % len(DRAWN)]]
        config = self.reducer.config.with_amount(keep_ratio=share)
        with self.accelerator.autocast():
            inputs = self.base.prepared(inputs)
        seen = self.observe(inputs, [])
        scores = [self.scores(model, one) for one in seen]
        drawn = [self.draw(one, found, config) for one, found in zip(seen, scores, strict=True)]
        log_probability = torch.zeros(batch_size_of(inputs), NUM_DRAWS, device=scores[0].device)
        for one, choice in zip(seen, drawn, strict=True):  # a decoder's prompt may have several images
            log_probability = log_probability.index_add(
                0, one.examples.to(log_probability.device), choice.log_probability
            )
        expected, kept = self.base_answers(inputs, {}), []
        for index in range(NUM_DRAWS):
            reducer = DrawnReducer(config, {choice.attention.shape[1]: choice.of_draw(index) for choice in drawn})
            found = self.base_answers(inputs, {config.site: reducer.eval()})
            kept.append((found == expected).all(dim=1))
        reward = torch.stack(kept, dim=1).to(log_probability.device)
        return reward_loss(log_probability.flatten(), reward.flatten(), NUM_DRAWS), scores

    def draw(self, seen: Observation, scores: Tensor, config: LookaheadReductionConfig) -> "Drawn":
        """Draw choices of patches for each image of an observation."""
        mask = seen.pair.image.mask[:, NUM_PREFIX_TOKENS:]
        attention = scores.float().masked_fill(~mask, -torch.inf).softmax(dim=-1)
        num_keep = config.num_kept_patches(mask.shape[1])
        assert num_keep is not None, "the config has a ratio"
        draw = Draw()
        chosen = self.reducer.choose_by(repeat(attention), repeat(seen.features), repeat(mask), num_keep, draw)
        assert isinstance(draw.log_probability, Tensor), "at least one patch was drawn"
        return Drawn(
            attention.detach(), chosen.unflatten(0, (-1, NUM_DRAWS)), draw.log_probability.view(-1, NUM_DRAWS)
        )

    @torch.no_grad()
    def base_answers(self, inputs: dict[str, Tensor], reducers: dict[str, TokenReducer]) -> Tensor:
        """Return the answers of the frozen model, long (B, n), with the reducers that are given by site."""
        with self.accelerator.autocast():
            return self.base.answers(inputs, reducers)


@dataclass(frozen=True)
class Drawn:
    """Some choices of patches for images with equally many of them."""

    attention: Tensor
    """float (G, P), the attention by which they were drawn."""
    chosen: Tensor
    """long (G, NUM_DRAWS, n), the patches."""
    log_probability: Tensor
    """float (G, NUM_DRAWS), the log of the probability of each choice."""

    def of_draw(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the attention, and the patches of one draw, long (G, n)."""
        return self.attention, self.chosen[:, index]


class DrawnReducer(GivenReducer):
    """Keeps patches that were chosen before.

    Args:
        config: how many patches to keep.
        drawn: for each number P of patches that images have, the attention by which the patches were chosen, float
            (G, P), and the patches, long (G, num_keep).
    """

    def __init__(self, config: LookaheadReductionConfig, drawn: Mapping[int, tuple[Tensor, Tensor]]):
        super().__init__(config, {number: attention for number, (attention, _) in drawn.items()})
        self.chosen = {number: chosen for number, (_, chosen) in drawn.items()}

    def choose(self, pair: TokenPair, features: Tensor, num_keep: int) -> tuple[Tensor, Tensor | None]:
        number = features.shape[1]
        return self.chosen[number], self.attention[number]


def repeat(values: Tensor) -> Tensor:
    """Repeat each example for its draws: (B * NUM_DRAWS, ...) from (B, ...)."""
    return values.repeat_interleave(NUM_DRAWS, dim=0)
