"""Model outputs: the transformers types plus `reduction`, the traces of the layers that reduced tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

from ...tokens import LayerTrace

ChosenStates = bool | int | Sequence[int] | None
"""Which hidden states to return (`output_hidden_states`): all, or those at some indices, where None stands for the
others. Negative indices count from the end.
"""

Attentions = tuple[Tensor | None, ...] | tuple[tuple[Tensor | None, ...], ...]

ATTENTIONS = ("attentions", "cross_attentions", "image_attentions", "image_cross_attentions")
"""The fields that hold attentions. METER fills them all, in this order; ViLT the first."""


@dataclass
class PuMerModelOutput(BaseModelOutputWithPooling):
    """
    Each of the attentions is a tuple with the probabilities of every layer, float (B, H, queries, keys), where they
    were asked for. They are as they act on the values, so gradients pass through them (`retain_grad`).

    Args:
        attentions: ViLT: text and image, joined, to themselves. METER: text to text.
        cross_attentions: METER: text to image. Where the pair reduces tokens, its mean is the saliency (Eq. 1).
        image_attentions: METER: image to image, after the reduction of the pair.
        image_cross_attentions: METER: image, after the reduction of the pair, to text.
        reduction: one [`LayerTrace`] per reduction layer, in order; empty for an unreduced model.
    """

    cross_attentions: Attentions | None = None
    image_attentions: Attentions | None = None
    image_cross_attentions: Attentions | None = None
    reduction: tuple[LayerTrace, ...] | None = None


@dataclass
class PuMerClassifierOutput(SequenceClassifierOutput):
    """
    Args:
        cross_attentions: this and the next two as in [`PuMerModelOutput`].
        image_attentions: METER only.
        image_cross_attentions: METER only.
        reduction: one [`LayerTrace`] per reduction layer, in order; empty for an unreduced model. With several images
            per example, those of the first image come first; `hidden_states` and the attentions then hold one tuple
            per image.
    """

    cross_attentions: Attentions | None = None
    image_attentions: Attentions | None = None
    image_cross_attentions: Attentions | None = None
    reduction: tuple[LayerTrace, ...] | None = None


def chosen_states(output_hidden_states: ChosenStates, num_states: int) -> set[int] | None:
    """Which of `num_states` hidden states to return; None for no tuple at all. An index out of range chooses nothing,
    as in transformers.
    """
    if not output_hidden_states:
        return None
    if isinstance(output_hidden_states, bool):
        return set(range(num_states))
    indices = [output_hidden_states] if isinstance(output_hidden_states, int) else output_hidden_states
    return {index % num_states for index in indices if -num_states <= index < num_states}


def single_output(outputs: PuMerModelOutput, logits: Tensor, loss: Tensor | None) -> PuMerClassifierOutput:
    """What a head returns whose backbone ran once."""
    return PuMerClassifierOutput(
        loss=loss,
        logits=logits,
        hidden_states=outputs.hidden_states,
        reduction=outputs.reduction,
        **{name: getattr(outputs, name) for name in ATTENTIONS},
    )


def joint_output(passes: Sequence[PuMerModelOutput], logits: Tensor, loss: Tensor | None) -> PuMerClassifierOutput:
    """What a head returns whose backbone ran once for each image."""

    def per_image(name: str) -> tuple[Any, ...] | None:
        values = [getattr(outputs, name) for outputs in passes]
        return None if values[0] is None else tuple(values)

    return PuMerClassifierOutput(
        loss=loss,
        logits=logits,
        hidden_states=per_image("hidden_states"),
        reduction=tuple(
            replace(trace, image_index=index)
            for index, outputs in enumerate(passes)
            for trace in outputs.reduction or ()
        ),
        **{name: per_image(name) for name in ATTENTIONS},
    )
