"""Columns of Hub datasets as they are in the wild: each works, loaded and streamed, or is an error that names it."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from tiny import png, undecoded
from transformers import EvalPrediction

from pumer_hf.data.columns import answers_of, captions_of, class_name, image_of, text_of, truth
from pumer_hf.data.hub import Reader, convert_rows, load_hub_split, stream_rows
from pumer_hf.data.nlvr2 import Nlvr2DataArguments, identifier_of, load_nlvr2
from pumer_hf.data.retrieval import RetrievalDataArguments, load_retrieval
from pumer_hf.data.snli_ve import SnliVeDataArguments, entailment, load_snli_ve, read_snli_ve
from pumer_hf.data.vqa import VQA, VqaCollator, VqaDataArguments, load_vqa
from pumer_hf.images import open_image
from pumer_hf.metrics.vqa import language_baselines

STRING, NUMBER = Value("string"), Value("int64")
RED, GREEN = (255, 0, 0), (0, 255, 0)


def read(convert, feature, values, streaming=False, folder=None):
    """The values of a column that a converter makes, in order, loaded or streamed."""
    features = Features({"theirs": feature, "picture": Image()})
    dataset = Dataset.from_dict({"theirs": values, "picture": [undecoded()] * len(values)}, features=features)
    converts = {"ours": convert, "image": image_of}
    reader = Reader(converts, {"ours": "theirs", "image": "picture"}, features, folder)
    if streaming:
        found = sorted(
            stream_rows(dataset.to_iterable_dataset(), reader, "train"), key=lambda row: int(row["origin"].split()[-1])
        )
    else:
        found = convert_rows(dataset, reader, "train", range(len(values)))
    return [row["ours"] for row in found]


WORDS = ClassLabel(names=["no", "yes", "2"])
ANSWERS = {
    "one": (STRING, ["yes", "no"], [["yes"], ["no"]]),
    "list": (List(STRING), [["yes", "no"], ["no"]], [["yes", "no"], ["no"]]),
    "list with null and blank": (List(STRING), [["yes", None, " ", "no"]], [["yes", "no"]]),
    "objects": (List({"answer": STRING, "id": NUMBER}), [[{"answer": "yes", "id": 1}]], [["yes"]]),
    "object with null": (List({"answer": STRING}), [[{"answer": None}, {"answer": "a"}]], [["a"]]),
    "object of lists": (
        {"answer": List(STRING), "id": List(NUMBER)},
        [{"answer": ["a", "b"], "id": [1, 2]}],
        [["a", "b"]],
    ),
    "one object": ({"answer": STRING}, [{"answer": "yes"}], [["yes"]]),
    "whole number": (NUMBER, [3, 0], [["3"], ["0"]]),
    "whole numbers as float": (Value("float64"), [3.0, 2.5], [["3"], ["2.5"]]),
    "whole numbers": (List(NUMBER), [[3, 4]], [["3", "4"]]),
    "class": (WORDS, [1, 2], [["yes"], ["2"]]),
    "classes": (List(WORDS), [[1, 0]], [["yes", "no"]]),
    "objects with a class": (List({"answer": WORDS}), [[{"answer": 2}]], [["2"]]),
    "unlabelled": (List(STRING), [None, [], ["a"], [None]], [["a"]]),
    "unlabelled class": (WORDS, [-1, None, 1], [["yes"]]),
    "unlabelled number": (Value("float64"), [float("nan"), 1.0], [["1"]]),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ANSWERS)
def test_answers(form, streaming):
    feature, values, expected = ANSWERS[form]
    assert read(answers_of, feature, values, streaming) == expected


IDS = {"ids": List(STRING), "weights": List(Value("float32"))}
WEIGHTED = [
    {"ids": ["Yes", "no"], "weights": [1.0, 0.3]},
    {"ids": [], "weights": []},
    {"ids": ["no"], "weights": [0.6]},
]


def test_weights_are_the_targets_of_their_answers(hub, caplog):
    columns = {"label": WEIGHTED, "image": [undecoded()] * 3, "question": ["is it?", "why?", "is it?"]}
    source = hub({"label": IDS, "image": Image(), "question": STRING}, train=columns, validation=columns)
    arguments = {"dataset": source, "columns": {"answers": "label"}}
    data = load_vqa(VqaDataArguments(**arguments))
    assert data.labels == ("no", "yes")
    assert data.train["question"][:] == ["is it?", "is it?"]
    assert f"1 of 3 rows have no label and are left out; the first is {source}, train, row 1" in caplog.text
    streamed = load_vqa(VqaDataArguments(**arguments, streaming=True), labels=data.labels)
    collator = VqaCollator(encoder=None, labels=data.labels)
    for rows in (data.train, sorted(streamed.train, key=lambda row: row["origin"])):
        targets = collator.labels_of(list(rows))
        torch.testing.assert_close(targets, torch.tensor([[0.3, 1.0], [0.6, 0.0]]))
    scores = VQA.metrics(data.validation, data.labels)(
        EvalPrediction(predictions=np.array([[0.0, 1.0], [1.0, 0.0]]), label_ids=targets.numpy())
    )
    assert scores == {"accuracy": pytest.approx(80)}
    # "no" is the best answer on the whole (0.9 of 2), but to this question "yes" (1.0 of 2)
    assert language_baselines(data.train, data.validation) == pytest.approx({"majority": 50, "question_only": 50})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"ids": ["a"], "weights": [1.0, 0.3]}, "1 ids .*2 weights"),
        ({"ids": ["a"], "weights": [1.5]}, r"\[0, 1\], got \[1.5\]"),
        ({"ids": ["a"], "weights": [None]}, r"got \[None\]"),
        ([{"reply": "a"}], r"\['reply'\].*answer"),
        (True, "text, got True"),
        (b"yes", "must hold text"),
    ],
)
def test_answers_that_cannot_be_used(value, message):
    with pytest.raises(ValueError, match=message):
        answers_of(value, None)


CAPTIONS = {
    "one": (STRING, ["a dog"], [["a dog"]]),
    "list": (List(STRING), [["a dog", "", None, "an animal"]], [["a dog", "an animal"]]),
    "sentences": (List({"raw": STRING, "sentid": NUMBER}), [[{"raw": "a dog", "sentid": 1}]], [["a dog"]]),
    "COCO": (List({"caption": STRING, "id": NUMBER}), [[{"caption": "a dog", "id": 1}]], [["a dog"]]),
}


@pytest.mark.parametrize("form", CAPTIONS)
def test_captions(form):
    feature, values, expected = CAPTIONS[form]
    assert read(captions_of, feature, values, streaming=False) == expected


@pytest.mark.parametrize("nothing", [None, [], [""], [None]])
def test_an_image_without_a_caption_is_named(hub, nothing):
    rows = {"image": [undecoded()] * 3, "captions": [["a"], ["b"], nothing]}
    source = hub({"image": Image(), "captions": List(STRING)}, train=rows, validation=rows)
    with pytest.raises(ValueError, match="train, row 2: .*'captions' .*at least one"):
        load_retrieval(RetrievalDataArguments(dataset=source))


IMAGE_FORMS = {
    "image": (Image(), [undecoded(GREEN)]),
    "bytes": (Value("binary"), [png(GREEN)]),
    "large bytes": (Value("large_binary"), [png(GREEN)]),
    "object": ({"bytes": Value("binary"), "path": STRING}, [undecoded(GREEN)]),
    "larger object": ({"bytes": Value("binary"), "path": STRING, "size": NUMBER}, [{**undecoded(GREEN), "size": 1}]),
    "list": (List(Image()), [[undecoded(GREEN)]]),
    "list of bytes": (List(Value("binary")), [[png(GREEN)]]),
}


def colour_of(image):
    assert image.keys() == {"path", "bytes"}
    return open_image(image, "row").getpixel((0, 0))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", IMAGE_FORMS)
def test_images(form, streaming):
    feature, values = IMAGE_FORMS[form]
    (image,) = read(image_of, feature, values, streaming)
    assert colour_of(image) == GREEN


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "feature", [STRING, Value("large_string"), List(STRING), {"bytes": Value("binary"), "path": STRING}]
)
def test_image_paths_are_relative_to_a_folder(feature, streaming, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png(GREEN))
    value = {"bytes": None, "path": "a.png"} if isinstance(feature, dict) else "a.png"
    values = [[value] if isinstance(feature, List) else value]
    (image,) = read(image_of, feature, values, streaming, tmp_path / "pictures")
    assert colour_of(image) == GREEN


def test_image_paths_are_relative_to_the_folder_of_the_dataset_by_default(hub):
    rows = {"image": ["a.png"], "label": ["neutral"], "hypothesis": ["a"]}
    source = hub(train=rows, validation=rows)
    (Path(source) / "a.png").write_bytes(png(GREEN))
    data = load_snli_ve(SnliVeDataArguments(dataset=source))
    assert colour_of(data.train[0]["image"]) == GREEN
    assert data.train[0]["image"]["path"] == str(Path(source) / "a.png")


NO_IMAGES = {
    "null": (Image(), [undecoded(), None], "must hold an image"),
    "null bytes": (Value("binary"), [png(), None], "must hold an image"),
    "null path": (STRING, ["https://host/a.png", None], "must hold an image"),
    "missing file": (STRING, ["https://host/a.png", "b.png"], "names the image 'b.png', .* data.image_dir"),
    "two images": (List(Image()), [[undecoded()], [undecoded()] * 2], "a list of 2"),
    "no image in the list": (List(Image()), [[undecoded()], []], "a list of 0"),
    "number": (NUMBER, [1, 2], "must hold an image, .* got"),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", NO_IMAGES)
def test_a_row_without_an_image_is_named(form, streaming):
    feature, values, message = NO_IMAGES[form]
    row = 0 if form == "number" else 1
    with pytest.raises(ValueError, match=f"train, row {row}: .*'theirs' .*{message}"):
        read(image_of, feature, values, streaming)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_row_without_a_question_is_named(hub, streaming):
    columns = {"query": ["why?", None], "answers": ["a", "b"], "image": [undecoded()] * 2}
    source = hub({"query": STRING, "answers": STRING, "image": Image()}, train=columns, validation=columns)
    args = VqaDataArguments(dataset=source, columns={"question": "query"}, streaming=streaming)
    columns = {"answers": answers_of, "question": text_of, "image": image_of}
    with pytest.raises(ValueError, match="train, row 1: .*'query' .*text, got None"):
        list(load_hub_split(args, "train", columns))


def test_a_text_may_be_alone_in_a_list():
    assert text_of(["why?"], List(STRING)) == "why?"
    for value in (["why?", "how?"], 3, [None]):
        with pytest.raises(ValueError, match="must hold text|list of 2"):
            text_of(value, None)


NLI = ClassLabel(names=["contradiction", "neutral", "entailment"])
LABELS = {
    "names": (STRING, ["neutral", "-", None, "", "Entailment "], ["neutral", "entailment"]),
    "classes": (NLI, [1, -1, None, 2], ["neutral", "entailment"]),
    "class for none": (ClassLabel(names=["-", "neutral"]), [0, 1], ["neutral"]),
    "list": (List(NLI), [[1], [-1]], ["neutral"]),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", LABELS)
def test_rows_without_a_label_are_left_out(form, streaming, caplog):
    feature, values, expected = LABELS[form]
    assert read(entailment, feature, values, streaming) == expected
    assert caplog.record_tuples[-1][1] == logging.WARNING
    if not streaming:
        first = next(row for row, value in enumerate(values) if value in ("-", -1, [-1]) or (form == "class for none"))
        assert f"{len(values) - len(expected)} of {len(values)} rows have no label" in caplog.text
        assert caplog.text.strip().endswith(f"train, row {first}")


def test_of_a_row_without_a_label_nothing_else_is_read(hub, caplog):
    rows = {"image": [undecoded(), None], "hypothesis": ["a", None], "label": ["neutral", "-"]}
    source = hub({"image": Image(), "hypothesis": STRING, "label": STRING}, train=rows, validation=rows)
    data = load_snli_ve(SnliVeDataArguments(dataset=source))
    (row,) = data.train.to_list()
    assert (row["hypothesis"], row["label"], row["origin"]) == ("a", "neutral", f"{source}, train, row 0")
    assert colour_of(row["image"]) == RED


def test_a_split_without_any_label_is_an_error():
    with pytest.raises(ValueError, match="train: .*'theirs'.* 2 rows"):
        read(entailment, STRING, ["-", None], streaming=False)


def test_left_out_rows_of_a_file_are_counted_too(tmp_path, caplog):
    (tmp_path / "1.jpg").write_bytes(png())
    lines = [f'{{"pairID": "1.jpg#0", "gold_label": "{label}", "sentence2": "a"}}' for label in ("-", "neutral", "-")]
    (tmp_path / "dev.jsonl").write_text("\n".join(lines))
    assert len(read_snli_ve([str(tmp_path / "dev.jsonl")], None, "train")) == 1
    assert f"2 of 3 rows have no label and are left out; the first is {tmp_path / 'dev.jsonl'}, line 1" in caplog.text


def test_a_label_that_the_task_does_not_know_is_named():
    with pytest.raises(ValueError, match="train, row 1: .*'theirs' .*got 'maybe'"):
        read(entailment, STRING, ["neutral", "maybe"], streaming=False)
    with pytest.raises(ValueError, match="row 0: .*'theirs' .*2: .*ClassLabel"):
        read(entailment, NUMBER, [2], streaming=False)


def test_truth():
    names = ("True", "false", 1, 0, True, "1", 1.0, [1])
    expected = ["True", "False", "True", "False", "True", "True", "True", "True"]
    assert [truth(value, None) for value in names] == expected
    assert truth(0, ClassLabel(names=["False", "True"])) == "False"
    assert truth(0, ClassLabel(names=["True", "False"])) == "True"
    assert [truth(value, None) for value in (-1, None, "-", float("nan"))] == [None] * 4
    with pytest.raises(ValueError, match="'maybe'.* true .*false"):
        truth("maybe", STRING)
    assert class_name("neutral", Value("large_string")) == "neutral"


def test_identifiers_that_do_not_tell_sentences_apart_are_named(hub):
    assert identifier_of("dev-850-0-0", STRING) == "dev-850-0-0"
    features = {"left": Image(), "right": Image(), "sentence": STRING, "label": Value("bool"), "identifier": NUMBER}
    row = {"left": [undecoded()], "right": [undecoded()], "sentence": ["a"], "label": [True], "identifier": [7]}
    source = hub(features, train=row, validation=row)
    with pytest.raises(ValueError, match="train, row 0: .*'identifier' .*dev-850-0-0.* got 7"):
        load_nlvr2(Nlvr2DataArguments(dataset=source))


def test_only_rows_of_the_split_are_checked(hub):
    rows = {"image": [undecoded(), None, undecoded("blue")], "captions": ["a", None, "b"], "part": [0, 1, 0]}
    features = {"image": Image(), "captions": STRING, "part": ClassLabel(names=["train", "rest"])}
    args = RetrievalDataArguments(dataset=hub(features, every=rows), split_column="part", validation_split="train")
    assert load_retrieval(args).train["origin"][:] == [f"{args.dataset}, train, row {row}" for row in (0, 2)]


def test_the_rows_of_several_files_are_all_streamed():
    features = Features({"theirs": STRING, "picture": Image()})
    columns = {"theirs": [str(number) for number in range(6)], "picture": [undecoded()] * 6}
    stream = Dataset.from_dict(columns, features=features).to_iterable_dataset(num_shards=3)
    reader = Reader({"ours": text_of, "image": image_of}, {"ours": "theirs", "image": "picture"}, features, None)
    rows = list(stream_rows(stream, reader, "train"))
    assert sorted(row["ours"] for row in rows) == columns["theirs"]
    assert all(row["origin"].startswith("train, streamed row ") for row in rows)  # not a row of the dataset
