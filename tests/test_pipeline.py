"""`pipeline("pumer-vqa")`."""

import functools
import http.server
import threading

import pytest
import tiny_models
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from tiny import noise
from transformers import ViltImageProcessorPil, ViltProcessor, pipeline

from pumer_hf import PuMerVqaPipeline
from pumer_hf.inputs import Encoder
from pumer_hf.models.encoders.meter import PuMerMeterProcessor
from pumer_hf.models.encoders.meter.processing import build_roberta_tokenizer
from pumer_hf.models.encoders.vilt.processing import build_bert_tokenizer

TEXTS = ["how many red circles are there?", "is it blue?"]


def tiny(family, class_name="model_class", **config):
    if family == "vilt":
        image_processor = ViltImageProcessorPil(size={"shortest_edge": 16}, size_divisor=4)
        processor = ViltProcessor(image_processor, build_bert_tokenizer(TEXTS, 12))
        config["vocab_size"] = len(processor.tokenizer)
    else:
        processor = PuMerMeterProcessor.from_tokenizer(build_roberta_tokenizer(TEXTS, 11), 16)
        text = tiny_models.meter_config().text_config.to_dict()
        vocabulary = {"vocab_size": len(processor.tokenizer), "pad_token_id": processor.tokenizer.pad_token_id}
        config["text_config"] = {**text, **vocabulary, "max_position_embeddings": 14}
    torch.manual_seed(0)
    entry = tiny_models.FAMILIES[family]
    reduction = tiny_models.schedule("pumer", "small")
    return getattr(entry, class_name)(entry.config(reduction=reduction, **config)).eval(), processor


@pytest.fixture(scope="module", params=["vilt", "meter"])
def vqa(request, tmp_path_factory):
    """A pipeline from a folder, as `pipeline` makes it."""
    folder = tmp_path_factory.mktemp(request.param)
    names = {index: f"answer {index}" for index in range(tiny_models.NUM_LABELS)}
    model, processor = tiny(request.param, id2label=names)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return pipeline(task="pumer-vqa", model=str(folder))


@pytest.fixture(scope="module")
def picture():
    return noise(24, 16)


def test_answers_come_with_probabilities_the_best_first(vqa, picture):
    assert isinstance(vqa, PuMerVqaPipeline)
    answers = vqa(image=picture, question=TEXTS[0], top_k=2)
    assert len(answers) == 2
    assert answers[0]["score"] > answers[1]["score"]
    everything = vqa(image=picture, question=TEXTS[0], top_k=100)
    assert sorted(answer["answer"] for answer in everything) == [f"answer {i}" for i in range(tiny_models.NUM_LABELS)]

    length = vqa.model.config.max_text_length
    squares = vqa.processor(
        images=[picture.resize((16, 16), Image.Resampling.BICUBIC)],
        text=[TEXTS[0]],
        padding="max_length",
        max_length=length,
        return_tensors="pt",
    )
    best = vqa.model(**squares).logits[0].sigmoid().max().item()
    assert answers[0]["score"] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_give_what_single_questions_give(vqa, picture, batch_size):
    images = [picture, picture.rotate(90, expand=True), Image.new("RGB", (40, 16)), picture]
    questions = [TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[1]]
    together = vqa(image=images, question=questions, batch_size=batch_size, top_k=3)
    alone = [vqa(image=image, question=text, top_k=3) for image, text in zip(images, questions, strict=True)]
    for ours, theirs in zip(together, alone, strict=True):
        assert [answer["answer"] for answer in ours] == [answer["answer"] for answer in theirs]
        assert [answer["score"] for answer in ours] == pytest.approx([answer["score"] for answer in theirs], abs=1e-5)


def test_one_image_many_questions_and_the_other_way_round(vqa, picture):
    assert vqa(picture, TEXTS) == [vqa(picture, text) for text in TEXTS]
    assert vqa([picture, picture], TEXTS[0]) == [vqa(picture, TEXTS[0])] * 2
    rows = [{"image": picture, "question": text} for text in TEXTS]
    assert vqa(rows) == vqa(picture, TEXTS) == list(vqa(row for row in rows))
    assert vqa(rows[0]) == vqa(rows)[0]
    assert vqa([]) == []


def test_paths_and_urls(vqa, picture, tmp_path):
    picture.save(tmp_path / "picture.png")
    expected = vqa(picture, TEXTS[0])
    assert vqa(str(tmp_path / "picture.png"), TEXTS[0]) == expected

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path))
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        assert vqa(f"{address}/picture.png", TEXTS[0]) == expected
        with pytest.raises(ValueError, match=rf"{address}/gone\.png: .*404"):
            vqa(f"{address}/gone.png", TEXTS[0])
        server.shutdown()


@pytest.fixture(scope="module")
def files(picture, tmp_path_factory):
    """Two pictures as files, one stored turned, and what is seen in it."""
    folder = tmp_path_factory.mktemp("files")
    picture.save(folder / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90, expand=True).save(folder / "b.png", exif=exif)
    return [str(folder / "a.png"), str(folder / "b.png")]


def rows_of(files, feature=None):
    features = Features({"image": feature or ImageFeature(), "question": Value("string"), "more": Value("int64")})
    return Dataset.from_dict({"image": files, "question": TEXTS, "more": [1, 2]}, features=features)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_datasets(vqa, picture, files, batch_size):
    expected = vqa(picture, TEXTS, batch_size=batch_size)
    for feature in (ImageFeature(), ImageFeature(decode=False), Value("string")):
        assert list(vqa(rows_of(files, feature), batch_size=batch_size)) == expected
    assert list(vqa(rows_of(files).to_iterable_dataset(), batch_size=batch_size)) == expected
    rows = rows_of(files)
    assert vqa(rows["image"], rows["question"], batch_size=batch_size) == expected


def test_a_dataset_without_its_columns_is_refused(vqa, files):
    with pytest.raises(ValueError, match=r"columns image and question, .*\['image', 'text', 'more'\]"):
        vqa(rows_of(files).rename_column("question", "text"))


def test_pictures_that_are_broken_are_named_with_their_place(vqa, files, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"no picture")
    names = [files[0], str(tmp_path / "cut.png")]
    inputs = {
        "dataset": rows_of(names),
        "stream": rows_of(names).to_iterable_dataset(),
        "list": [{"image": name, "question": TEXTS[0]} for name in names],
        "generator": ({"image": name, "question": TEXTS[0]} for name in names),
    }
    for kind, examples in inputs.items():
        with pytest.raises(ValueError, match=r"example 1: .*cannot read .*cut\.png") as error:
            list(vqa(examples))
        assert "no picture" not in str(error.value), kind
    with pytest.raises(ValueError, match=r"example 1: .*cannot read .*cut\.png"):
        vqa(names, TEXTS[0])
    with pytest.raises(ValueError, match=r"^cannot read .*cut\.png"):
        vqa(names[1], TEXTS[0])
    with pytest.raises(ValueError, match=r"row 9: .*cannot read .*cut\.png"):
        vqa({"image": names[1], "question": TEXTS[0], "origin": "row 9"})


def test_keeping_the_shape_of_images(picture):
    model, processor = tiny("vilt")
    vqa = pipeline("pumer-vqa", model=model, processor=processor)
    wide = noise(32, 16)
    assert vqa(wide, TEXTS[0], keep_aspect_ratio=True) != vqa(wide, TEXTS[0])
    square = picture.resize((16, 16))
    assert vqa(square, TEXTS[0], keep_aspect_ratio=True) == vqa(square, TEXTS[0])
    with pytest.raises(ValueError, match="keep_aspect_ratio=True .*batch_size=1"):
        vqa([wide, square], TEXTS[0], keep_aspect_ratio=True, batch_size=2)
    keeping = Encoder.of(model, processor, keep_aspect_ratio=True).processor
    kept = pipeline("pumer-vqa", model=model, processor=keeping)
    assert kept(wide, TEXTS[0]) == vqa(wide, TEXTS[0], keep_aspect_ratio=True)
    assert kept(wide, TEXTS[0], keep_aspect_ratio=False) == vqa(wide, TEXTS[0])
    with pytest.raises(ValueError, match="keep_aspect_ratio=True needs batch_size=1"):
        kept([wide, square], TEXTS[0], batch_size=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"question": "x", "top_k": 0}, "top_k=0: .*1"),
        ({"question": ["x", "y", "z"], "image": ["a", "b"]}, "2 images .*3 questions"),
        ({"question": " "}, "question=' '"),
        ({}, "image and a question"),
        ({"question": "x", "topk": 3}, "argument 'topk'"),
        ({"question": "x", "max_text_length": 99}, r"max_text_length=99: .*\[3, "),
    ],
)
def test_errors(vqa, picture, arguments, message):
    with pytest.raises(ValueError, match=message):
        vqa(**{"image": picture, **arguments})


def test_models_of_other_tasks_are_refused(tmp_path):
    model, processor = tiny("vilt", "entailment_class")
    with pytest.raises(ValueError, match="pumer-vqa .*model .*questions"):
        pipeline("pumer-vqa", model=model, processor=processor)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="PuMerViltForVisualEntailment"):
        pipeline("pumer-vqa", model=str(tmp_path))
    model, _ = tiny("vilt")
    with pytest.raises(ValueError, match="pumer-vqa .*processor"):
        PuMerVqaPipeline(model)
