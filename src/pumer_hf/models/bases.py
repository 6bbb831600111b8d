"""`Base`: a frozen model behind which a scorer of `lookahead` is trained, of an encoder or of a decoder.

The training asks the same of both: what comes into a site, where later layers attend, and what the model answers.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..reducers import ReductionConfig, TokenReducer
from ..reducers.lookahead import ALL_LAYERS, LookaheadReducer, LookaheadReductionConfig, TargetLayer
from .decoders.attached import StockHost
from .decoders.calls import ReducedCalls
from .decoders.family import DecoderFamily
from .decoders.greedy import greedy_answer, with_own_outputs
from .decoders.modeling import ReducedDecoder
from .decoders.observing import ROWS, observe_decoder, with_encoded_images
from .decoders.running import cut_already
from .decoders.site import has_images
from .decoders.text_rows import attending_layers
from .encoders.base import PuMerPreTrainedModel
from .encoders.heads import ClassifierHead
from .observing import Observation, observe
from .reduced import decoder_of
from .reducible import reduction_of

Inputs = Mapping[str, Any]
NO_INPUTS = ("labels", "teacher_logits")
"""What a batch may have that a base does not read."""


@dataclass(frozen=True)
class Target:
    """Which attention a scorer learns to predict, and which answers it learns to keep. This is for decoders.

    Args:
        rows: whose attention counts. `"question"`: that of all tokens after the image. `"answer"`: that of the tokens
            from which the greedy answer is predicted. An encoder has the first alone.
        answer_tokens: how many tokens of the greedy answer count, at least 1: they must stay the same, and with
            `rows="answer"` their attention is the target.

    Raises:
        ValueError: a value is wrong.
    """

    rows: str = "question"
    answer_tokens: int = 1

    def __post_init__(self) -> None:
        if self.rows not in ROWS:
            raise ValueError(f"target_rows={self.rows!r}: choose one of {', '.join(ROWS)}")
        if isinstance(self.answer_tokens, bool) or not isinstance(self.answer_tokens, int) or self.answer_tokens < 1:
            raise ValueError(f"answer_tokens={self.answer_tokens!r}: must be an integer of at least 1")


class Base(ABC):
    """A frozen model behind which a scorer is trained.

    Args:
        model: the model, without what wraps it.
        target: which attention and which answers count.
    """

    def __init__(self, model: PreTrainedModel, target: Target):
        self.model, self.target = model, target

    @property
    @abstractmethod
    def host(self) -> Any:
        """What holds the scorer, and makes reducers: the backbone of our classes, a [`StockHost`] of a stock model."""

    @property
    @abstractmethod
    def layers(self) -> tuple[int, ...]:
        """The layers whose attention can be observed."""

    @abstractmethod
    def prepared(self, inputs: Inputs) -> dict[str, Any]:
        """Return the inputs without labels, for several calls of this object. A decoder's images are then encoded."""

    def observe(
        self, inputs: Inputs, targets: Sequence[TargetLayer], config: LookaheadReductionConfig
    ) -> Sequence[Observation]:
        """Return what comes into the site of a part of a schedule, and where later layers attend.

        Args:
            inputs: keyword arguments of the model.
            targets: indices of layers, and `"all"` for the mean of all layers; `()` for none.
            config: the part.

        Returns:
            An observation for each number of patches that an image of the batch has.
        """
        layers = self.layers if ALL_LAYERS in targets else [layer for layer in targets if isinstance(layer, int)]
        seen = self.observe_layers(inputs, layers, config)
        if ALL_LAYERS not in targets:
            return seen
        means = [torch.stack([one.attention[layer] for layer in layers]).mean(dim=0) for one in seen]
        return [
            replace(one, attention={**one.attention, ALL_LAYERS: mean}) for one, mean in zip(seen, means, strict=True)
        ]

    @abstractmethod
    def observe_layers(
        self, inputs: Inputs, layers: Sequence[int], config: LookaheadReductionConfig
    ) -> Sequence[Observation]:
        """Do the work of [`observe`] for layers."""

    @abstractmethod
    def answers(self, inputs: Inputs, reducers: Mapping[str, TokenReducer]) -> Tensor:
        """Return the answer to each example, long (B, n), with the reducers that are given by site; `{}` for none."""

    @abstractmethod
    def check_answers(self) -> None:
        """Raise `ValueError` if the model has no answers to compare, or takes several images per text."""

    @abstractmethod
    def check(self, part: ReductionConfig) -> None:
        """Raise `ValueError` if the model cannot reduce by a part of a schedule."""

    @abstractmethod
    def put(self, reducer: LookaheadReducer) -> None:
        """Make a scorer the only reduction of the model."""

    @property
    def movable(self) -> bool:
        """Whether the model can be moved to another device as a whole."""
        return True

    @property
    def lookahead(self) -> LookaheadReducer:
        """The module that carries out `lookahead` in the model.

        Raises:
            ValueError: the model does not reduce with this method.
        """
        for reducer in self.host.token_reduction.part_reducers:
            if isinstance(reducer, LookaheadReducer):
                return reducer
        raise ValueError("the reduction of the model has no part of method 'lookahead': call add_scorer first")


class EncoderBase(Base):
    """ViLT or METER, with a head that classifies."""

    @property
    def host(self) -> Any:
        return reduction_of(self.model).model

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(range(self.host.config.sites["layers"]))

    def prepared(self, inputs: Inputs) -> dict[str, Any]:
        return {name: value for name, value in inputs.items() if name not in NO_INPUTS}

    def observe_layers(
        self, inputs: Inputs, layers: Sequence[int], config: LookaheadReductionConfig
    ) -> Sequence[Observation]:
        tower_layer = config.layers[0] if config.layers else None
        return [observe(self.model, self.prepared(inputs), layers, config.site, tower_layer)]

    def answers(self, inputs: Inputs, reducers: Mapping[str, TokenReducer]) -> Tensor:
        with self.host.token_reduction.using(reducers):
            return self.model(**self.prepared(inputs)).logits.argmax(dim=-1, keepdim=True)

    def check_answers(self) -> None:
        if self.target != Target():
            raise ValueError(f"{self.target}: only decoder models have answers of several tokens, and rows to choose")
        if not isinstance(self.model, ClassifierHead):
            raise ValueError(
                f"{type(self.model).__name__}: answers are compared for a decoder model, or for one that classifies "
                "one image and one text (VQA, SNLI-VE)"
            )

    def check(self, part: ReductionConfig) -> None:
        self.host.config.checked(part)

    def put(self, reducer: LookaheadReducer) -> None:
        put_into(self.host, reducer)


class DecoderBase(Base):
    """A decoder model of transformers, of its stock class or of ours.

    Its answer is what the model says first: the first tokens of its greedy continuation of the prompt.
    """

    def __init__(self, family: DecoderFamily, model: PreTrainedModel, target: Target):
        super().__init__(model, target)
        self.family = family

    @property
    def host(self) -> Any:
        return self.model if isinstance(self.model, ReducedDecoder) else StockHost(self.model)

    @property
    def layers(self) -> tuple[int, ...]:
        return attending_layers(self.model)

    @property
    def movable(self) -> bool:
        # transformers sets these attributes on a model that is quantised, or spread over devices
        return all(getattr(self.model, name, None) is None for name in ("hf_quantizer", "hf_device_map"))

    def prepared(self, inputs: Inputs) -> dict[str, Any]:
        return with_encoded_images(self.family, self.model, inputs)

    def observe_layers(
        self, inputs: Inputs, layers: Sequence[int], config: LookaheadReductionConfig
    ) -> Sequence[Observation]:
        return observe_decoder(
            self.family,
            self.model,
            inputs,
            layers,
            together=config.per_prompt,
            rows=self.target.rows,
            answer_tokens=self.target.answer_tokens,
        )

    @torch.no_grad()
    def answers(self, inputs: Inputs, reducers: Mapping[str, TokenReducer]) -> Tensor:
        inputs = self.prepared(inputs)
        if self.target.answer_tokens > 1:
            return greedy_answer(self.family, self.model, inputs, self.target.answer_tokens, reducers.get("inputs"))
        if reducers and has_images(inputs):
            calls = ReducedCalls(self.family, self.model, lambda: reducers)
            inputs = calls.prepare(inputs, generating=False).inputs
        with cut_already(self.model):
            logits = self.model(**with_own_outputs(inputs), use_cache=False).logits
        places = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
        last = places.masked_fill(inputs["attention_mask"].to(logits.device) == 0, -1).amax(dim=1)
        return logits[torch.arange(len(logits), device=logits.device), last].argmax(dim=-1, keepdim=True)

    def check_answers(self) -> None:
        pass  # each decoder answers

    def check(self, part: ReductionConfig) -> None:
        self.family.check_part(self.model.config, part)

    def put(self, reducer: LookaheadReducer) -> None:
        if isinstance(self.model, ReducedDecoder):
            put_into(self.model, reducer)
        else:
            reducer.to(device=self.model.device, dtype=self.model.dtype)
            self.host.set_scorer(reducer.eval())


def put_into(backbone: Any, reducer: LookaheadReducer) -> None:
    """Make a scorer the only reduction of a backbone of ours."""
    reduction = backbone.token_reduction
    reduction.set(None)
    # The scorer keeps torch's first values, which suit any width. Those of the model may be too small for it.
    backbone.learned_apart.append(reducer)
    reduction.set(reducer.config)


def base_of(model: nn.Module | Base, target: Target | None = None) -> Base:
    """Return a model as the base of a scorer.

    Args:
        model: an encoder of ours, a decoder of transformers' own class or of ours, or what wraps one; or a base, which
            is returned as it is unless another target is given.
        target: which attention and which answers count, for a decoder; default: [`Target`]'s.

    Raises:
        ValueError: no scorer can be trained for such a model.
    """
    if isinstance(model, Base):
        return model if target in (None, model.target) else base_of(model.model, target)
    target = target or Target()
    for module in model.modules():
        if isinstance(module, PuMerPreTrainedModel):
            return EncoderBase(module, target)
    return DecoderBase(*decoder_of(model), target)
