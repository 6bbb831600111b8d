"""Model outputs: those of transformers, and `reduction`, the traces of the layers that reduced tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

from ...configuration import PuMerConfig
from ...tokens import LayerTrace

ChosenStates = bool | int | Sequence[int] | None
"""Which hidden states to return (`output_hidden_states`): all of them, or those at some indices. In the second case
the others are None. Negative indices count from the end.
"""

Attentions = tuple[Tensor | None, ...] | tuple[tuple[Tensor | None, ...], ...]

ATTENTIONS = ("attentions", "cross_attentions", "image_attentions", "image_cross_attentions")
"""The fields that hold attentions. METER fills them all, in this order; ViLT the first."""


@dataclass
class PuMerModelOutput(BaseModelOutputWithPooling):
    """The output of a backbone.

    If attentions are asked for, each field of them is a tuple with the probabilities of every layer, float
    (B, H, queries, keys). Gradients pass through them (`retain_grad`).

    Args:
        attentions: in ViLT, from the joined text and image to themselves; in METER, from text to text.
        cross_attentions: in METER, from text to image. If the block reduces tokens, the mean is the saliency (Eq. 1).
        image_attentions: in METER, from image to image, after the reduction of the block.
        image_cross_attentions: in METER, from image, after the reduction of the block, to text.
        reduction: one [`LayerTrace`] per reduction layer, in order; empty for an unreduced model.
    """

    cross_attentions: Attentions | None = None
    image_attentions: Attentions | None = None
    image_cross_attentions: Attentions | None = None
    reduction: tuple[LayerTrace, ...] | None = None


@dataclass
class PuMerClassifierOutput(SequenceClassifierOutput):
    """The output of a model with a head.

    With several images per example, `hidden_states` and the attentions hold one tuple per image.

    Args:
        cross_attentions: as in [`PuMerModelOutput`].
        image_attentions: as in [`PuMerModelOutput`].
        image_cross_attentions: as in [`PuMerModelOutput`].
        reduction: one [`LayerTrace`] per reduction layer, in order; empty for an unreduced model. Of several images,
            the traces of the first one come first.
    """

    cross_attentions: Attentions | None = None
    image_attentions: Attentions | None = None
    image_cross_attentions: Attentions | None = None
    reduction: tuple[LayerTrace, ...] | None = None


def chosen_states(output_hidden_states: ChosenStates, num_states: int) -> set[int] | None:
    """Return the indices of the hidden states to return, out of `num_states`; None for no tuple at all.

    An index that is out of range chooses nothing, as in transformers.
    """
    if not output_hidden_states:
        return None
    if isinstance(output_hidden_states, bool):
        return set(range(num_states))
    indices = [output_hidden_states] if isinstance(output_hidden_states, int) else output_hidden_states
    return {index % num_states for index in indices if -num_states <= index < num_states}


@dataclass
class LayerRecord:
    """What the layers of one forward add to its output: traces, and the hidden states and attentions asked for.

    Args:
        chosen: which hidden states to return; None for no tuple at all.
        with_attentions: whether to return the attentions.
    """

    chosen: set[int] | None
    with_attentions: bool
    hidden_states: list[Tensor | None] = field(default_factory=list)
    attentions: list[tuple[Tensor | None, ...]] = field(default_factory=list)
    traces: list[LayerTrace] = field(default_factory=list)

    @classmethod
    def asked(
        cls, config: PuMerConfig, output_attentions: bool | None, output_hidden_states: ChosenStates
    ) -> "LayerRecord":
        """Make a record of what a caller asks for. For None, the value in `config` counts."""
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        chosen = chosen_states(output_hidden_states, 1 + config.num_reducible_layers)
        return cls(chosen, bool(output_attentions))

    @property
    def wants_states(self) -> bool:
        """Whether the next hidden states are asked for."""
        return self.chosen is not None and len(self.hidden_states) in self.chosen

    def add_states(self, states: Tensor | None) -> None:
        """Record the next hidden states, if they are asked for."""
        self.hidden_states.append(states if self.wants_states else None)

    def add_layer(self, attentions: tuple[Tensor | None, ...], trace: LayerTrace | None) -> None:
        """Record the attentions of a layer, if they are asked for, and the trace of its reduction, if it reduces."""
        if self.with_attentions:
            self.attentions.append(attentions)
        self.add_trace(trace)

    def add_trace(self, trace: LayerTrace | None) -> None:
        """Record the trace of a reduction, if there is one."""
        if trace is not None:
            self.traces.append(trace)

    def fields(self) -> dict[str, Any]:
        """Return the fields of [`PuMerModelOutput`] that the record fills."""
        # The first layer says how many kinds of attention the family has.
        kinds = zip(ATTENTIONS, zip(*self.attentions, strict=True), strict=False)
        return {
            "hidden_states": None if self.chosen is None else tuple(self.hidden_states),
            "reduction": tuple(self.traces),
            **dict(kinds),
        }


def fields_of_one(outputs: PuMerModelOutput) -> dict[str, Any]:
    """Return the fields of [`PuMerClassifierOutput`] from a backbone that ran once."""
    return {name: getattr(outputs, name) for name in ("hidden_states", "reduction", *ATTENTIONS)}


def fields_per_image(passes: Sequence[PuMerModelOutput]) -> dict[str, Any]:
    """Return the fields of [`PuMerClassifierOutput`] from a backbone that ran once for each image."""

    def per_image(name: str) -> tuple[Any, ...] | None:
        values = [getattr(outputs, name) for outputs in passes]
        return None if values[0] is None else tuple(values)

    traces = tuple(
        replace(trace, image_index=index) for index, outputs in enumerate(passes) for trace in outputs.reduction or ()
    )
    return {"reduction": traces, **{name: per_image(name) for name in ("hidden_states", *ATTENTIONS)}}
