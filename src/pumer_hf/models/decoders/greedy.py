"""The greedy answer of a decoder model, and how much its tokens attend to the prompt in the unreduced model."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...reducers import TokenReducer
from .calls import ReducedCalls
from .family import DecoderFamily
from .running import cut_already
from .text_rows import AnswerRows, text_rows


@torch.no_grad()
def greedy_answer(
    family: DecoderFamily,
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    number: int,
    reducer: TokenReducer | None = None,
) -> Tensor:
    """Return the first tokens of the greedy continuation of prompts, long (B, number).

    What follows the end of an answer is padding.

    Args:
        family: the family of the model.
        model: a model of the stock class or of ours. Its own reduction has no influence.
        inputs: keyword arguments of its forward, padded on the left. The images may be encoded already.
        number: how many tokens, at least 1.
        reducer: reduces the image tokens; None for the unreduced model.
    """
    given = with_own_outputs(inputs)
    if "position_ids" in given and not family.multimodal_rope:  # `generate` counts from 0
        given["position_ids"] = given["position_ids"] - family.first_position
    reducers = {} if reducer is None else {"inputs": reducer}
    calls = ReducedCalls(family, model, lambda: reducers)
    stock: Any = family.stock_class.generate
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": number, "num_beams": 1}
    with cut_already(model):
        found = calls.generate(stock.__get__(model), **given, **options)
    found = found[:, inputs["input_ids"].shape[1] :]
    return nn.functional.pad(found, (0, number - found.shape[1]), value=-1)  # all answers have ended early


def attention_of_answer(
    family: DecoderFamily, model: PreTrainedModel, inputs: Mapping[str, Any], layers: Sequence[int], number: int
) -> tuple[dict[int, Tensor], Tensor]:
    """Let an unreduced model answer greedily, and return how much the answer attends to the prompts.

    The row of a token of the answer is that of the token before it, from which it is predicted: first the last token
    of the prompt, then the tokens of the answer itself.

    Args:
        family: the family of the model.
        model: the model.
        inputs: keyword arguments of its forward, padded on the left.
        layers: indices of layers of the text model.
        number: how many tokens of the answer count at most, at least 1.

    Returns:
        By layer, float32 (B, R, L), the attention of the first R <= `number` tokens of each answer; and which of them
        count, bool (B, R). An answer counts up to its end. The token that ends it does not count, unless it is the
        first.
    """
    watched = AnswerRows(frozenset(layers), *inputs["input_ids"].shape)
    with text_rows(model, watched):
        answer = greedy_answer(family, model, inputs, number)
    rows = next(iter(watched.attention.values())).shape[1]
    ended = torch.isin(answer[:, :rows], end_tokens(model).to(answer.device)).cumsum(dim=1) > 0
    ended[:, 0] = False
    return watched.attention, ~ended


def end_tokens(model: PreTrainedModel) -> Tensor:
    """Return the tokens with which a model ends its answers, long (n,)."""
    config: Any = model.generation_config
    ends = config.eos_token_id
    return torch.tensor([] if ends is None else [ends] if isinstance(ends, int) else list(ends), dtype=torch.long)


def with_own_outputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs with a dict of their own for the encoded images. `generate` may change it."""
    encoded = inputs.get("mm_encoder_outputs")
    return dict(inputs) if encoded is None else {**inputs, "mm_encoder_outputs": dict(encoded)}
