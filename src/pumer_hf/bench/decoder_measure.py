"""Measures what a decoder model costs with and without reduction: the work, the times, the cache and the memory."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.generation import BaseStreamer

from ..flops import FlopCounter
from ..models.decoder_loading import unreduced
from ..models.decoders.cut_cache import cache_of
from ..models.decoders.images import ImageTrace
from ..models.decoders.modeling import ReducedDecoder
from ..models.decoders.random_inputs import images_near, prompts
from .break_even import BreakEven, Crossing, cross, doubled
from .contenders import DTYPES, MATMUL_PRECISIONS
from .decoder_report import ANNOUNCED, FORMS, MEASURED, REDUCED, UNREDUCED, Compared, DecoderSpeed, Seconds, Work
from .profiles import FORWARDS, peak_memory, reduction_seconds, untouched_share
from .progress import Progress
from .throughput import cuda_seconds, expected_seconds, interleaved_times, keep_freed_memory, rough_ratio, wall_seconds

ATTENTIONS = ("eager", "sdpa")
GENERATE_ROUNDS = 3
"""How often `generate` is timed at least. It takes much longer than a prefill."""
MOST_ROUNDS = 50
"""How often `generate` is timed at most."""


@dataclass(frozen=True)
class DecoderOptions:
    """How a benchmark of a decoder measures.

    Args:
        device: `"cpu"` or `"cuda"`.
        dtype: the precision of the model, one of `DTYPES`.
        compile: whether the image tower and the decoder are compiled by `torch.compile`.
        attention: transformers' `attn_implementation`, one of `ATTENTIONS`.
        matmul_precision: the precision of float32 products, one of `MATMUL_PRECISIONS`.
        batch_size: prompts per batch.
        text_length: words per prompt.
        image_tokens: image tokens per prompt; None: one image of the usual size.
        new_tokens: tokens to generate. 0: measure the prefill alone.
        seconds: how long to measure the prefill, and how long `generate`. Both take a few rounds at least.
        memory: whether to measure the peak memory.
    """

    device: str = "cpu"
    dtype: str = "float32"
    compile: bool = False
    attention: str = "sdpa"
    matmul_precision: str = "highest"
    batch_size: int = 1
    text_length: int = 32
    image_tokens: int | None = None
    new_tokens: int = 16
    seconds: float = 10.0
    memory: bool = True

    def __post_init__(self) -> None:
        choices = {"device": ("cpu", "cuda"), "dtype": tuple(DTYPES), "attention": ATTENTIONS}
        choices["matmul_precision"] = MATMUL_PRECISIONS
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(known)}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device='cuda': torch finds no GPU here")
        for name, least in {"batch_size": 1, "text_length": 1, "new_tokens": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")
        if self.image_tokens is not None and self.image_tokens < 1:
            raise ValueError(f"image_tokens={self.image_tokens}: must be at least 1")
        if not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds}: must be above 0")


@dataclass(frozen=True)
class Subject:
    """A decoder model of ours on a batch. Its two forms are the same object, so its weights are there once."""

    model: ReducedDecoder
    inputs: dict[str, Tensor]

    @property
    def batch_size(self) -> int:
        """Prompts in the batch."""
        return len(self.inputs["input_ids"])

    @contextmanager
    def as_form(self, form: str) -> Iterator[None]:
        """Make the model reduced or unreduced inside a `with` block."""
        with unreduced(self.model) if form == UNREDUCED else nullcontext():
            yield

    def prefill(self, form: str) -> Any:
        """Run the model up to the logits of the first new token. Return its output, which has the cache."""
        with self.as_form(form):
            return self.model(**self.inputs, use_cache=True, logits_to_keep=1)

    def generate(self, form: str, new_tokens: int, streamer: BaseStreamer) -> None:
        """Generate exactly so many tokens, greedily."""
        lengths = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
        with self.as_form(form):
            self.model.generate(**self.inputs, **lengths, do_sample=False, pad_token_id=0, streamer=streamer)

    def encoded(self) -> Any:
        """Return what the image encoder gives for the batch."""
        return self.model.family.encode_images(self.model, self.inputs)[0]


class Sizes(NamedTuple):
    """What does not depend on the machine. All but the work is by name of the form."""

    work: Work
    image_tokens: dict[str, int]
    """Image tokens per prompt that the decoder gets."""
    layer_tokens: dict[str, list[int]]
    """Image tokens per prompt that each layer of the reduced decoder reads, [`ANNOUNCED`] and [`MEASURED`]."""
    cache_bytes: dict[str, int]
    """The bytes of keys, values and states of the whole batch after the prefill."""
    mean_image_tokens: float | None
    """Image tokens per prompt that the reduced decoder gets on average; None if the schedule alone says it."""


@torch.inference_mode()
def measure_sizes(subject: Subject, text_inputs: Mapping[str, Tensor]) -> Sizes:
    """Count the multiply-adds of the prefill of one prompt, its tokens and its cache, from runs of the whole batch.

    Args:
        subject: the model and its batch.
        text_inputs: the same prompts without images.
    """

    def text_alone() -> Any:
        with subject.as_form(UNREDUCED):
            return subject.model(**text_inputs, use_cache=True, logits_to_keep=1)

    placeholder = subject.model.family.image_token_id(subject.model.config)
    tokens = {UNREDUCED: int((subject.inputs["input_ids"][0] == placeholder).sum())}
    gmacs, caches, by_layer = {}, {}, {}
    for form in FORMS:
        gmacs[form], output = counted(partial(subject.prefill, form), subject.batch_size)
        caches[form] = sum(nbytes(value) for layer in cache_of(output).layers for value in vars(layer).values())
        if form == REDUCED:
            traces = output.reduction
            by_layer[MEASURED] = read_by_layers(subject.model, traces, tokens[UNREDUCED])
    tokens[REDUCED] = by_layer[MEASURED][0]
    by_layer[ANNOUNCED] = announced(subject.model, len(text_inputs["input_ids"][0]), tokens[REDUCED])
    tower, _ = counted(subject.encoded, subject.batch_size)
    text, _ = counted(text_alone, subject.batch_size)
    of_images = gmacs[UNREDUCED] - tower - text
    work = Work(gmacs[UNREDUCED], gmacs[REDUCED], tower, text, of_images * whole_share(subject.model))
    varies = any(part.varies for part in subject.model.token_reduction.part_configs)
    kept = sum(len(trace.kept) for trace in traces if trace.layer is None)
    return Sizes(work, tokens, by_layer, caches, kept / subject.batch_size if varies else None)


def read_by_layers(model: ReducedDecoder, traces: Sequence[ImageTrace], num_image: int) -> list[int]:
    """Return how many image tokens of the first prompt each layer has read.

    Args:
        model: the model.
        traces: what it has done to a batch.
        num_image: the image tokens of the prompt.
    """
    after: dict[int, int] = {}
    for trace in traces:
        if trace.row == 0:
            place = -1 if trace.layer is None else trace.layer
            after[place] = after.get(place, 0) + len(trace.kept)
    lengths = []
    for layer in range(model.config.get_text_config().num_hidden_layers):
        num_image = after.get(layer - 1, num_image)
        lengths.append(num_image)
    return lengths


def announced(model: ReducedDecoder, num_text: int, num_image: int) -> list[int]:
    """Return how many image tokens each layer is to read, if the decoder gets `num_image` beside `num_text` words."""
    if "layers" not in model.config.sites:
        return [num_image] * model.config.get_text_config().num_hidden_layers
    return [num_image, *(image for _, image in model.token_reduction.lengths_at("layers", num_text, num_image))]


def whole_share(model: ReducedDecoder) -> float:
    """Return the part of the decoder, in [0, 1], whose layers read all image tokens, whatever is cut after them."""
    schedule = model.token_reduction.schedule
    assert schedule is not None, "it reduces"
    if any(part.site == "inputs" for part in schedule.parts):
        return 0.0
    first = min(layer for part in schedule.parts for layer in part.layers)
    return (first + 1) / model.config.get_text_config().num_hidden_layers


def counted(call: Callable[[], Any], batch_size: int) -> tuple[float, Any]:
    """Return the multiply-adds of a call per example, in 10^9, and what it returns."""
    with FlopCounter() as counter:
        output = call()
    return counter.count / 1e9 / batch_size, output


def nbytes(value: Any) -> int:
    """Return the bytes of a tensor, or of all tensors in a list or a dict. Anything else has none."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(nbytes, value)) if isinstance(value, (list, tuple)) else 0


@torch.inference_mode()
def reducer_cost(subject: Subject) -> tuple[Seconds, float]:
    """Measure what the reduction itself takes in the prefill: choosing, merging and cutting, not what it saves.

    Returns:
        Its time, and its part of the time of the prefill.
    """
    call = partial(subject.prefill, REDUCED)
    times = [reduction_seconds(call, subject.model.device) for _ in range(FORWARDS)]
    return Seconds.of([own for own, _ in times]), median(own / whole for own, whole in times)


@torch.inference_mode()
def measure_speed(subject: Subject, options: DecoderOptions, reducer: tuple[Seconds, float]) -> DecoderSpeed:
    """Measure the prefill and `generate` of both forms, in turn. Each has run before, at the same shapes.

    Args:
        subject: the model and its batch.
        options: how to measure.
        reducer: from [`reducer_cost`], measured before anything is compiled.
    """
    keep_freed_memory()
    on_cuda = options.device == "cuda"
    seconds_of = cuda_seconds if on_cuda else wall_seconds
    calls: dict[str, Callable[[], Any]] = {form: partial(subject.prefill, form) for form in FORMS}
    for call in calls.values():  # compiles, if asked to
        call()
    in_turn = sum(seconds_of(call) for call in calls.values())
    expected = expected_seconds(in_turn, warmup=0, seconds=options.seconds)
    with Progress(f"Measuring the prefill at batch {subject.batch_size}", expected) as progress:
        progress.begin("prefill")
        times = interleaved_times(calls, warmup=0, seconds=options.seconds, on_cuda=on_cuda, on_round=progress.move)
    generated = measure_generate(subject, options) if options.new_tokens else {}
    return DecoderSpeed(Compared.of(times), reducer[0], reducer[1], **generated)


def measure_generate(subject: Subject, options: DecoderOptions) -> dict[str, Compared]:
    """Measure `generate` of both forms in turn: the first token, each further one, and all."""
    calls = {form: partial(generate_times, subject, form, options.new_tokens) for form in FORMS}
    for call in calls.values():  # compiles, if asked to
        call()
    in_turn = sum(call()[-1] for call in calls.values())
    rounds = max(GENERATE_ROUNDS, min(round(options.seconds / in_turn), MOST_ROUNDS))
    times: dict[str, list[list[float]]] = {form: [] for form in FORMS}
    with Progress(f"Generating {options.new_tokens} tokens", rounds * in_turn) as progress:
        progress.begin("generate")
        for _ in range(rounds):
            for form, call in calls.items():
                times[form].append(call())
            progress.move()
    found = {
        "first_token": Compared.of({form: [one[0] for one in times[form]] for form in FORMS}),
        "end_to_end": Compared.of({form: [one[-1] for one in times[form]] for form in FORMS}),
    }
    if options.new_tokens > 1:
        steps = options.new_tokens - 1
        found["per_token"] = Compared.of({form: [(one[-1] - one[0]) / steps for one in times[form]] for form in FORMS})
    return found


def generate_times(subject: Subject, form: str, new_tokens: int) -> list[float]:
    """Generate tokens, and return when each of them was there, in seconds from the start."""
    if subject.model.device.type == "cuda":
        torch.cuda.synchronize()
    clock = Clock()
    subject.generate(form, new_tokens, clock)
    return clock.seconds


class Clock(BaseStreamer):
    """A streamer that notes when each new token arrives. On a GPU, `generate` has waited for the token by then."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.began = False
        self.seconds: list[float] = []

    def put(self, value: Tensor) -> None:
        """Note the time of a token. The first call brings the prompt."""
        if self.began:
            self.seconds.append(time.perf_counter() - self.start)
        self.began = True

    def end(self) -> None:
        """There is nothing left to note."""


@torch.inference_mode()
def prefill_memory(subject: Subject, form: str) -> int:
    """Return the peak bytes of the prefill of the batch, beyond weights and inputs ([`peak_memory`])."""

    def call() -> None:
        subject.prefill(form)

    return peak_memory(call, subject.model.device)


def compile_parts(model: ReducedDecoder) -> None:
    """Compile the image tower and the decoder of a model. What lies between them depends on values and stays eager."""
    for part in (model.get_encoder(modality="image"), model.get_decoder()):
        part.compile()


def untouched_by_cuts(subject: Subject) -> float:
    """Measure the part of the unreduced prefill's time that the reduction cannot touch ([`untouched_share`]).

    Do so before anything is compiled.
    """
    calls = (partial(subject.prefill, UNREDUCED), partial(subject.prefill, REDUCED))
    return untouched_share((subject.model, subject.model), calls, subject.model.device)


def measure_break_even(subject: Subject, options: DecoderOptions, untouched: float, gain: float) -> BreakEven:
    """Find the smallest batch and the fewest image tokens at which the prefill becomes faster.

    Each size is measured in a few rounds, from the smallest one on. Compiled parts would be compiled again for each
    size, so for them only the measured size counts.

    Args:
        subject: the model and its batch.
        options: how to measure.
        untouched: from [`untouched_by_cuts`].
        gain: how many times as fast the reduced prefill of the batch is.
    """
    model = subject.model
    tokens = int((subject.inputs["input_ids"][0] == model.family.image_token_id(model.config)).sum())

    def ratio(batch_size: int, image_tokens: int) -> float:
        other = Subject(model, prompts(model, batch_size, options.text_length, image_tokens))
        baseline, reduced = (partial(other.prefill, form) for form in FORMS)
        return rough_ratio(baseline, reduced, options.device == "cuda")

    def ratio_of_batch(size: int) -> float:
        return ratio(size, tokens)

    def ratio_of_tokens(size: int) -> float | None:
        assert batch is not None, "sizes are tried where a batch pays"
        return ratio(batch, size) if images_near(model, size)[1] == size else None

    by_batch = cross(
        doubled(1, subject.batch_size), {subject.batch_size: gain}, None if options.compile else ratio_of_batch
    )
    batch = by_batch.first
    if batch is None:
        return BreakEven(untouched, by_batch)
    known = {tokens: by_batch.ratios[batch]}
    if options.compile:
        return BreakEven(untouched, by_batch, Crossing(known))
    _, fewest = images_near(model, 1)
    return BreakEven(untouched, by_batch, cross(doubled(fewest, tokens), known, ratio_of_tokens))
