"""What a model was trained on is what a reloaded folder gives it: in the pipeline, on the page and in an ONNX file."""

import io

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image
from tiny_tasks import CONFIGS, LABELS, REDUCTION, TASKS, TEXTS
from transformers import pipeline

from pumer_hf import Encoder, EncodingRecord
from pumer_hf.bench.contenders import checked_text_length
from pumer_hf.data.task import TaskData
from pumer_hf.demo.asker import Asker
from pumer_hf.explain.prediction import encode
from pumer_hf.export.onnx_file import fixed_record
from pumer_hf.models.loading import load_checkpoint
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.recipe import ModelArguments, RecipeTrainingArguments
from pumer_hf.recipes.stages import train_stage

LONG = " ".join(["is there a red digit?"] * 4)
"""A text of 24 tokens in ViLT's vocabulary, so that 32 and 40 tokens of padding differ in what is merged."""
CAPTIONS = [[LONG], ["what digit is seven?"], ["is there a digit?"]]
SHAPES = [("vilt", False), ("vilt", True), ("meter", False)]
"""The backbone, and whether its images keep their shape, which METER's cannot."""


def picture(seed=0):
    """The bytes of a picture that is twice as wide as high."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


ROWS = {
    "vqa": {"image": picture(), "question": LONG, "answers": ["red"]},
    "snli_ve": {"image": picture(), "hypothesis": LONG, "label": "neutral"},
    "nlvr2": {"left": picture(), "right": picture(1), "sentence": LONG, "label": "True", "identifier": "a-0-0-0"},
    "retrieval": {"image": picture(), "captions": CAPTIONS[0]},
}


def dataset_of(task):
    """A data set of one row; in retrieval, with two more images whose captions are negatives."""
    rows = [{**ROWS[task], "origin": "row 0"}]
    if task == "retrieval":
        rows += [{"image": picture(), "captions": own, "origin": own[0]} for own in CAPTIONS[1:]]
    kinds = {"image": ImageFeature(decode=False), "left": ImageFeature(decode=False)}
    kinds |= {"right": kinds["left"], "answers": List(Value("string")), "captions": List(Value("string"))}
    features = Features({name: kinds.get(name, Value("string")) for name in rows[0]})
    return Dataset.from_list(rows, features=features)


def seen_by(model, run):
    """The inputs with which the model is called while `run()` runs, without labels."""
    seen = []
    hook = model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    run()
    hook.remove()
    return [
        {name: value for name, value in call.items() if torch.is_tensor(value) and name != "labels"} for call in seen
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny model, trained for one step with a task's own collator: its folder, and the inputs of that step."""
    runs = {}

    def train(backbone, task, keep_aspect_ratio):
        key = (backbone, task, keep_aspect_ratio)
        if key not in runs:
            runs[key] = new_run(tmp_path_factory.mktemp("run") / "student", TASKS[task], backbone, keep_aspect_ratio)
        return runs[key]

    return train


def new_run(folder, task, backbone, keep_aspect_ratio):
    torch.manual_seed(0)
    args = ModelArguments(backbone=backbone, config=CONFIGS[backbone])
    model, processor = build_teacher(args, LABELS[task.name], TEXTS, 40, task)
    model.set_reduction(REDUCTION)
    fields = {"num_negatives": 2} if task.name == "retrieval" else {}
    data_args = task.arguments(max_text_length=32, keep_aspect_ratio=keep_aspect_ratio, **fields)
    rows = dataset_of(task.name)
    data = TaskData(rows, rows, rows, tuple(LABELS[task.name]))
    training = {
        "max_steps": 1,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    training |= {"per_device_train_batch_size": 1, "use_cpu": True, "early_stopping_patience": 0}
    training |= {"load_best_model_at_end": False}
    args = RecipeTrainingArguments(output_dir=str(folder), **training)
    run = {"train": rows.select([0]), "validation": rows, "collator": task.collator(processor, data, data_args, True)}
    calls = seen_by(model, lambda: train_stage(args, model, **run, processor=None, compute_metrics=lambda _: {}))
    return folder, calls[0]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name].cpu(), value.cpu()), name


@pytest.mark.parametrize(("backbone", "keeps_shape"), SHAPES)
@pytest.mark.parametrize("task", ["vqa", "snli_ve", "nlvr2"])
def test_an_example_is_encoded_as_in_training(backbone, keeps_shape, task, trained):
    folder, expected = trained(backbone, task, keeps_shape)
    assert expected["input_ids"].shape == (1, 32)
    assert (expected["pixel_values"].shape[-2:] == (48, 48)) != keeps_shape
    row = ROWS[task]
    images = [row["left"], row["right"]] if task == "nlvr2" else row["image"]
    assert_same(encode(*load_checkpoint(str(folder)), images, LONG), expected)


@pytest.mark.parametrize(("backbone", "keeps_shape"), SHAPES)
def test_each_candidate_is_encoded_as_in_training(backbone, keeps_shape, trained):
    folder, expected = trained(backbone, "retrieval", keeps_shape)
    assert expected["input_ids"].shape == (1, 3, 32)
    model, processor = load_checkpoint(str(folder))
    found = [encode(model, processor, ROWS["retrieval"]["image"], own) for (own,) in CAPTIONS]
    assert all(torch.equal(one["pixel_values"], expected["pixel_values"]) for one in found)
    assert {tuple(one["input_ids"][0].tolist()) for one in found} == {
        tuple(ids) for ids in expected["input_ids"][0].tolist()
    }


@pytest.mark.parametrize(("backbone", "keeps_shape"), SHAPES)
def test_the_pipeline_encodes_as_in_training(backbone, keeps_shape, trained):
    folder, expected = trained(backbone, "vqa", keeps_shape)
    vqa = pipeline("pumer-vqa", model=str(folder))
    example = {"image": Image.open(io.BytesIO(ROWS["vqa"]["image"]["bytes"])), "question": LONG}
    (found,) = seen_by(vqa.model, lambda: vqa(example))
    assert_same(found, expected)


@pytest.mark.parametrize("task", ["vqa", "snli_ve", "nlvr2"])
@pytest.mark.parametrize("backbone", CONFIGS)
def test_an_onnx_file_says_how_training_encoded(backbone, task, trained):
    """What is written into the file; that it is in the file is tested where files are made."""
    folder, expected = trained(backbone, task, False)
    model, processor = load_checkpoint(str(folder))
    encoder = Encoder(processor, fixed_record(model, checked_text_length(model, None)))
    row = ROWS[task]
    assert_same(encoder([[row["left"], row["right"]] if task == "nlvr2" else row["image"]], [LONG]), expected)


def test_an_onnx_file_of_a_model_that_keeps_shapes_takes_squares(trained, caplog):
    folder, _ = trained("vilt", "vqa", True)
    model, _ = load_checkpoint(str(folder))
    assert fixed_record(model, 32) == EncodingRecord(32)
    assert "squares" in caplog.text


@pytest.mark.parametrize(("backbone", "keeps_shape"), SHAPES)
@pytest.mark.parametrize("task", ["vqa", "snli_ve"])
def test_the_page_encodes_as_in_training(backbone, keeps_shape, task, trained):
    folder, expected = trained(backbone, task, keeps_shape)
    asker = Asker.load(str(folder))
    image = Image.open(io.BytesIO(ROWS[task]["image"]["bytes"]))
    (found,) = seen_by(asker.model, lambda: asker.ask(image, LONG, REDUCTION))
    assert_same(found, expected)
