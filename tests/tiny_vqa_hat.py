"""A tiny VQA-HAT as it is distributed: questions, answers, images, and maps of two annotators."""

import json

import numpy as np
from PIL import Image
from tiny import noise

QUESTIONS = [(10, 1, "what is red?"), (11, 1, "is it a two?"), (20, 2, "what is it?")]
"""question_id, image_id and text; the first two have maps, and the image of the third is not there."""


def write_map(path, *boxes, size=(40, 20)):
    """A map of a width and a height, bright in boxes (x0, y0, x1, y1)."""
    pixels = np.zeros(size[::-1], dtype=np.uint8)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = 200
    Image.fromarray(pixels).save(path)


def save_vqa_hat(folder):
    """Write all files; returns the arguments of `read_vqa_hat`.

    Of the first question one annotator marks the left half and one the top half; of the second one nothing and one the
    last pixel.
    """
    for name in ("maps", "images"):
        (folder / name).mkdir()
    noise(40, 20).save(folder / "images" / "COCO_val2014_000000000001.jpg")
    boxes = {"10_1": [(0, 0, 20, 20)], "10_2": [(0, 0, 40, 10)], "11_1": [], "11_2": [(39, 19, 40, 20)]}
    for name, own in boxes.items():
        write_map(folder / "maps" / f"{name}.png", *own)
    names = ("question_id", "image_id", "question")
    asked = [dict(zip(names, question, strict=True)) for question in QUESTIONS]
    answered = [{"question_id": number, "answers": [{"answer": "red"}, {"answer": "no"}]} for number in (10, 11)]
    (folder / "questions.json").write_text(json.dumps({"questions": asked}))
    (folder / "annotations.json").write_text(json.dumps({"annotations": answered}))
    names = {"maps": "maps", "questions": "questions.json", "image_dir": "images", "annotations": "annotations.json"}
    return {name: str(folder / path) for name, path in names.items()}
