"""A picture gives the same pixels by every way in: recipes, `encode_example`, pipeline, `explain`, page, VQA-HAT."""

import functools
import json

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from numpy.testing import assert_array_equal
from PIL import Image
from tiny_tasks import LABELS, tiny
from transformers import CLIPImageProcessorPil

from pumer_hf import PuMerVqaPipeline
from pumer_hf.data.files import read_vqa_files
from pumer_hf.data.vqa import VqaCollator
from pumer_hf.demo.asker import Asker
from pumer_hf.demo.examples import find_examples
from pumer_hf.demo.page import build_page
from pumer_hf.explain.prediction import encode
from pumer_hf.inputs import Encoder, encode_example
from pumer_hf.measures.vqa_hat import read_map

QUESTION = "what digit is red?"
GREY = np.random.default_rng(0).integers(0, 256, (40, 120), dtype=np.uint8)
PICTURE = Image.fromarray(np.stack([GREY] * 3, axis=2))
"""What people see in all of the files below: a grey picture three times as wide as high."""


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(np.asarray(PICTURE))).save(path, exif=exif)


def deep(path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(path)


def transparent(path):
    """Black, as far as it is there: what is white shows through."""
    Image.fromarray(np.stack([np.zeros_like(GREY), 255 - GREY], axis=2)).save(path)


FILES = {"plain": PICTURE.save, "turned": turned, "16 bits": deep, "transparent": transparent}


@functools.cache
def checkpoint(kind):
    """A model and a processor: ViLT, METER as released with PuMer (squares), METER as published (cuts the middle)."""
    model, processor = tiny("vilt" if kind == "vilt" else "meter")
    if kind == "original meter":
        square = {"height": 48, "width": 48}
        processor.image_processor = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=square)
    return model, processor


def expected(kind, processor):
    """Pixel values by PIL and the image processor alone."""
    picture = PICTURE.resize((48, 48), Image.Resampling.BICUBIC) if kind == "vilt" else PICTURE
    return processor.image_processor([picture], return_tensors="pt")["pixel_values"]


def recipe(path, model, processor):
    line = {"image": path.name, "question": QUESTION, "answer": "red"}
    (path.parent / "train.jsonl").write_text(json.dumps(line))
    return VqaCollator(Encoder(processor), LABELS["vqa"])(list(read_vqa_files([str(path.parent / "train.jsonl")])))


def dataset(path, model, processor):
    features = Features({"image": ImageFeature(), "question": Value("string")})
    rows = Dataset.from_dict({"image": [str(path)], "question": [QUESTION]}, features=features)
    seen = []
    pipeline = PuMerVqaPipeline(model, processor=processor)
    pipeline._forward = lambda inputs: seen.append(inputs) or {"logits": model(**inputs).logits}
    assert len(list(pipeline(rows))) == 1
    return seen[0]


def page_example(path, model, processor):
    (path.parent / "examples.jsonl").write_text(json.dumps({"image": path.name, "text": QUESTION}))
    ((image, text),) = find_examples(str(path.parent), model, processor)
    return encode(model, processor, image, text)


def page_upload(path, model, processor, gradio):
    page = build_page(Asker(model, processor), "tiny")
    (control,) = (block for block in page.blocks.values() if block.elem_id == "image")
    image = control.preprocess(gradio.data_classes.ImageData(path=str(path), orig_name=path.name))
    return encode(model, processor, image, QUESTION)


def pipeline(path, model, processor):
    example = {"image": str(path), "question": QUESTION}
    return PuMerVqaPipeline(model, processor=processor).preprocess(example)


def opened(path, model, processor):
    with Image.open(path) as image:
        return encode_example(model, processor, image, QUESTION)


WAYS = {
    "recipe": recipe,
    "encode_example of a path": lambda path, *parts: encode_example(*parts, path, QUESTION),
    "encode_example of an image": opened,
    "pipeline": pipeline,
    "pipeline of a dataset": dataset,
    "explain": lambda path, *parts: encode(*parts, str(path), QUESTION),
    "example of the page": page_example,
}


@pytest.mark.parametrize("kind", ["vilt", "meter", "original meter"])
@pytest.mark.parametrize("way", WAYS)
def test_a_picture_is_the_same_by_every_way_in(way, kind, tmp_path):
    check_pixels(WAYS[way], kind, tmp_path)


def test_a_picture_is_the_same_on_the_page(gradio, tmp_path):
    check_pixels(functools.partial(page_upload, gradio=gradio), "vilt", tmp_path)


def check_pixels(way, kind, folder):
    model, processor = checkpoint(kind)
    pixels = expected(kind, processor)
    for name, save in FILES.items():
        path = folder / f"{name}.png"
        save(path)
        assert torch.equal(way(path, model, processor)["pixel_values"], pixels), name


def test_the_maps_of_vqa_hat_are_pictures_like_others(tmp_path):
    for name, save in FILES.items():
        save(tmp_path / f"{name}.png")
        assert_array_equal(read_map(str(tmp_path / f"{name}.png")), GREY, err_msg=name)
