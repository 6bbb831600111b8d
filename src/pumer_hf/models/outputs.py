"""Model outputs: the transformers types plus `reduction`, the traces of the layers that reduced tokens."""

from dataclasses import dataclass

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
        reduction: one [`LayerTrace`] per reduction layer, in order; empty for an unreduced model. With several images per
            example, those of the first image come first; `hidden_states` and `attentions` then hold one tuple per image.
    """

    reduction: tuple[LayerTrace, ...] | None = None
