"""The model that is tuned: an encoder or a decoder. It runs with any of the schedules that are tried."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn
from transformers import AutoProcessor, ProcessorMixin

from ..bench.contenders import DTYPES, BenchOptions, checked_text_length, contender, torch_options
from ..bench.profiles import untouched_share
from ..bench.throughput import interleaved_times, median_ratio
from ..models.budget import ForwardCounter, Search
from ..models.decoder_loading import is_decoder, load_decoder
from ..models.decoders.modeling import ReducedDecoder
from ..models.decoders.random_inputs import prompts
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.loading import load_checkpoint_model, load_processor, naming
from ..reducers import Schedule, TokenReducer
from ..reducers.budget import with_budget
from ..reducers.mass import check_fixed_lengths
from .finder import MeasureSpeeds
from .options import TuneOptions

TEXT_TOKENS = 32
"""Words of a decoder's prompt, unless another number is asked for."""
WARMUP = 2
"""Rounds before a measurement that do not count."""


class Form(NamedTuple):
    """The model with a schedule, or without one, on the batch of the measurement."""

    model: nn.Module
    """The model, not compiled."""
    eager: Callable[[], Any]
    """A forward that is not compiled."""
    timed: Callable[[], Any]
    """The forward that is timed."""


class Subject(ABC):
    """A model that is tuned, on its device and in its precision, in eval mode.

    Args:
        source: where it was loaded from.
        model: the model.
        options: what is asked for.
    """

    usual: ClassVar[Mapping[str, Any]]
    """The schedule to scale if neither the options nor the checkpoint have one."""
    of_a_run: ClassVar[str]
    """What is measured, in words."""

    def __init__(self, source: str, model: Any, options: TuneOptions):
        self.source, self.options, self.measuring = source, options, options.measuring
        self.model: Any = model

    @property
    @abstractmethod
    def text_length(self) -> int:
        """Tokens of each text in a measurement, without padding."""

    @abstractmethod
    def form(self, schedule: Schedule | None) -> Form:
        """Return the model with a schedule. Several forms can be used in turn."""

    @abstractmethod
    def processor(self) -> ProcessorMixin:
        """Load the processor of the model."""

    def search(self, reduction: Any) -> Search:
        """Return the scaled forms of a schedule, which may lack layers and ratios.

        Raises:
            ValueError: the schedule is wrong, does not fit the model, or removes nothing.
        """
        schedule = self.model.config.checked(with_budget(reduction, 1 / self.options.speed))
        check_fixed_lengths(schedule.parts, "the inputs of the measurement are random")
        return Search(schedule, self.counter)

    @cached_property
    def counter(self) -> ForwardCounter:
        """What counts the FLOPs of the model."""
        return self.model.token_reduction.model.flops_counter()

    @cached_property
    def unreduced(self) -> Form:
        """The unreduced model."""
        return self.form(None)

    def stopwatch(self, search: Search, on_round: Callable[[], None] | None = None) -> MeasureSpeeds:
        """Return what measures options of a search, interleaved with the unreduced model.

        Args:
            search: where the options come from.
            on_round: called after each round.
        """
        known: dict[int, Form] = {}

        @torch.inference_mode()
        def measure(wanted: Sequence[int]) -> list[float]:
            for index in wanted:
                if index not in known:  # a compiled form is not compiled again
                    known[index] = self.form(search.options[index])
            calls = {"unreduced": self.unreduced.timed, **{str(index): known[index].timed for index in wanted}}
            with torch_options(self.measuring):
                times = interleaved_times(
                    calls,
                    warmup=WARMUP,
                    seconds=self.measuring.seconds,
                    on_cuda=self.measuring.device == "cuda",
                    on_round=on_round,
                )
            return [median_ratio(times["unreduced"], times[str(index)]) for index in wanted]

        return measure

    def untouched(self, schedule: Schedule) -> float:
        """Measure the part of the unreduced model's time, in [0, 1], that a schedule cannot touch."""
        reduced = self.form(schedule)
        calls = (self.unreduced.eager, reduced.eager)
        return untouched_share((self.unreduced.model, reduced.model), calls, torch.device(self.measuring.device))


class EncoderSubject(Subject):
    """An encoder. Its forms are copies that share its weights, so that nothing is changed within a measurement."""

    usual: ClassVar = {"method": "pumer"}
    of_a_run: ClassVar = "the forward"
    model: PuMerPreTrainedModel

    @property
    def text_length(self) -> int:
        return checked_text_length(self.model, self.options.text_length)

    def form(self, schedule: Schedule | None) -> Form:
        shared: dict[int, Any] = {id(one): one for one in (*self.model.parameters(), *self.model.buffers())}
        model = copy.deepcopy(self.model, shared)
        model.set_reduction(schedule)
        one = contender(model, self.text_length, self.measuring)
        inputs = one.inputs(batch_size_of(self.measuring))
        return Form(one.eager, partial(one.eager, **inputs), partial(one.run, **inputs))

    def processor(self) -> ProcessorMixin:
        return load_processor(self.source, self.model.config.max_text_length)


class DecoderSubject(Subject):
    """A decoder. Its prefill is measured, up to the logits of the first new token. All forms are the same object."""

    usual: ClassVar = {"method": "pumer", "site": "inputs"}
    of_a_run: ClassVar = "the prefill"
    model: ReducedDecoder

    @property
    def text_length(self) -> int:
        return TEXT_TOKENS if self.options.text_length is None else self.options.text_length

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The batch of the measurement."""
        return prompts(self.model, batch_size_of(self.measuring), self.text_length, self.options.image_tokens)

    def form(self, schedule: Schedule | None) -> Form:
        reducers = {} if schedule is None else self.counter.reducers(schedule)
        call = partial(self.prefill, reducers)
        return Form(self.model, call, call)

    def prefill(self, reducers: Mapping[str, TokenReducer]) -> None:
        """Run the model up to the logits of the first new token, with some reducers."""
        with self.model.token_reduction.using(reducers):
            self.model(**self.inputs, use_cache=True, logits_to_keep=1)

    def processor(self) -> ProcessorMixin:
        with naming(repr(self.source), self.source, "processor"):
            return AutoProcessor.from_pretrained(self.source, trust_remote_code=False)


def batch_size_of(measuring: BenchOptions) -> int:
    """Return the batch size, which is a number here."""
    assert measuring.batch_size is not None, "`TuneOptions` has looked"
    return measuring.batch_size


def load_subject(source: str, options: TuneOptions) -> Subject:
    """Load the model to tune.

    Args:
        source: a folder, or an id on the Hub.
        options: what is asked for.

    Raises:
        ValueError: there is no such model, or an option does not suit it.
    """
    dtype, device = DTYPES[options.measuring.dtype], options.measuring.device
    if is_decoder(source):
        if options.measuring.compile:
            raise ValueError("compile=True: only encoders are tuned compiled: leave it out for a decoder")
        return DecoderSubject(source, load_decoder(source, dtype=dtype, device=device), options)
    if options.image_tokens is not None:
        raise ValueError(f"image_tokens={options.image_tokens}: only for decoder models, and {source} is none")
    return EncoderSubject(source, load_checkpoint_model(source).to(device=device, dtype=dtype).eval(), options)
