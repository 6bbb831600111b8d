"""`observe_decoder` runs an unreduced decoder once, to see its image tokens and where the text attends to them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...reducers.lookahead import TargetLayer
from ...tokens import NUM_PREFIX_TOKENS
from ..observing import Observation
from .family import DecoderFamily
from .greedy import attention_of_answer, with_own_outputs
from .images import image_groups
from .prompt import contiguous_positions
from .running import cut_already
from .site import SiteTokens, encoded_images, has_images
from .text_rows import TextRows, attending_layers, text_rows

ROWS = ("question", "answer")
"""Whose attention to the image tokens counts: that of the tokens after the image, or that of the tokens from which the
model's own greedy answer is predicted."""


@torch.no_grad()
def with_encoded_images(family: DecoderFamily, model: PreTrainedModel, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a forward in which the images are encoded. Several forwards then share this work.

    They have the positions that `generate` would use, so that padding on the left changes nothing. Labels are left
    out.

    Args:
        family: the family of the model.
        model: the model.
        inputs: keyword arguments of its forward.
    """
    inputs = {name: value for name, value in inputs.items() if name not in ("labels", "teacher_logits")}
    if not has_images(inputs) or encoded_images(inputs) is not None:
        return inputs
    site = SiteTokens.of(family, model, inputs)
    positions = contiguous_positions(site.real.long())
    if not family.multimodal_rope:
        positions = positions + family.first_position
    else:
        space = family.space_positions(model, inputs, generating=False).to(positions.device)
        positions = torch.cat([positions.unsqueeze(0), space])
    return {**site.rest_of(inputs), "position_ids": positions, "mm_encoder_outputs": {"image": site.images.output}}


@torch.no_grad()
def observe_decoder(
    family: DecoderFamily,
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    layers: Sequence[int],
    *,
    together: bool = False,
    rows: str = "question",
    answer_tokens: int = 1,
) -> list[Observation]:
    """Run an unreduced decoder once. Return its image tokens, and how much the text attends to them in some layers.

    The attention is that of whole rows of the stock model, averaged over heads and rows, and normalised over the
    image (PuMer, Eq. 1). It is computed beside the model's own kernel. The layers after the last one of `layers` do
    not run; without `layers` the decoder does not run at all.

    A decoder reads from left to right, so only what stands after an image can attend to it. With `rows="question"`
    these are all tokens of the prompt after the image but image tokens: the question, what separates it, and the
    tokens that begin the answer. If the question stands before the image, only the latter are left. With
    `rows="answer"` these are the tokens from which the model predicts the first tokens of its greedy answer: the last
    token of the prompt, and, with `answer_tokens` above 1, those of the answer itself ([`attention_of_answer`]). For
    the latter the model generates the answer, so that all layers run.

    Args:
        family: the family of the model.
        model: a model of the stock class or of ours, in eval mode. Its own reduction has no influence.
        inputs: keyword arguments of its forward, with at least one image. The images may be encoded already
            ([`with_encoded_images`]).
        layers: indices of layers of the text model.
        together: whether all images of a prompt count as one.
        rows: one of [`ROWS`].
        answer_tokens: how many tokens of the answer count with `rows="answer"`, at least 1. If there are several, the
            prompts must be padded on the left.

    Returns:
        An observation for each number of image tokens that an image of the batch has.

    Raises:
        ValueError: the model is in training mode or has no such layer, the batch has no image, or nothing stands after
            an image.
    """
    check_observable(model, layers, rows)
    if not has_images(inputs):
        raise ValueError("pixel_values: the batch has no image: give prompts with images")
    inputs = with_encoded_images(family, model, inputs)
    site = SiteTokens.of(family, model, inputs)
    groups = list(image_groups(site.features, site.placeholders, site.words, together))
    begins = [site.placeholders.columns[members[:, -1]] for members, _ in groups]
    prompts = [site.placeholders.rows[members[:, 0]] for members, _ in groups]
    places, is_row = places_of_rows(site, rows)
    found: dict[int, Tensor] = {}
    if layers and rows == "answer" and answer_tokens > 1:
        found, is_row = attention_of_answer(family, model, inputs, layers, answer_tokens)
        places = places + torch.arange(is_row.shape[1], device=places.device)
    elif layers:
        wanted = TextRows(places, frozenset(layers))
        with cut_already(model), text_rows(model, wanted):
            model(**with_own_outputs(inputs), use_cache=False)
        found = wanted.attention
    seen = []
    for (members, pair), last, prompt in zip(groups, begins, prompts, strict=True):
        counts = is_row[prompt] & (places[prompt] > last.unsqueeze(1))
        if not bool(counts.any(dim=1).all()):
            raise ValueError("input_ids: a prompt ends with its image: put the question after it, or begin the answer")
        columns = site.placeholders.columns[members]
        attention: dict[TargetLayer, Tensor] = {
            layer: attention_to(whole.to(counts.device), prompt, counts, columns) for layer, whole in found.items()
        }
        seen.append(Observation(pair, pair.image.states[:, NUM_PREFIX_TOKENS:], attention, prompt))
    return seen


def check_observable(model: PreTrainedModel, layers: Sequence[int], rows: str) -> None:
    """Raise `ValueError` if [`observe_decoder`] cannot see these layers of a model."""
    if model.training:
        raise ValueError(
            "the model is in training mode, in which its dropout changes the attention: call model.eval()"
        )
    if rows not in ROWS:
        raise ValueError(f"rows={rows!r}: choose one of {', '.join(ROWS)}")
    known = attending_layers(model)
    for layer in layers:
        if layer not in known:
            raise ValueError(
                f"layers={list(layers)}: layer {layer} has no attention to see: choose of {', '.join(map(str, known))}"
            )


def places_of_rows(site: SiteTokens, rows: str) -> tuple[Tensor, Tensor]:
    """Return the columns of the tokens whose attention counts, long (B, R), and which of them are real, bool (B, R).

    Args:
        site: the batch.
        rows: one of [`ROWS`].
    """
    columns = torch.arange(site.real.shape[1], device=site.real.device).expand_as(site.real)
    last = columns.masked_fill(~site.real, -1).amax(dim=1, keepdim=True)
    if rows == "answer":
        return last, torch.ones_like(last, dtype=torch.bool)
    first_image = columns.masked_fill(~site.is_image, columns.shape[1]).amin(dim=1, keepdim=True)
    counts = site.real & ~site.is_image & (columns > first_image)
    most = max(int(counts.sum(dim=1).max()), 1)
    order = (~counts).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return order, counts.gather(1, order)


def attention_to(whole: Tensor, prompts: Tensor, counts: Tensor, columns: Tensor) -> Tensor:
    """Return the attention of the text to the tokens of some images, float32 (G, P), normalised over each image.

    Args:
        whole: float (B, R, L), the attention of the rows of each prompt.
        prompts: long (G,), the prompt of each image.
        counts: bool (G, R), the rows that count for it.
        columns: long (G, P), the places of its tokens in the prompt.
    """
    weight = counts.to(whole.dtype) / counts.sum(dim=1, keepdim=True)
    mean = (weight.unsqueeze(1) @ whole[prompts]).squeeze(1)
    attention = mean.gather(1, columns)
    return attention / attention.sum(dim=1, keepdim=True).clamp(min=torch.finfo(attention.dtype).tiny)
