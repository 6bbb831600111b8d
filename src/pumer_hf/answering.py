"""`pumer-hf generate` asks a decoder model about an image on the command line, with fewer image tokens or with all."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image as PILImage
from torch import Tensor
from transformers import AutoProcessor, ProcessorMixin, TextStreamer

from .data.chat import prompt_text
from .explain.report import open_picture
from .figures import duration
from .models.decoder_loading import decoder_of_config, load_decoder, on_device, unreduced
from .models.decoders.modeling import ReducedDecoder
from .models.loading import SAVED, naming, saved_config
from .reading import one_line


@dataclass(frozen=True)
class Answer:
    """The answer of a model, and what it took."""

    text: str
    image_tokens: int
    """Image tokens that the decoder got."""
    new_tokens: int
    first_token: float
    """Seconds until the first token."""
    seconds: float
    """Seconds until the last one."""

    @property
    def line(self) -> str:
        """The numbers in a sentence."""
        tokens = "1 token" if self.new_tokens == 1 else f"{self.new_tokens} tokens"
        return f"({tokens} in {duration(self.seconds)}, the first after {duration(self.first_token)})"


class TimedStreamer(TextStreamer):
    """Prints the words of an answer as they come, keeps them, and notes the time of each token.

    Args:
        tokenizer: turns tokens into words.
    """

    def __init__(self, tokenizer: Any):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.start = time.perf_counter()
        self.seconds: list[float] = []
        self.words: list[str] = []
        self.began = False

    def put(self, value: Tensor) -> None:
        """Take a token. The first call brings the prompt."""
        if self.began:
            self.seconds.append(time.perf_counter() - self.start)
        self.began = True
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print words that will not change any more."""
        self.words.append(text)
        print(text, end="\n" if stream_end else "", flush=True)


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
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: must be at least 1")
    picture = open_picture(image)
    decoder_of_config(saved_config(checkpoint), checkpoint)
    with naming(repr(checkpoint), checkpoint, "processor"):
        processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
    model = load_decoder(checkpoint, reduction, dtype, device)
    if compare and model.reduction is None:
        raise ValueError("--compare: the model reduces no tokens, so there is nothing to compare: give --reduction")
    inputs = prompt_inputs(model, processor, picture, question)
    answers = {}
    if model.reduction is not None:
        methods = ", ".join(part.method for part in model.reduction.parts)
        answers["reduced"] = ask(model, processor, inputs, max_new_tokens, f"reduced by {methods}")
    if compare or model.reduction is None:
        with unreduced(model):
            answers["unreduced"] = ask(model, processor, inputs, max_new_tokens, "unreduced")
    return answers


def ask(
    model: ReducedDecoder, processor: ProcessorMixin, inputs: Mapping[str, Tensor], max_new_tokens: int, title: str
) -> Answer:
    """Let a model answer greedily, and print the answer under its title.

    Args:
        model: the model, as it is to answer.
        processor: its processor.
        inputs: one prompt, from [`prompt_inputs`].
        max_new_tokens: the most tokens of the answer.
        title: what stands above the answer.
    """
    traces: list[Any] = []
    before, model.watch = model.watch, traces.extend
    try:
        print(f"{title}:", flush=True)
        streamer = TimedStreamer(processor.tokenizer)
        model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, streamer=streamer)
    finally:
        model.watch = before
    whole = num_placeholders(model, inputs["input_ids"])
    left = sum(len(trace.kept) for trace in traces) if traces else whole
    text = "".join(streamer.words)
    answer = Answer(text, left, len(streamer.seconds), streamer.seconds[0], streamer.seconds[-1])
    kept = f"{left} of {whole} image tokens" if traces else f"all {whole} image tokens"
    print(f"  {kept} {answer.line}")
    return answer


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
        inputs = processor(images=[picture], text=[prompt], return_tensors="pt")
    except ValueError as error:  # some processors count the placeholders themselves
        raise ValueError(f"{prompt_error(prompt, token)}: {one_line(error)}") from error
    if num_placeholders(model, inputs["input_ids"]) == 0:
        raise ValueError(f"{prompt_error(prompt, token)}: it has no placeholder")
    return on_device(inputs, model)


def prompt_error(prompt: str, token: str) -> str:
    """Return the beginning of the error of a prompt that has no place for its image, or too many."""
    return f"prompt={prompt!r}: one image needs one placeholder: write {token} in the question where it belongs"


def num_placeholders(model: ReducedDecoder, input_ids: Tensor) -> int:
    """Return how many image tokens a prompt has. `input_ids` is long (1, L)."""
    return int((input_ids == model.family.image_token_id(model.config)).sum())
