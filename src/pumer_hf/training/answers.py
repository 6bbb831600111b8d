"""How many answers of the unreduced model a choice of patches keeps. This chooses the layer that a scorer predicts."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..bench.throughput import compare_throughput
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.encoders.heads import ClassifierHead
from ..models.observing import observe
from ..reducers import METHODS, TokenReducer
from ..reducers.lookahead import LookaheadReducer, LookaheadReductionConfig
from ..results import BudgetRow
from ..tokens import NUM_PREFIX_TOKENS, TokenPair
from .scorer import lookahead_of

BUDGETS = {"1/2": 1 / 2, "1/3": 1 / 3, "2/9": 2 / 9, "1/9": 1 / 9}
"""The parts of the patches that are kept in the table of a scorer."""
RIVALS = {"diverse": "keep_ratio", "tome": "merge_ratio", "random": "prune_ratio"}
"""The methods in this table that need no training, with the field that says how much they reduce."""
Batches = Iterable[dict[str, Tensor]]
Choice = Callable[[Mapping[int, Tensor]], Mapping[str, TokenReducer]]
"""Takes the attention of a batch to its patches, float (B, P) by layer, and returns the reducers by site."""


class GivenReducer(LookaheadReducer):
    """Chooses patches as `lookahead` does, but by an attention that is given. It has no scorer and learns nothing.

    Args:
        config: how many patches to keep, and how.
        attention: float (B, P), at least 0, how much each patch counts.
    """

    learns = learns_apart = False

    def __init__(self, config: LookaheadReductionConfig, attention: Tensor):
        super(LookaheadReducer, self).__init__(config, 0)
        self.attention = attention

    def log_attention(self, pair: TokenPair) -> Tensor:
        mask = pair.image.mask[:, NUM_PREFIX_TOKENS:]
        return self.attention.to(mask.device).float().masked_fill(~mask, 0.0).log()


@torch.no_grad()
def answers_kept(
    model: PuMerPreTrainedModel, choices: Mapping[str, Choice], batches: Batches, layers: Sequence[int] = ()
) -> dict[str, float]:
    """Return, for each choice of tokens, which part of the unreduced model's answers it keeps, in [0, 1].

    An answer is the label with the highest logit. Labels of the data are not needed.

    Args:
        model: a model that answers or classifies, in eval mode. Its own reduction has no influence.
        choices: by name, what makes the reducers for a batch.
        batches: keyword arguments of the model. Labels are ignored.
        layers: the layers whose attention the choices need.

    Raises:
        ValueError: the model has no answers to compare, or there is no batch.
    """
    check_answers(model)
    same, total = dict.fromkeys(choices, 0), 0
    for batch in batches:
        inputs = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
        attention = observe(model, inputs, layers).attention if layers else {}
        expected = answers(model, inputs, {})
        total += len(expected)
        for name, choice in choices.items():
            same[name] += int((answers(model, inputs, choice(attention)) == expected).sum())
    if not total:
        raise ValueError("batches: there is no batch")
    return {name: number / total for name, number in same.items()}


def answers(model: PuMerPreTrainedModel, inputs: Mapping[str, Tensor], reducers: Mapping[str, TokenReducer]) -> Tensor:
    """Return the answer to each example, long (B,), with the reducers that are given by site."""
    with model.token_reduction.using(reducers):
        return model(**inputs).logits.argmax(dim=-1)


def check_answers(model: nn.Module) -> None:
    """Raise `ValueError` if a model has no answers to compare, or takes several images per text."""
    if not isinstance(model, ClassifierHead):
        raise ValueError(
            f"{type(model).__name__}: answers are compared for a model that classifies one image and one text "
            "(VQA, SNLI-VE)"
        )


def choose_layer(
    model: PuMerPreTrainedModel, part: LookaheadReductionConfig, batches: Batches, keep_ratio: float = BUDGETS["1/9"]
) -> tuple[int, dict[int, float]]:
    """Choose the layer whose attention a scorer should predict.

    It is the layer that keeps most of the unreduced model's answers if its own attention chooses a few of the patches,
    with the diversity and the exponent of the part. Of equal layers it is the first.

    Args:
        model: see [`answers_kept`].
        part: how the patches are chosen, and where.
        batches: some hundred examples.
        keep_ratio: the part of the patches to keep, in (0, 1].

    Returns:
        The layer, and the part of the answers that each layer keeps.
    """
    layers = range(model.config.sites["layers"])
    config = replace(part, keep_ratio=keep_ratio, num_keep=None)
    kept = answers_kept(model, {str(layer): given(config, layer) for layer in layers}, batches, layers)
    by_layer = {int(name): value for name, value in kept.items()}
    return max(by_layer, key=lambda layer: by_layer[layer]), by_layer


def budget_rows(
    model: PuMerPreTrainedModel, target_layer: int, batches: Batches, first: dict[str, Tensor], seconds: float = 4.0
) -> list[BudgetRow]:
    """Compare a trained scorer with other methods, at several numbers of patches, and measure its speed.

    Args:
        model: a model with the scorer ([`lookahead_of`]), in eval mode.
        target_layer: the layer that the scorer predicts. Its own attention is compared too.
        batches: examples that were not used in training.
        first: a batch to measure the speed on.
        seconds: how long the speed is measured in all.

    Returns:
        A row for each of [`BUDGETS`].
    """
    reducer = lookahead_of(model)
    inputs = {name: value.to(model.device) for name, value in first.items() if name != "labels"}
    num_patches = observe(model, inputs, []).pair.image.mask.shape[1] - NUM_PREFIX_TOKENS
    numbers = {kept: max(round(ratio * num_patches), 1) for kept, ratio in BUDGETS.items()}
    configs = {kept: replace(reducer.config, keep_ratio=ratio, num_keep=None) for kept, ratio in BUDGETS.items()}
    mine = {kept: with_config(reducer, config) for kept, config in configs.items()}
    choices: dict[str, Choice] = {}
    for kept, config in configs.items():
        choices[f"{kept} lookahead"] = always(config.site, mine[kept])
        for name, rival in rivals(model, config, numbers[kept], num_patches).items():
            choices[f"{kept} {name}"] = always(config.site, rival)
        choices[f"{kept} target"] = given(config, target_layer)
    shares = answers_kept(model, choices, batches, [target_layer])
    speeds = measured_speeds(model, {kept: {reducer.config.site: one} for kept, one in mine.items()}, inputs, seconds)
    rows = []
    for kept, number in numbers.items():
        methods = {name.partition(" ")[2]: share for name, share in shares.items() if name.startswith(f"{kept} ")}
        rows.append(BudgetRow(kept, number, methods, speeds[kept]))
    return rows


def always(site: str, reducer: TokenReducer) -> Choice:
    """Return the choice that uses one reducer in every batch."""
    return lambda attention: {site: reducer}


def given(config: LookaheadReductionConfig, layer: int) -> Choice:
    """Return the choice by the attention that a layer pays itself."""
    return lambda attention: {config.site: GivenReducer(config, attention[layer]).eval()}


def with_config(reducer: LookaheadReducer, config: LookaheadReductionConfig) -> LookaheadReducer:
    """Return a module with the same scorer and another config."""
    other = copy.copy(reducer)
    other.config = config
    return other


def rivals(
    model: PuMerPreTrainedModel, config: LookaheadReductionConfig, number: int, num_patches: int
) -> dict[str, TokenReducer]:
    """Make the reducers of [`RIVALS`] that work at the site of a scorer and leave as many patches.

    Args:
        model: the model that they work in.
        config: the part of the scorer.
        number: patches to keep.
        num_patches: patches that come in.
    """
    found = {}
    for name, field in RIVALS.items():
        config_class = METHODS[name].config_class
        if config.site not in config_class.sites:
            continue
        for prefix in (0, NUM_PREFIX_TOKENS):  # a method counts its ratio with or without the [CLS]
            ratio = (number + prefix) / (num_patches + prefix)
            values: dict[str, Any] = {field: ratio if field == "keep_ratio" else 1 - ratio}
            rival = model.base_model.make_reducer(config_class(config.layers, site=config.site, **values)).eval()
            _, left = rival.output_lengths(next(iter(config.layers), 0), 0, NUM_PREFIX_TOKENS + num_patches)
            if left == NUM_PREFIX_TOKENS + number:
                found[name] = rival
                break
    return found


class Reducing(nn.Module):
    """A model with other reducers than its own, as a module to measure."""

    def __init__(self, model: PuMerPreTrainedModel, reducers: Mapping[str, TokenReducer]):
        super().__init__()
        self.model, self.reducers = model, reducers

    def forward(self, **inputs: Tensor) -> Any:
        with self.model.token_reduction.using(self.reducers):
            return self.model(**inputs)


def measured_speeds(
    model: PuMerPreTrainedModel,
    schedules: Mapping[str, Mapping[str, TokenReducer]],
    inputs: dict[str, Tensor],
    seconds: float,
) -> dict[str, float]:
    """Return how many times as fast as the unreduced model the reducers make it, measured in one interleaved run.

    Args:
        model: the model, in eval mode.
        schedules: reducers by site, by name.
        inputs: a batch on the device of the model.
        seconds: how long to measure in all.
    """
    models = {name: Reducing(model, reducers) for name, reducers in {"unreduced": {}, **schedules}.items()}
    found = compare_throughput(models, inputs, seconds=seconds)
    return {name: found.speeds[name].ratio for name in schedules}
