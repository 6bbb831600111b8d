"""Questions to a decoder model about an image, and answers that come word by word, with the tokens and the seconds."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor
from transformers import AutoProcessor, ProcessorMixin, TextStreamer

from .data.chat import prompt_text, special_tokens
from .figures import duration
from .images import open_picture
from .models.decoder_loading import decoder_of_config, load_decoder, unreduced
from .models.decoders.images import ImageTrace
from .models.decoders.modeling import ReducedDecoder
from .models.decoders.prompt import on_device
from .models.loading import SAVED, naming, saved_config
from .reading import one_line

WARMUP_TOKENS = 2
"""How many tokens [`warm_up`] generates: the first comes from the prompt, the next from the decoding."""


@dataclass(frozen=True)
class Answer:
    """The answer of a model, and what it took."""

    text: str
    image_tokens: int
    """Image tokens that the decoder got, or had left after the last layer that reduced them."""
    all_image_tokens: int
    """Image tokens of the whole prompt."""
    new_tokens: int
    first_token: float
    """Seconds until the first token."""
    seconds: float
    """Seconds until the last one."""
    traces: tuple[ImageTrace, ...] = ()
    """What became of each image; empty if nothing was reduced."""

    @property
    def kept(self) -> str:
        """The image tokens that the decoder got, in words."""
        if not self.traces:
            return f"all {self.all_image_tokens} image tokens"
        return f"{self.image_tokens} of {self.all_image_tokens} image tokens"

    @property
    def timing(self) -> str:
        """The new tokens and the seconds in words."""
        tokens = "1 token" if self.new_tokens == 1 else f"{self.new_tokens} tokens"
        return f"{tokens} in {duration(self.seconds)}, the first after {duration(self.first_token)}"


class TimedStreamer(TextStreamer):
    """Hands on the words of an answer as they come, keeps them, and notes the time of each token.

    Args:
        tokenizer: turns tokens into words.
        show: is called with words that will not change any more, and whether they are the last ones.
        stops: is asked at each token whether to stop.
    """

    def __init__(self, tokenizer: Any, show: Callable[[str, bool], None], stops: Callable[[], bool]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.show, self.stops = show, stops
        self.start = time.perf_counter()
        self.seconds: list[float] = []
        self.words: list[str] = []
        self.began = False

    def put(self, value: Tensor) -> None:
        """Take a token. The first call brings the prompt.

        Raises:
            InterruptedError: the answer is not wanted any more.
        """
        if self.stops():
            raise InterruptedError
        if self.began:
            self.seconds.append(time.perf_counter() - self.start)
        self.began = True
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Keep words that will not change any more, and hand them on."""
        self.words.append(text)
        self.show(text, stream_end)


def answer_checkpoint(
    checkpoint: str,
    image: str,
    question: str,
    *,
    reduction: Any = SAVED,
    compare: bool = False,
    max_new_tokens: int = 64,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> dict[str, Answer]:
    """Ask a checkpoint about an image, and print the answer as it comes, with the image tokens and the seconds.

    Args:
        checkpoint: a folder, or an id on the Hub, of transformers' class or of ours.
        image: a file.
        question: the question. If it holds the model's image placeholder, it is the whole prompt as it stands.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.
        compare: whether to ask the unreduced model too.
        max_new_tokens: the most tokens of the answer.
        dtype: the precision; None: that of the checkpoint.
        device: `"cpu"` or `"cuda"`.

    Returns:
        The answers: `reduced` if the model reduces tokens, and `unreduced` if it does not or if both are compared.

    Raises:
        ValueError: the model is no decoder of a known family, the image cannot be read, or a value is wrong.
    """
    check_new_tokens(max_new_tokens)
    picture = open_picture(image)
    model, processor = load_with_processor(checkpoint, reduction, dtype, device)
    if compare and model.reduction is None:
        raise ValueError("--compare: the model reduces no tokens, so there is nothing to compare: give --reduction")
    inputs = prompt_inputs(model, processor, picture, question)
    answers = {}
    if model.reduction is not None:
        answers["reduced"] = ask_aloud(model, processor, inputs, max_new_tokens, f"reduced by {methods_of(model)}")
    if compare or model.reduction is None:
        with unreduced(model):
            answers["unreduced"] = ask_aloud(model, processor, inputs, max_new_tokens, "unreduced")
    return answers


def check_new_tokens(max_new_tokens: int) -> None:
    """Raise `ValueError` if an answer could have no token."""
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: must be an integer of at least 1")


def load_with_processor(
    checkpoint: str, reduction: Any = SAVED, dtype: torch.dtype | None = None, device: str = "cpu"
) -> tuple[ReducedDecoder, ProcessorMixin]:
    """Load a decoder checkpoint and its processor. The arguments are those of [`answer_checkpoint`].

    Raises:
        ValueError: there is no such checkpoint, it is of no known family, or it has no processor.
    """
    decoder_of_config(saved_config(checkpoint), checkpoint)
    with naming(repr(checkpoint), checkpoint, "processor"):
        processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
    return load_decoder(checkpoint, reduction, dtype, device), processor


def methods_of(model: ReducedDecoder) -> str:
    """Return the names of the methods by which a model reduces tokens."""
    assert model.reduction is not None, "the model reduces tokens"
    return ", ".join(part.method for part in model.reduction.parts)


def ask_aloud(
    model: ReducedDecoder, processor: ProcessorMixin, inputs: Mapping[str, Tensor], max_new_tokens: int, title: str
) -> Answer:
    """Let a model answer, and print the answer under its title. The other arguments are those of [`ask`].

    Args:
        title: what stands above the answer.
    """
    print(f"{title}:", flush=True)
    answer = ask(model, processor, inputs, max_new_tokens, show=print_words)
    print(f"  {answer.kept} ({answer.timing})")
    return answer


def print_words(words: str, last: bool) -> None:
    """Print words of an answer; a new line ends it."""
    print(words, end="\n" if last else "", flush=True)


def ask(
    model: ReducedDecoder,
    processor: ProcessorMixin,
    inputs: Mapping[str, Tensor],
    max_new_tokens: int,
    show: Callable[[str, bool], None] = lambda words, last: None,
    stops: Callable[[], bool] = lambda: False,
) -> Answer:
    """Let a model answer greedily.

    Args:
        model: the model, as it is to answer.
        processor: its processor.
        inputs: one prompt, from [`prompt_inputs`].
        max_new_tokens: the most tokens of the answer.
        show: is called with the words as they come, and whether they are the last ones.
        stops: is asked at each token whether to stop.

    Raises:
        InterruptedError: `stops` returned True.
    """
    traces: list[ImageTrace] = []
    before, model.watch = model.watch, traces.extend
    try:
        streamer = TimedStreamer(processor.tokenizer, show, stops)
        model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, streamer=streamer)
    finally:
        model.watch = before
    whole = num_placeholders(model, inputs["input_ids"])
    return Answer(
        text="".join(streamer.words),
        image_tokens=sum(len(trace.kept) for trace in traces if trace.layer == traces[-1].layer) if traces else whole,
        all_image_tokens=whole,
        new_tokens=len(streamer.seconds),
        first_token=streamer.seconds[0],
        seconds=streamer.seconds[-1],
        traces=tuple(traces),
    )


def warm_up(model: ReducedDecoder, processor: ProcessorMixin, inputs: Mapping[str, Tensor]) -> None:
    """Let a model answer a little, so that the first answer of several is not slower than the others.

    The arguments are those of [`ask`].
    """
    ask(model, processor, inputs, WARMUP_TOKENS)


def prompt_inputs(
    model: ReducedDecoder, processor: ProcessorMixin, picture: PILImage.Image, question: str
) -> dict[str, Tensor]:
    """Return a prompt with an image as the model's `generate` takes it, on its device.

    The question becomes a prompt by [`prompt_text`].

    Args:
        model: the model.
        processor: its processor.
        picture: the image.
        question: as in [`answer_checkpoint`].

    Raises:
        ValueError: the prompt has no place for the image.
    """
    token = processor.tokenizer.convert_ids_to_tokens(model.family.image_token_id(model.config))
    prompt = question if token in question else prompt_text(processor, question)
    try:
        inputs = processor(images=[picture], text=[prompt], return_tensors="pt", **special_tokens(processor, prompt))
    except (ValueError, StopIteration) as error:  # processors count the placeholders, before 5.20 without a word
        raise ValueError(f"{prompt_error(prompt, token)}: {one_line(error) or 'it has too many'}") from error
    if num_placeholders(model, inputs["input_ids"]) == 0:
        raise ValueError(f"{prompt_error(prompt, token)}: it has no placeholder")
    return on_device(inputs, model)


def prompt_error(prompt: str, token: str) -> str:
    """Return the beginning of the error of a prompt that has no place for its image, or too many."""
    return f"prompt={prompt!r}: one image needs one placeholder: write {token} in the question where it belongs"


def num_placeholders(model: ReducedDecoder, input_ids: Tensor) -> int:
    """Return how many image tokens a prompt has. `input_ids` is long (1, L)."""
    return int((input_ids == model.family.image_token_id(model.config)).sum())
