"""The examples to click on. They come from a folder, or are digit scenes for a model that was trained on them."""

from pathlib import Path
from typing import Any

from PIL import Image as PILImage
from transformers import ProcessorMixin

from ..data.files import find_image, json_field, read_objects
from ..data.scenes.digits import CELL_SIZE, COLOURS, DIGITS, SETTINGS
from ..data.tasks import task_of_model
from ..data.vqa import page_examples
from ..hub.card import FACTS_NAME
from ..images import open_image
from ..inputs import image_side
from ..models.encoders.base import PuMerPreTrainedModel
from ..models.families import patch_size
from ..reading import read_json

DIGIT_SCENES = "digit-scenes"
FILE = "examples.jsonl"
NUM_EXAMPLES = 6
MAX_VOCABULARY = 1000
Example = tuple[PILImage.Image, str]


def find_examples(source: str | None, model: PuMerPreTrainedModel, processor: ProcessorMixin) -> list[Example]:
    """Return images with texts.

    Args:
        source: `"digit-scenes"`, or a folder with `examples.jsonl`, in which each line is an object with `image` (a
            file in the folder) and `text`. None means digit scenes if the model knows nothing else
            ([`knows_only_digit_scenes`]); otherwise it means no examples.
        model: the model that is asked.
        processor: the processor of the checkpoint.
    """
    if source is None:
        source = DIGIT_SCENES if knows_only_digit_scenes(model, processor) else None
    if source is None:
        return []
    return scene_examples(model) if source == DIGIT_SCENES else read_examples(Path(source))


def find_decoder_examples(source: str | None, processor: ProcessorMixin, checkpoint: str) -> list[Example]:
    """Return images with questions for a decoder model.

    Args:
        source: as in [`find_examples`]. None means digit scenes if the model knows hardly any other words
            ([`knows_scene_words`]).
        processor: the processor of the checkpoint.
        checkpoint: the folder of the model, or its id on the Hub.
    """
    if source is None and knows_scene_words(processor):
        source = DIGIT_SCENES
    if source is None:
        return []
    if source == DIGIT_SCENES:
        return page_examples(NUM_EXAMPLES, image_side(processor) // CELL_SIZE, scenes_setting(checkpoint))
    return read_examples(Path(source))


def knows_only_digit_scenes(model: PuMerPreTrainedModel, processor: ProcessorMixin) -> bool:
    """Return whether a model was trained on digit scenes: it knows hardly any other words ([`knows_scene_words`]), and
    its patches are as large as their cells.
    """
    return knows_scene_words(processor) and patch_size(model.config) == (CELL_SIZE,) * 2


def knows_scene_words(processor: ProcessorMixin) -> bool:
    """Return whether a processor has a small vocabulary with the words of digit scenes."""
    vocabulary = {token.lstrip("Ġ") for token in processor.tokenizer.get_vocab()}
    return {"digit", *DIGITS[1:], *COLOURS} <= vocabulary and len(vocabulary) < MAX_VOCABULARY


def scene_examples(model: PuMerPreTrainedModel) -> list[Example]:
    """Return digit scenes of the test split, of the size and the setting that the model was trained on."""
    task = task_of_model(model)
    if task is None or task.page_examples is None:
        return []
    return task.page_examples(NUM_EXAMPLES, model.config.image_size // CELL_SIZE, scenes_setting(model.name_or_path))


def scenes_setting(checkpoint: str) -> str:
    """Return the setting of the scenes that a model was trained on, as its card says it; `"plain"` without a card."""
    path = Path(checkpoint, FACTS_NAME)
    facts = read_json(path) if path.is_file() else {}
    dataset = facts.get("dataset") if isinstance(facts, dict) else None
    setting = dataset.get("setting") if isinstance(dataset, dict) else None
    return setting if setting in SETTINGS else "plain"


def read_examples(folder: Path) -> list[Example]:
    """Read the examples in a folder. Errors name the file and the line."""
    examples = []
    for row, origin in read_objects([str(folder / FILE)]):
        image: dict[str, Any] = find_image(folder, [json_field(row, "image", str, origin)], origin)
        examples.append((open_image(image, origin), json_field(row, "text", str, origin)))
    if not examples:
        raise ValueError(f"{folder / FILE}: the file holds no example")
    return examples
