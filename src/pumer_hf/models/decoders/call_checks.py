"""The arguments of a call with which image tokens cannot be reduced. Each is an error that says what to do."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import PreTrainedModel, StaticCache

from .cut_cache import cache_of, check_cache
from .prompt import IGNORED

REPEATS_IMAGES = Version(transformers.__version__) >= Version("5.20")
"""Whether `generate` repeats the images of each prompt in the right order, for beams and several answers."""
UNKNOWN_TO_GENERATE = (
    "inputs_embeds",
    "assistant_model",
    "prompt_lookup_num_tokens",
    "prefill_chunk_size",
    "negative_prompt_ids",
    "custom_generate",
)
"""Arguments of `generate` with which prompts cannot be cut."""


def check_call(model: PreTrainedModel, sites: Collection[str], inputs: Mapping[str, Any], generating: bool) -> None:
    """Raise `ValueError` if an argument of a call is one with which image tokens cannot be reduced.

    Args:
        model: the model.
        sites: the sites at which it reduces.
        inputs: keyword arguments of `forward` or `generate`, with images.
        generating: whether they are those of `generate`.
    """
    if inputs.get("input_ids") is None:
        raise ValueError("inputs_embeds: image tokens can only be reduced if the prompt is given as input_ids")
    mask = inputs.get("attention_mask")
    if mask is not None and (not isinstance(mask, Tensor) or mask.ndim != inputs["input_ids"].ndim):
        raise ValueError(
            "attention_mask: must be a tensor (B, L) where image tokens are reduced, so several questions cannot "
            "share a row: give each a row of its own"
        )
    if inputs.get("pixel_values_videos") is not None:
        raise ValueError("pixel_values_videos: the tokens of videos cannot be reduced yet: set_reduction(None)")
    if isinstance(cache_of(inputs), StaticCache):
        raise ValueError("past_key_values: a StaticCache cannot hold a cut prompt: use a DynamicCache")
    cache = cache_of(inputs)
    if "layers" in sites and cache is not None:
        check_cache(cache)
    if "inputs" in sites and cache is not None and cache.get_seq_length() > 0:
        raise ValueError(
            "past_key_values: the cache holds tokens already, and an image after them cannot be reduced: give the "
            "whole chat and its images without past_key_values, or set reduction.reread"
        )
    if generating:
        _check_generate(model, sites, inputs)


def _check_generate(model: PreTrainedModel, sites: Collection[str], inputs: Mapping[str, Any]) -> None:
    config = inputs.get("generation_config") or model.generation_config
    for name in UNKNOWN_TO_GENERATE:
        if inputs.get(name) is not None or getattr(config, name, None) is not None:
            raise ValueError(f"{name}: cannot be used while image tokens are reduced: set_reduction(None)")
    for name in () if REPEATS_IMAGES else ("num_beams", "num_return_sequences"):
        value = inputs.get(name, getattr(config, name, None))
        if (value or 1) > 1:
            raise ValueError(
                f"{name}={value}: transformers {transformers.__version__} repeats image tokens in a wrong order: "
                "install 5.20 or newer"
            )
    implementation = inputs.get("cache_implementation") or getattr(config, "cache_implementation", None)
    if implementation is None or str(implementation).startswith("dynamic"):
        return
    if not str(implementation).startswith(("offloaded", "quantized")):
        raise ValueError(
            f"cache_implementation={implementation!r}: its length is fixed before the prompt is cut: use 'dynamic'"
        )
    if "layers" in sites:
        raise ValueError(
            f"cache_implementation={implementation!r}: a reduction inside the decoder needs layers that hold "
            "different numbers of tokens: use 'dynamic'"
        )


def check_labels(labels: Tensor | None, is_image: Tensor) -> None:
    """Raise `ValueError` if an image token has a label.

    Args:
        labels: long (B, L) or None.
        is_image: bool (B, L), True for a placeholder.
    """
    if labels is not None and bool((labels[is_image] != IGNORED).any()):
        raise ValueError(f"labels: an image placeholder has a label: set it to {IGNORED}, so that no loss counts it")


def check_predicting(labels: Tensor | None, is_image: Tensor, real: Tensor) -> None:
    """Raise `ValueError` if an image token predicts a token, since it may be cut inside the decoder.

    Args:
        labels: long (B, L) or None.
        is_image: bool (B, L), True for a placeholder.
        real: bool (B, L), False for padding.
    """
    columns = torch.arange(real.shape[1], device=real.device)
    last = torch.where(real, columns, 0).amax(dim=1, keepdim=True)
    if bool(is_image.gather(1, last).any()):
        raise ValueError(
            "input_ids: a prompt ends with its image, whose last token may be cut inside the decoder, and the answer "
            "is predicted from it: put the question after the image, or reduce at site 'inputs'"
        )
    if labels is not None and bool((labels[:, 1:] != IGNORED)[is_image[:, :-1]].any()):
        raise ValueError(
            "labels: an answer begins right after an image, whose last token may be cut inside the decoder, and the "
            "answer is predicted from it: put a token between them, or reduce at site 'inputs'"
        )
