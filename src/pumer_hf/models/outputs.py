"""Model outputs: the transformers types plus `reduction`, the traces of the layers that reduced tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

from ..tokens import LayerTrace


@dataclass
class PuMerModelOutput(BaseModelOutputWithPooling):
    """
    Args:
        reduction: one [`LayerTrace`] per reduction layer, in order; empty for an unreduced model.
    """

    reduction: tuple[LayerTrace, ...] | None = None


@dataclass
class PuMerClassifierOutput(SequenceClassifierOutput):
    """
    Args:
        reduction: one [`LayerTrace`] per reduction layer, in order; empty for an unreduced model. With several images
            per example, those of the first image come first; `hidden_states` and `attentions` then hold one tuple per
            image.
    """

    reduction: tuple[LayerTrace, ...] | None = None


def single_output(outputs: PuMerModelOutput, logits: Tensor, loss: Tensor | None) -> PuMerClassifierOutput:
    """What a head returns whose backbone ran once."""
    return PuMerClassifierOutput(
        loss=loss,
        logits=logits,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
        reduction=outputs.reduction,
    )


def joint_output(passes: Sequence[PuMerModelOutput], logits: Tensor, loss: Tensor | None) -> PuMerClassifierOutput:
    """What a head returns whose backbone ran once for each image."""
    return PuMerClassifierOutput(
        loss=loss,
        logits=logits,
        hidden_states=tuple(outputs.hidden_states for outputs in passes) if passes[0].hidden_states else None,
        attentions=tuple(outputs.attentions for outputs in passes) if passes[0].attentions else None,
        reduction=tuple(
            replace(trace, image_index=index)
            for index, outputs in enumerate(passes)
            for trace in outputs.reduction or ()
        ),
    )
