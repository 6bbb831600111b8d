"""The model that is tuned: an encoder or a decoder. It measures schedules, and answers questions with them."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from transformers import AutoProcessor, ProcessorMixin

from ..bench.contenders import (
    DTYPES,
    BenchOptions,
    Contender,
    checked_text_length,
    contender,
    matmul_precision,
    torch_options,
)
from ..bench.throughput import compare_throughput, interleaved_times, median_ratio
from ..models.budget import Search
from ..models.decoder_loading import is_decoder, load_decoder
from ..models.decoders.modeling import ReducedDecoder
from ..models.decoders.random_inputs import prompts
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.loading import load_checkpoint_model, load_processor, naming
from ..models.reduction import ReducibleModel
from ..reducers import Schedule, TokenReducer
from ..reducers.budget import with_budget
from .finder import MeasureSpeeds
from .options import TuneOptions

UNREDUCED = "unreduced"
WARMUP = 2
"""Rounds before a measurement that do not count."""
OnRound = Callable[[], None]


class Subject(ABC):
    """A model that is tuned, on its device and in its precision, in eval mode.

    Args:
        source: where it was loaded from.
        model: the model.
        options: what is asked for.
    """

    usual: ClassVar[Mapping[str, Any]]
    """The schedule to scale if neither the options nor the checkpoint have one."""

    def __init__(self, source: str, model: Any, options: TuneOptions):
        self.source, self.options = source, options
        self.model: Any = model
        self.measuring = options.measuring
        self.reducible: ReducibleModel = model.base_model if isinstance(model, PuMerPreTrainedModel) else model

    def search(self, reduction: Any) -> Search:
        """Return the scaled forms of a schedule, which may lack layers and ratios.

        Raises:
            ValueError: the schedule is wrong, does not fit the model, or removes nothing.
        """
        schedule = self.model.config.checked(with_budget(reduction, 1 / self.options.speed))
        return Search(schedule, self.reducible.flops_counter())

    @property
    @abstractmethod
    def text_length(self) -> int:
        """Tokens of each text in a measurement, without padding."""

    @abstractmethod
    def speeds(self, search: Search, on_round: OnRound) -> MeasureSpeeds:
        """Return what measures options of a search, interleaved with the unreduced model.

        Args:
            search: where the options come from.
            on_round: called after each round.
        """

    @abstractmethod
    def processor(self) -> ProcessorMixin:
        """Load the processor of the model."""


class EncoderSubject(Subject):
    """An encoder. Each schedule has a copy of the model that shares its weights, as it is timed without any change."""

    usual: ClassVar = {"method": "pumer"}
    model: PuMerPreTrainedModel

    @property
    def text_length(self) -> int:
        return checked_text_length(self.model, self.options.text_length)

    def copied(self, schedule: Schedule | None) -> Contender:
        """Return the model with a schedule."""
        shared: dict[int, Any] = {id(one): one for one in (*self.model.parameters(), *self.model.buffers())}
        model = copy.deepcopy(self.model, shared)
        model.set_reduction(schedule)
        return contender(model, self.text_length, self.measuring)

    def speeds(self, search: Search, on_round: OnRound) -> MeasureSpeeds:
        unreduced, batch_size = self.copied(None), batch_size_of(self.measuring)
        known: dict[int, Contender] = {}

        def measure(wanted: Sequence[int]) -> list[float]:
            for index in wanted:
                if index not in known:  # a compiled model is not compiled again
                    known[index] = self.copied(search.options[index])
            contenders = {UNREDUCED: unreduced, **{str(index): known[index] for index in wanted}}
            with torch_options(self.measuring):
                batches = {name: one.inputs(batch_size) for name, one in contenders.items()}
                throughput = compare_throughput(
                    {name: one.run for name, one in contenders.items()},
                    batches[UNREDUCED],
                    own_inputs=batches,
                    warmup=WARMUP,
                    seconds=self.measuring.seconds,
                    on_round=on_round,
                )
            return [throughput.speeds[str(index)].ratio for index in wanted]

        return measure

    def processor(self) -> ProcessorMixin:
        return load_processor(self.source, self.model.config.max_text_length)


class DecoderSubject(Subject):
    """A decoder. Its prefill is measured, up to the logits of the first new token."""

    usual: ClassVar = {"method": "pumer", "site": "inputs"}
    model: ReducedDecoder

    @property
    def text_length(self) -> int:
        return 32 if self.options.text_length is None else self.options.text_length

    def speeds(self, search: Search, on_round: OnRound) -> MeasureSpeeds:
        measuring, model = self.measuring, self.model
        inputs: dict[str, Any] = prompts(model, batch_size_of(measuring), self.text_length, self.options.image_tokens)

        def prefill(reducers: Mapping[str, TokenReducer]) -> None:
            with model.token_reduction.using(reducers):
                model(**inputs, use_cache=True, logits_to_keep=1)

        @torch.inference_mode()
        def measure(wanted: Sequence[int]) -> list[float]:
            calls = {index: partial(prefill, search.counter.reducers(search.options[index])) for index in wanted}
            with matmul_precision(measuring.matmul_precision):
                times = interleaved_times(
                    {UNREDUCED: partial(prefill, {}), **{str(index): call for index, call in calls.items()}},
                    warmup=WARMUP,
                    seconds=measuring.seconds,
                    on_cuda=measuring.device == "cuda",
                    on_round=on_round,
                )
            return [median_ratio(times[UNREDUCED], times[str(index)]) for index in wanted]

        return measure

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
        ValueError: there is no such model.
    """
    dtype, device = DTYPES[options.measuring.dtype], options.measuring.device
    if is_decoder(source):
        if options.measuring.compile:
            raise ValueError("compile=True: only encoders are tuned compiled: leave it out for a decoder")
        decoder = load_decoder(source, dtype=dtype, device=device)
        return DecoderSubject(source, decoder, options)
    if options.image_tokens is not None:
        raise ValueError(f"image_tokens={options.image_tokens}: only for decoder models, and {source} is none")
    return EncoderSubject(source, load_checkpoint_model(source).to(device=device, dtype=dtype).eval(), options)
