"""Examples to click on."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_tasks import tiny
from transformers import AutoModelForVisualQuestionAnswering, AutoProcessor, BertTokenizer, ViltProcessor

from pumer_hf.demo.examples import NUM_EXAMPLES, find_examples, scenes_setting
from pumer_hf.example import MODEL


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (40, 30), (200, 0, 0)).save(tmp_path / "red.png")
    (tmp_path / "examples.jsonl").write_text(json.dumps({"image": "red.png", "text": "what colour?"}))
    return tmp_path


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
@pytest.mark.parametrize("task", ["vqa", "snli_ve"])
def test_a_model_of_digit_scenes_gets_digit_scenes(backbone, task):
    model, processor = tiny(backbone, task)
    examples = find_examples(None, model, processor)
    assert len(examples) == NUM_EXAMPLES
    assert all(image.size == (48, 48) and image.mode == "RGB" for image, _ in examples)
    assert all(text.startswith("there is a ") == (task == "snli_ve") for _, text in examples)
    assert len({image.tobytes() for image, _ in examples}) == NUM_EXAMPLES


def test_a_model_of_cluttered_scenes_gets_cluttered_scenes():
    """Its card says on which scenes it was trained."""
    model, processor = AutoModelForVisualQuestionAnswering.from_pretrained(MODEL), AutoProcessor.from_pretrained(MODEL)
    pictures = [image for image, _ in find_examples(None, model, processor)]
    assert [picture.size for picture in pictures] == [(64, 64)] * NUM_EXAMPLES
    empty = [(np.asarray(picture) == 0).all(-1).mean() for picture in pictures]
    assert max(empty) < 0.5  # a plain scene is black but for three digits


@pytest.mark.parametrize(
    ("facts", "setting"),
    [
        ({"dataset": {"setting": "cluttered"}}, "cluttered"),
        ({"dataset": {"setting": "no such one"}}, "plain"),
        ({"dataset": {"name": "easy-VQA"}}, "plain"),
        ({}, "plain"),
        ([], "plain"),
        (None, "plain"),
    ],
)
def test_the_setting_is_that_of_the_card(facts, setting, tmp_path):
    if facts is not None:
        (tmp_path / "results.json").write_text(json.dumps(facts))
    assert scenes_setting(str(tmp_path)) == setting


def test_another_model_gets_none_unless_it_is_told(folder):
    model, processor = tiny("vilt")
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat"])}
    processor = ViltProcessor(processor.image_processor, BertTokenizer(vocab=words))
    assert find_examples(None, model, processor) == []
    assert len(find_examples("digit-scenes", model, processor)) == NUM_EXAMPLES
    ((image, text),) = find_examples(str(folder), model, processor)
    assert text == "what colour?"
    assert (image.size, image.getpixel((0, 0))) == ((40, 30), (200, 0, 0))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, "examples.jsonl: .*no such file"),
        ("", "examples.jsonl.*no example"),
        ("{", "line 1: .*not valid JSON"),
        ('{"image": "red.png"}', "line 1: .*'text' .*missing"),
        ('{"image": "blue.png", "text": "?"}', "line 1: .*no image .*blue.png"),
    ],
)
def test_errors_name_file_and_line(lines, message, folder):
    (folder / "examples.jsonl").unlink()
    if lines is not None:
        (folder / "examples.jsonl").write_text(lines)
    with pytest.raises((ValueError, OSError), match=message):
        find_examples(str(folder), *tiny("vilt"))
