"""Measures what a decoder model costs with and without reduction: the work, the times, the cache and the memory."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.generation import BaseStreamer

from ..flops import FlopCounter
from ..models.decoder_loading import unreduced
from ..models.decoders.cut_cache import cache_of
from ..models.decoders.modeling import ReducedDecoder
from .contenders import DTYPES, MATMUL_PRECISIONS
from .decoder_report import FORMS, REDUCED, UNREDUCED, Compared, DecoderSpeed, Seconds, Work
from .profiles import peak_memory
from .progress import Progress
from .throughput import cuda_seconds, expected_seconds, interleaved_times, keep_freed_memory, wall_seconds

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

    def reduce_alone(self, encoded: Any) -> Any:
        """Do all that the reduction does between the image tower and the decoder."""
        rest = {name: value for name, value in self.inputs.items() if name != "pixel_values"}
        return self.model.calls.prepare({**rest, "mm_encoder_outputs": {"image": encoded}}, generating=False)


class Sizes(NamedTuple):
    """What does not depend on the machine. All but the work is by name of the form."""

    work: Work
    image_tokens: dict[str, int]
    """Image tokens per prompt that the decoder gets."""
    cache_bytes: dict[str, int]
    """The bytes of keys, values and states of the whole batch after the prefill."""


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
    gmacs, caches = {}, {}
    for form in FORMS:
        gmacs[form], output = counted(partial(subject.prefill, form), subject.batch_size)
        caches[form] = sum(nbytes(value) for layer in cache_of(output).layers for value in vars(layer).values())
        if form == REDUCED:
            tokens[form] = sum(len(trace.kept) for trace in output.reduction if trace.row == 0)
    tower, _ = counted(subject.encoded, subject.batch_size)
    text, _ = counted(text_alone, subject.batch_size)
    return Sizes(Work(gmacs[UNREDUCED], gmacs[REDUCED], tower, text), tokens, caches)


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
def measure_speed(subject: Subject, options: DecoderOptions) -> DecoderSpeed:
    """Measure the prefill and `generate` of both forms, in turn. Each has run before, at the same shapes."""
    keep_freed_memory()
    on_cuda = options.device == "cuda"
    seconds_of = cuda_seconds if on_cuda else wall_seconds
    encoded = subject.encoded()
    calls: dict[str, Callable[[], Any]] = {form: partial(subject.prefill, form) for form in FORMS}
    calls["reducer"] = partial(subject.reduce_alone, encoded)
    for call in calls.values():  # compiles, if asked to
        call()
    in_turn = sum(seconds_of(call) for call in calls.values())
    expected = expected_seconds(in_turn, warmup=0, seconds=options.seconds)
    with Progress(f"Measuring the prefill at batch {subject.batch_size}", expected) as progress:
        progress.begin("prefill")
        times = interleaved_times(calls, warmup=0, seconds=options.seconds, on_cuda=on_cuda, on_round=progress.move)
    generated = measure_generate(subject, options) if options.new_tokens else {}
    return DecoderSpeed(prefill=Compared.of(times), reducer=Seconds.of(times["reducer"]), **generated)


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
