"""`pumer-hf explain` for decoder models: what they keep of an image, and what they answer with and without a cut."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image as PILImage
from transformers import ProcessorMixin

from ..answering import (
    Answer,
    ask,
    check_new_tokens,
    load_with_processor,
    methods_of,
    prompt_inputs,
    warm_up,
)
from ..images import open_picture
from ..models.decoder_loading import asked_schedule, decoder_of_config, unreduced
from ..models.decoders.modeling import ReducedDecoder
from ..models.loading import SAVED, saved_config
from .decoder_pictures import decoder_panels, drawing_error, joined
from .panels import stack, titled
from .report import check_output


def explain_decoder(
    checkpoint: str,
    image: str,
    questions: Sequence[str],
    output: str,
    *,
    reduction: Any = SAVED,
    max_new_tokens: int = 64,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> list[str]:
    """Draw what a decoder checkpoint keeps of an image for each question, with the answers, into a file.

    Args:
        checkpoint: a folder, or an id on the Hub, of transformers' class or of ours.
        image: a file.
        questions: questions about the image, as in [`answering.prompt_inputs`].
        output: the picture to write; its ending says the format.
        reduction: another schedule than the checkpoint's, in any form that [`parse_reduction`] takes.
        max_new_tokens: the most tokens of an answer.
        dtype: the precision; None: that of the checkpoint.
        device: `"cpu"` or `"cuda"`.

    Returns:
        Lines to print: for each question the answers of the reduced and the unreduced model, with tokens and seconds,
        and what was kept.

    Raises:
        ValueError: the model reduces nothing or cannot be drawn, the image cannot be read, or a value is wrong.
    """
    check_output(output)
    check_new_tokens(max_new_tokens)
    picture = open_picture(image)
    config = saved_config(checkpoint)
    family = decoder_of_config(config, checkpoint)
    if family.grids is None:
        raise drawing_error(family)
    asked_schedule(config, reduction, checkpoint)
    model, processor = load_with_processor(checkpoint, reduction, dtype, device)
    pictures, lines = [], []
    for number, question in enumerate(questions):
        drawn, said = explain_question(model, processor, picture, question, max_new_tokens, first=number == 0)
        pictures.append(drawn)
        lines += said
    stack(pictures).save(output)
    return [*lines, f"Written to {output}"]


def explain_question(
    model: ReducedDecoder,
    processor: ProcessorMixin,
    picture: PILImage.Image,
    question: str,
    max_new_tokens: int,
    first: bool = True,
) -> tuple[PILImage.Image, list[str]]:
    """Draw what a model keeps of an image for a question, under both answers. Return it, and the same in words.

    Args:
        model: a model that reduces tokens.
        processor: its processor.
        picture: the image.
        question: the question.
        max_new_tokens: the most tokens of an answer.
        first: whether the model has not answered yet, so that its first run would be slower than the others.
    """
    inputs = prompt_inputs(model, processor, picture, question)
    if first:
        warm_up(model, processor, inputs)
    reduced = ask(model, processor, inputs, max_new_tokens)
    with unreduced(model):
        whole = ask(model, processor, inputs, max_new_tokens)
    panels = decoder_panels(model, processor, picture, inputs, reduced.traces)
    answers = [answer_line(f"reduced by {methods_of(model)}", reduced), answer_line("unreduced", whole)]
    drawn = titled(joined(panels), "\n".join([question, *answers]))
    captions = ["; ".join(panel.caption) for panel in panels[1:]]
    return drawn, [question, *(f"  {line}" for line in (*answers, *captions))]


def answer_line(name: str, answer: Answer) -> str:
    """Return a line with the answer of a model, its image tokens and its seconds."""
    return f"{name}: {' '.join(answer.text.split())} ({answer.kept}; {answer.timing})"
