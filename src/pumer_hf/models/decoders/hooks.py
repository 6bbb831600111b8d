"""Hooks on the layers of a stock text model, with which a [`LayerPlan`] reduces tokens inside it.

A hook holds nothing. What belongs to a forward is in its plan, an argument of the layers. What belongs to a chat is on
its cache ([`CutLayer`]). So the same hooks serve several threads, and copies of a model.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from ..profiling import reduction_region
from .cut_cache import CutLayer, cache_of, cut_layer
from .cut_masks import Held, cut_mask
from .evidence import KEY_WEIGHT, PLAN
from .plan import LayerPlan, Stage


def install_hooks(model: PreTrainedModel) -> list[RemovableHandle]:
    """Put the hooks on the layers of the text model. Without a plan, and without a cut cache, they do nothing.

    Returns:
        What removes the hooks. It is empty if the layers have them already, because tokens must be cut once.
    """
    text_model: Any = model.get_decoder()
    present = text_model.layers[0]._forward_pre_hooks.values()
    if any(isinstance(hook, partial) and hook.func is _before_layer for hook in present):
        return []
    last = len(text_model.layers) - 1
    hooks = [
        layer.register_forward_pre_hook(partial(_before_layer, index), with_kwargs=True)
        for index, layer in enumerate(text_model.layers)
    ]
    return [*hooks, text_model.layers[last].register_forward_hook(partial(_after_last, last), with_kwargs=True)]


def _before_layer(
    index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Reduce, if the layer before was to. Give the layer the mask and the rotary embeddings of what is left."""
    plan: LayerPlan | None = kwargs.get(PLAN)
    if plan is None and not _is_cut_layer(cache_of(kwargs), index):
        return None
    with reduction_region():
        states: Tensor = args[0]
        if plan is not None and plan.reduces_after(index - 1):
            states = plan.reduce_after(index - 1, states)
        return (states, *args[1:]), _arguments(index, layer, states, kwargs)


def _arguments(index: int, layer: nn.Module, states: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a layer for what is left of the tokens."""
    plan: LayerPlan | None = kwargs.get(PLAN)
    stage = None if plan is None else plan.stage_before(index).to(states.device)
    is_cut = stage is not None and (stage.cut is not None or stage.key_weight is not None)
    cache = cache_of(kwargs)
    if not is_cut and not _is_cut_layer(cache, index):
        return kwargs
    if plan is None and kwargs.get("attention_mask") is None and cut_layer(cache, index).note_step(states.shape[1]):
        return kwargs
    changed = dict(kwargs)
    columns = torch.arange(states.shape[1], device=states.device).expand(states.shape[:2])
    if stage is not None and stage.cut is not None:
        columns = stage.cut.index
        changed["position_embeddings"] = tuple(
            _taken(part.to(states.device), columns) for part in kwargs["position_embeddings"]
        )
        changed["position_ids"] = None  # the embeddings are made already, and gaps would look like several texts
    if stage is not None and stage.key_weight is not None and stage.key_weight.requires_grad:
        changed[KEY_WEIGHT], stage, cache = stage.key_weight, replace(stage, key_weight=None), None
    num_read = states.shape[1] if plan is None else plan.real.shape[1]
    held = _held(cache, index, columns, num_read, stage)
    attention: Any = layer.self_attn
    mask = kwargs.get("attention_mask")
    # in a model that is spread over devices, the arguments are moved after this hook
    mask = None if mask is None else mask.to(states.device)
    changed["attention_mask"] = cut_mask(mask, columns, held, attention.is_causal)
    return changed


def _after_last(index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Bring what is left back to its columns."""
    plan: LayerPlan | None = kwargs.get(PLAN)
    if plan is None:
        return None
    with reduction_region():
        return plan.restore(index + 1, output)


def _is_cut_layer(cache: Any, index: int) -> bool:
    return cache is not None and index < len(cache.layers) and isinstance(cache.layers[index], CutLayer)


def _held(cache: Any, index: int, columns: Tensor, num_read: int, stage: Stage | None) -> Held:
    """Return the keys that a layer sees, and note them in the cache."""
    weight, padded = (None, None) if stage is None else (stage.key_weight, stage.padded)
    if cache is None:
        return Held(columns, 0, bool(padded), weight)
    layer = cut_layer(cache, index)
    offset = layer.get_mask_sizes(num_read)[1]
    layer.note(columns, num_read, weight, padded)
    assert layer.columns is not None, "it has been noted"
    outside = layer.window is not None and layer.seen > layer.window
    return Held(layer.columns, offset, layer.padded or outside, layer.weight)


def _taken(embeddings: Tensor, columns: Tensor) -> Tensor:
    """Return the rotary embeddings (..., B or 1, L, d) of some columns, long (B, L'): (..., B, L', d)."""
    shape = (*embeddings.shape[:-3], len(columns), *embeddings.shape[-2:])
    index = columns.clamp(min=0).unsqueeze(-1).expand(*shape[:-2], -1, shape[-1])
    return embeddings.expand(shape).gather(-2, index)
