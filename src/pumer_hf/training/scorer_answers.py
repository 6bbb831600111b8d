"""`AnswersTrainer`: it trains a scorer of `lookahead` further, so that the frozen model keeps its answers."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..models.encoders.base import unwrapped
from ..reducers.choice import Draw
from ..reducers.lookahead import LookaheadReductionConfig
from ..tokens import NUM_PREFIX_TOKENS, TokenPair
from .answers import BUDGETS, GivenReducer, answers, check_answers
from .losses import reward_loss
from .scorer import ScorerTrainer

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
        check_answers(unwrapped(self.base))

    def loss_and_scores(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        config = self.reducer.config
        given = {name: value for name, value in inputs.items() if name not in ("labels", "teacher_logits")}
        seen = self.observe(inputs, [])
        scores = self.scores(model, seen)
        mask = seen.pair.image.mask[:, NUM_PREFIX_TOKENS:]
        attention = scores.float().masked_fill(~mask, -torch.inf).softmax(dim=-1)
        share = BUDGETS[DRAWN[self.state.global_step % len(DRAWN)]]
        num_keep = max(round(share * mask.shape[1]), 1)
        draw = Draw()
        features, mask, many = repeat(seen.features), repeat(mask), repeat(attention)
        chosen = self.reducer.choose_by(many, features, mask, num_keep, draw)
        with torch.no_grad(), self.accelerator.autocast():
            base = unwrapped(self.base)
            expected = answers(base, given, {})
            drawn = DrawnReducer(replace(config, keep_ratio=None, num_keep=num_keep), many.detach(), chosen)
            found = answers(base, {name: repeat(value) for name, value in given.items()}, {config.site: drawn.eval()})
        assert isinstance(draw.log_probability, Tensor), "at least one patch was drawn"
        return reward_loss(draw.log_probability, found == repeat(expected), NUM_DRAWS), scores


class DrawnReducer(GivenReducer):
    """Keeps patches that were chosen before.

    Args:
        config: how many patches to keep.
        attention: float (B, P), the attention by which they were chosen.
        chosen: long (B, num_keep), the patches.
    """

    def __init__(self, config: LookaheadReductionConfig, attention: Tensor, chosen: Tensor):
        super().__init__(config, attention)
        self.chosen = chosen

    def choose(self, pair: TokenPair, features: Tensor, num_keep: int) -> tuple[Tensor, Tensor | None]:
        return self.chosen, self.attention


def repeat(values: Tensor) -> Tensor:
    """Repeat each example for its draws: (B * NUM_DRAWS, ...) from (B, ...)."""
    return values.repeat_interleave(NUM_DRAWS, dim=0)
