"""How many answers of the unreduced model a choice of patches keeps. This chooses the layer that a scorer predicts."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..bench.throughput import compare_throughput
from ..models.bases import Base, base_of
from ..models.observing import Observation
from ..reducers import METHODS, TokenReducer
from ..reducers.lookahead import ALL_LAYERS, LookaheadReducer, LookaheadReductionConfig, TargetLayer
from ..reducers.scoring import ScoringReducer
from ..results import BudgetRow
from ..tokens import NUM_PREFIX_TOKENS, TokenPair

BUDGETS = {"1/2": 1 / 2, "1/3": 1 / 3, "2/9": 2 / 9, "1/9": 1 / 9}
"""The parts of the patches that are kept in the table of a scorer."""
RIVALS = {"diverse": "keep_ratio", "tome": "merge_ratio", "random": "prune_ratio"}
"""The methods in this table that need no training, with the field that says how much they reduce in a layer."""
ANYWHERE = LookaheadReductionConfig((), site="inputs", keep_ratio=1.0)
Batches = Iterable[dict[str, Tensor]]
ByLength = Mapping[int, Tensor]
"""Values of the patches of all images of a batch, (B, P) by the number P of patches that an image has."""
Choice = Callable[[Mapping[TargetLayer, ByLength]], Mapping[str, TokenReducer]]
"""Takes the attention of a batch to its patches, by layer or `"all"`, and returns the reducers by site."""


class GivenReducer(LookaheadReducer):
    """Chooses patches as `lookahead` does, but by an attention that is given. It has no scorer and learns nothing.

    Args:
        config: how many patches to keep, and how.
        attention: float (B, P), at least 0, how much each patch counts; if images have different numbers of patches,
            a tensor for each number.
    """

    learns = learns_apart = False

    def __init__(self, config: LookaheadReductionConfig, attention: Tensor | ByLength):
        super(ScoringReducer, self).__init__(config, 0)  # without a scorer
        self.attention = {attention.shape[1]: attention} if isinstance(attention, Tensor) else attention

    def log_attention(self, pair: TokenPair) -> Tensor:
        mask = pair.image.mask[:, NUM_PREFIX_TOKENS:]
        return self.attention[mask.shape[1]].to(mask.device).float().masked_fill(~mask, 0.0).log()


@torch.no_grad()
def answers_kept(
    model: nn.Module | Base,
    choices: Mapping[str, Choice],
    batches: Batches,
    layers: Sequence[TargetLayer] = (),
    part: LookaheadReductionConfig = ANYWHERE,
) -> dict[str, float]:
    """Return, for each choice of tokens, which part of the unreduced model's answers it keeps, in [0, 1].

    An answer is the label with the highest logit; in a decoder, it is the token that the model says first. Labels of
    the data are not needed.

    Args:
        model: a model that answers or classifies, in eval mode, or a base ([`base_of`]). Its own reduction has no
            influence.
        choices: by name, what makes the reducers for a batch.
        batches: keyword arguments of the model. Labels are ignored.
        layers: the layers whose attention the choices need; `"all"` for the mean of all.
        part: the part of the schedule to whose images this attention belongs: with `per_prompt`, all images of a
            prompt count as one.

    Raises:
        ValueError: the model has no answers to compare, or there is no batch.
    """
    base = base_of(model)
    base.check_answers()
    same, total = dict.fromkeys(choices, 0), 0
    for batch in batches:
        inputs = base.prepared(on_device(batch, base))
        attention = attention_by_length(base.observe(inputs, layers, part) if layers else [], layers)
        expected = base.answers(inputs, {})
        total += len(expected)
        for name, choice in choices.items():
            same[name] += int((base.answers(inputs, choice(attention)) == expected).all(dim=1).sum())
    if not total:
        raise ValueError("batches: there is no batch")
    return {name: number / total for name, number in same.items()}


def attention_by_length(seen: Sequence[Observation], layers: Sequence[TargetLayer]) -> dict[TargetLayer, ByLength]:
    """Return the attention of layers to the patches, by layer and by the number of patches."""
    return {layer: {one.features.shape[1]: one.attention[layer] for one in seen} for layer in layers}


def on_device(batch: Mapping[str, Tensor], base: Base) -> dict[str, Tensor]:
    """Return a batch on the device of a base."""
    return {name: value.to(base.model.device) for name, value in batch.items()}


def choose_layer(
    model: nn.Module | Base, part: LookaheadReductionConfig, batches: Batches, keep_ratio: float = BUDGETS["1/9"]
) -> tuple[TargetLayer, dict[TargetLayer, float]]:
    """Choose the layer whose attention a scorer should predict, or all layers.

    It is the layer that keeps most of the unreduced model's answers if its own attention chooses a few of the patches,
    with the diversity and the exponent of the part. Of equal layers it is the first. The mean attention of all layers
    is tried last.

    Args:
        model: see [`answers_kept`].
        part: how the patches are chosen, and where.
        batches: some hundred examples.
        keep_ratio: the part of the patches to keep, in (0, 1].

    Returns:
        The layer or `"all"`, and the part of the answers that each of them keeps.
    """
    base = base_of(model)
    targets: list[TargetLayer] = [*base.layers, *([ALL_LAYERS] if len(base.layers) > 1 else [])]
    config = part.with_amount(keep_ratio=keep_ratio)
    kept = answers_kept(base, {str(target): given(config, target) for target in targets}, batches, targets, config)
    by_target = {target: kept[str(target)] for target in targets}
    return max(targets, key=lambda target: by_target[target]), by_target


def budget_rows(
    model: nn.Module | Base,
    target_layer: TargetLayer,
    batches: Batches,
    first: dict[str, Tensor],
    seconds: float = 4.0,
) -> list[BudgetRow]:
    """Compare a trained scorer with other methods, at several numbers of patches, and measure its speed.

    Args:
        model: a model with the scorer ([`lookahead_of`]), in eval mode.
        target_layer: the layer that the scorer predicts, or `"all"`. Its own attention is compared too.
        batches: examples that were not used in training.
        first: a batch to measure the speed on.
        seconds: how long the speed is measured in all.

    Returns:
        A row for each of [`BUDGETS`].
    """
    base = base_of(model)
    reducer = base.lookahead
    inputs = on_device(first, base)
    num_patches = base.observe(inputs, [], reducer.config)[0].features.shape[1]
    numbers = {kept: max(round(ratio * num_patches), 1) for kept, ratio in BUDGETS.items()}
    configs = {kept: reducer.config.with_amount(keep_ratio=ratio) for kept, ratio in BUDGETS.items()}
    mine = {kept: with_config(reducer, config) for kept, config in configs.items()}
    choices: dict[str, Choice] = {}
    for kept, config in configs.items():
        choices[f"{kept} lookahead"] = always(config.site, mine[kept])
        for name, rival in rivals(base, config, numbers[kept], num_patches).items():
            choices[f"{kept} {name}"] = always(config.site, rival)
        choices[f"{kept} target"] = given(config, target_layer)
    shares = answers_kept(base, choices, batches, [target_layer], reducer.config)
    speeds = measured_speeds(base, {kept: {reducer.config.site: one} for kept, one in mine.items()}, inputs, seconds)
    rows = []
    for kept, number in numbers.items():
        methods = {name.partition(" ")[2]: share for name, share in shares.items() if name.startswith(f"{kept} ")}
        rows.append(BudgetRow(kept, number, methods, speeds[kept]))
    return rows


def always(site: str, reducer: TokenReducer) -> Choice:
    """Return the choice that uses one reducer in every batch."""
    return lambda attention: {site: reducer}


def given(config: LookaheadReductionConfig, layer: TargetLayer) -> Choice:
    """Return the choice by the attention that a layer pays itself, or all layers in the mean."""
    return lambda attention: {config.site: GivenReducer(config, attention[layer]).eval()}


def with_config(reducer: LookaheadReducer, config: LookaheadReductionConfig) -> LookaheadReducer:
    """Return a module with the same scorer and another config."""
    other = copy.copy(reducer)
    other.config = config
    return other


def rivals(
    model: nn.Module | Base, config: LookaheadReductionConfig, number: int, num_patches: int
) -> dict[str, TokenReducer]:
    """Make the reducers of [`RIVALS`] that work at the site of a scorer and leave as many patches.

    Args:
        model: the model that they work in.
        config: the part of the scorer.
        number: patches to keep.
        num_patches: patches that come in.
    """
    base, found = base_of(model), {}
    for name, field in RIVALS.items():
        config_class = METHODS[name].config_class
        if config.site not in config_class.sites:
            continue
        if config.site == "inputs":
            values: dict[str, Any] = {"keep_ratio": number / num_patches}
            found[name] = base.host.make_reducer(config_class((), site="inputs", **values)).eval()
            continue
        for prefix in (0, NUM_PREFIX_TOKENS):  # in a layer, a method counts its ratio with or without the [CLS]
            values = {field: 1 - (number + prefix) / (num_patches + prefix)}
            rival = base.host.make_reducer(config_class(config.layers, site=config.site, **values)).eval()
            _, left = rival.output_lengths(next(iter(config.layers), 0), 0, NUM_PREFIX_TOKENS + num_patches)
            if left == NUM_PREFIX_TOKENS + number:
                found[name] = rival
                break
    return found


class Reducing(nn.Module):
    """A model with other reducers than its own, as a module to measure. It answers."""

    def __init__(self, base: Base, reducers: Mapping[str, TokenReducer]):
        super().__init__()
        self.base, self.reducers = base, reducers

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.base.answers(inputs, self.reducers)


def measured_speeds(
    model: nn.Module | Base,
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
    base = base_of(model)
    models = {name: Reducing(base, reducers) for name, reducers in {"unreduced": {}, **schedules}.items()}
    found = compare_throughput(models, inputs, seconds=seconds)
    return {name: found.speeds[name].ratio for name in schedules}
