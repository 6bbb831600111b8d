"""`pumer-hf explain` draws one picture for several texts about the same image, and prints a few lines for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image as PILImage
from torch import Tensor
from transformers import ProcessorMixin

from ..folders import check_file
from ..images import ImageSource, open_picture
from ..inputs import Encoder
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.loading import SAVED, load_checkpoint, unreduced_error
from ..unread import unread_words
from .panels import Panel, stack, titled
from .pictures import strip, trace_panels
from .prediction import encode, probabilities, run


def explain_checkpoint(
    checkpoint: str,
    images: Sequence[str],
    texts: Sequence[str],
    output: str,
    reduction: Any = SAVED,
    keep_aspect_ratio: bool | None = None,
) -> list[str]:
    """Draw what a checkpoint keeps of an image, one row per text, into a file.

    Args:
        checkpoint: a folder, or an id on the Hub.
        images: the files of the images, as many as the model takes.
        texts: questions, hypotheses or captions about the image.
        output: the picture to write; its ending says the format.
        reduction: another schedule than the checkpoint's.
        keep_aspect_ratio: whether images keep their shape, or become squares; default: as the model was trained.

    Returns:
        Lines to print: the answer to each text, the words that the model did not read, and what each layer left.
    """
    check_output(output)
    for name in images:
        open_picture(name)  # so that an unreadable image is an error before the model is loaded
    model, processor = load_checkpoint(checkpoint, reduction)
    if model.reduction is None:
        raise unreduced_error(model, checkpoint)
    processor = Encoder.of(model, processor, keep_aspect_ratio=keep_aspect_ratio).processor
    pictures, lines = zip(*(explain(model, processor, images, text) for text in texts), strict=True)
    stack(pictures).save(output)
    return [*(line for lines_of_text in lines for line in lines_of_text), f"Written to {output}"]


def explain(
    model: PuMerPreTrainedModel,
    processor: ProcessorMixin,
    images: Sequence[ImageSource],
    text: str,
) -> tuple[PILImage.Image, list[str]]:
    """Draw the strip of [`draw_layers`] under the text and its answer. Return it, and the same in words."""
    inputs = encode(model, processor, images, text)
    picture, lines = explain_inputs(model, processor, inputs, text)
    return picture, [*lines, *(f"  {line}" for line in unread_words(model, processor, text).sentences())]


def explain_inputs(
    model: PuMerPreTrainedModel, processor: ProcessorMixin, inputs: dict[str, Tensor], text: str
) -> tuple[PILImage.Image, list[str]]:
    """Do the work of [`explain`] for the inputs of one example, on the model's device. `text` is the title."""
    outputs = run(model, inputs)
    answer = best_answer(model, outputs)
    rows = trace_panels(model, processor, inputs, outputs.reduction)
    picture = titled(strip(rows), f"{text}  {answer}".strip())
    return picture, [text, *(f"  {line}" for line in report(rows, answer))]


def best_answer(model: PuMerPreTrainedModel, outputs: Any) -> str:
    """Return what the head answers, with its probability; an empty text for a model without a head."""
    logits: Tensor | None = getattr(outputs, "logits", None)
    if logits is None:
        return ""
    ranked = probabilities(model, logits[0])
    if not ranked:
        return f"-> match score {logits[0, 0].item():.2f}: a text that fits the image better has a higher one"
    name, probability = next(iter(ranked.items()))
    return f"-> {name} ({probability:.1%})"


def report(rows: Sequence[Sequence[Panel]], answer: str) -> list[str]:
    """Return lines with the answer and what each layer left of one example; `rows` come from [`trace_panels`]."""
    lines = [answer] if answer else []
    for number, (_, *layers) in enumerate(rows, start=1):
        where = f"image {number}, " if len(rows) > 1 else ""
        lines.extend(f"{where}{'; '.join(panel.caption)}" for panel in layers)
    return lines


def check_output(output: str) -> None:
    """Raise an error before the work begins, if no picture can be saved under this name."""
    path = Path(output)
    if path.suffix.lower() not in PILImage.registered_extensions():
        raise ValueError(f"-o {output}: the ending must be that of a picture, such as .png")
    check_file(output, "-o")
