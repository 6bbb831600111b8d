"""What a card says about a decoder model: how it is asked, and what `pumer-hf bench` has measured of it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..bench.decoder_report import DecoderReport
from ..bench.decoders import notes, rows, work_lines
from ..data.task import CARD_MODEL
from ..models.decoder_loading import EXAMPLE, find_decoder
from ..models.decoders.family import DecoderFamily
from ..models.families import Family, decoder_advice, find_family
from ..reading import read_object
from ..results import markdown_table
from .sources import public_name, published_environment

PIPELINE_TAG = "image-text-to-text"
"""The tag by which the Hub finds decoder models, and the name of their pipeline."""
PROCESSOR = "processor_config.json"
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")
"""The files of a processor with its chat template, in newer and older folders."""
CHAT_EXAMPLE = f"""\
import pumer_hf  # registers the models with the Auto classes
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{CARD_MODEL}")
processor = AutoProcessor.from_pretrained("{CARD_MODEL}")
question = [{{"type": "image", "path": "picture.png"}}, {{"type": "text", "text": "What is in the picture?"}}]
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": question}}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
)
output = model.generate(**inputs, max_new_tokens=64)
print(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
PROMPT_EXAMPLE = f"""\
import pumer_hf  # registers the models with the Auto classes
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{CARD_MODEL}")
processor = AutoProcessor.from_pretrained("{CARD_MODEL}")
prompt = processor.image_token + "What is in the picture?"
inputs = processor(images=[Image.open("picture.png")], text=[prompt], return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=64)
print(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
PLACES = {
    "inputs": "steps between its image encoder and its decoder",
    "layers": "some layers of its decoder",
}
"""In words, the part of a decoder model that reduces tokens at a site."""


def row_of(config: Mapping[str, Any], where: str) -> Family | DecoderFamily:
    """Return the family of a model of ours, or of a stock model that our encoders read.

    Args:
        config: the content of a `config.json`.
        where: the file, for the message.

    Raises:
        ValueError: it is of no known family, or a decoder of transformers' own class.
    """
    kind = config.get("model_type")
    decoder = find_decoder(config)
    if decoder is not None and kind == decoder.stock_type:
        raise ValueError(
            f"{where}: model_type={kind!r} is transformers' own {decoder.title}, which reduces no tokens: make a "
            f"folder of {decoder.model_class.__name__}, by `from_pretrained(..., reduction={EXAMPLE})` and "
            "`save_pretrained(...)`, and save the processor there too"
        )
    row = decoder or find_family(kind)
    if row is None:
        raise ValueError(
            f"{where}: model_type={kind!r} is no PuMer model: `pumer-hf convert` makes one of an older encoder; of "
            f"decoder models, {decoder_advice()}"
        )
    return row


def has_chat_template(folder: Path) -> bool:
    """Return whether the processor in a folder makes prompts from chats."""
    if any((folder / name).is_file() for name in CHAT_TEMPLATES):
        return True
    return (folder / PROCESSOR).is_file() and "chat_template" in read_object(folder / PROCESSOR)


def decoder_example(model_id: str, with_chat: bool) -> str:
    """Return the Python code that asks a decoder model about an image.

    Args:
        model_id: its id on the Hub.
        with_chat: whether its processor has a chat template.
    """
    return (CHAT_EXAMPLE if with_chat else PROMPT_EXAMPLE).replace(CARD_MODEL, model_id)


def read_bench(values: Any, where: str) -> DecoderReport:
    """Read what a card holds of `pumer-hf bench`.

    Raises:
        ValueError: these are no results of a decoder model; the message names `where`.
    """
    try:
        return DecoderReport.from_dict(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: its `bench` holds no results of a decoder model: {error!r}") from error


def published_bench(report: DecoderReport) -> DecoderReport:
    """Return results for the public. They name the checkpoint and the files by the last part of their paths."""
    return replace(
        report,
        source={name: public_name(value) for name, value in report.source.items()},
        environment=published_environment(report.environment),
    )


def speed_section(report: DecoderReport) -> str:
    """Return the work and the limit that follows from it, the table of the speed, and how it was measured."""
    table = [[cell.strip() for cell in row] for row in rows(report)]
    machine = report.environment.machine_name
    said = [*notes(report), *([f"Measured on {machine}."] if machine else [])]
    return "\n\n".join(["\n".join(f"- {line}." for line in work_lines(report)), markdown_table(table), " ".join(said)])
