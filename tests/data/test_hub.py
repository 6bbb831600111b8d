"""Hub datasets, as folders of parquet files: `load_dataset` reads either in the same way."""

import shutil
import sys
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Image, IterableDataset, List, Value
from datasets.exceptions import DatasetNotFoundError
from httpx import Request, Response
from huggingface_hub.errors import RevisionNotFoundError
from in_process import run_here
from tiny import png, undecoded

from pumer_hf.data.arguments import DataArguments
from pumer_hf.data.columns import class_name, image_of, text_of
from pumer_hf.data.hub import load_hub_split
from pumer_hf.data.nlvr2 import Nlvr2DataArguments, load_nlvr2
from pumer_hf.data.retrieval import RetrievalDataArguments, load_retrieval
from pumer_hf.data.snli_ve import SnliVeDataArguments, load_snli_ve
from pumer_hf.data.vqa import VqaDataArguments, load_vqa
from pumer_hf.images import open_image

COLUMNS = {"label": class_name, "hypothesis": text_of, "image": image_of}
VQA_FEATURES = {
    "picture": Image(),
    "question": Value("string"),
    "answers": List({"answer": Value("string"), "answer_id": Value("int64")}),
}


def vqa(*answers):
    return {
        "picture": [undecoded((number, 0, 0)) for number in range(len(answers))],
        "question": [f"what {number}?" for number in range(len(answers))],
        "answers": [[{"answer": given, "answer_id": 1}] for given in answers],
    }


def test_vqa_rows_come_by_our_names_with_their_origin(hub):
    source = hub(VQA_FEATURES, train=vqa("yes", "no"), validation=vqa("no"))
    data = load_vqa(VqaDataArguments(dataset=source, columns='{"image": "picture"}'))
    assert data.labels == ("no", "yes")
    rows = data.train.to_list()
    assert [row.pop("image")["bytes"] for row in rows] == [png((0, 0, 0)), png((1, 0, 0))]
    assert rows == [
        {"question": "what 0?", "answers": ["yes"], "origin": f"{source}, train, row 0"},
        {"question": "what 1?", "answers": ["no"], "origin": f"{source}, train, row 1"},
    ]
    assert data.test.to_list() == data.validation.to_list()


def test_a_streamed_training_split_has_the_same_rows(hub):
    source = hub(VQA_FEATURES, train=vqa("yes", "no", "yes"), validation=vqa("no"))
    arguments = {"dataset": source, "columns": {"image": "picture"}}
    loaded = load_vqa(VqaDataArguments(**arguments))
    streamed = load_vqa(VqaDataArguments(**arguments, streaming=True), labels=("no", "yes"))
    assert isinstance(streamed.train, IterableDataset)
    assert isinstance(streamed.validation, Dataset)

    def key(row):
        return row["origin"], row["question"], tuple(row["answers"]), row["image"]["bytes"]

    assert sorted(map(key, streamed.train)) == sorted(map(key, loaded.train))


def test_streaming_vqa_without_labels_is_an_error(hub):
    source = hub(VQA_FEATURES, train=vqa("yes", "no"), validation=vqa("no"))
    with pytest.raises(ValueError, match=r"data.streaming: .*model.teacher"):
        load_vqa(VqaDataArguments(dataset=source, columns={"image": "picture"}, streaming=True))


def test_a_column_that_is_not_there_is_an_error_that_lists_those_that_are(hub):
    source = hub(VQA_FEATURES, train=vqa("yes"), validation=vqa("no"))
    with pytest.raises(ValueError, match=r"\['picture', 'question', 'answers'\].* needs"):
        load_vqa(VqaDataArguments(dataset=source))
    with pytest.raises(ValueError, match=r"data.columns={.*'img': 'picture'"):
        load_vqa(VqaDataArguments(dataset=source, columns={"img": "picture"}))


def test_nlvr2(hub):
    features = {"image0": Image(), "image1": Image(), "sentence": Value("string"), "label": Value("bool")}
    features["identifier"] = Value("string")
    rows = {
        "image0": [undecoded()],
        "image1": [undecoded((0, 9, 0))],
        "sentence": ["two dogs"],
        "label": [True],
        "identifier": ["train-1-0-0"],
    }
    source = hub(features, train=rows, dev=rows)
    columns = {"left": "image0", "right": "image1"}
    data = load_nlvr2(Nlvr2DataArguments(dataset=source, columns=columns, validation_split="dev"))
    (row,) = data.validation.to_list()
    assert row["left"]["bytes"] == png()
    assert row["right"]["bytes"] == png((0, 9, 0))
    assert (row["sentence"], row["label"], row["identifier"]) == ("two dogs", "True", "train-1-0-0")


def test_snli_ve_with_class_labels(hub):
    names = ["contradiction", "neutral", "entailment"]
    features = {"image": Image(), "hypothesis": Value("string"), "label": ClassLabel(names=names)}
    rows = {"image": [undecoded()] * 3, "hypothesis": ["a", "b", "c"], "label": [2, 0, 1]}
    data = load_snli_ve(SnliVeDataArguments(dataset=hub(features, train=rows, validation=rows)))
    assert data.train["label"][:] == ["entailment", "contradiction", "neutral"]
    assert data.labels == ("entailment", "neutral", "contradiction")


def test_retrieval_with_a_split_column(hub):
    features = {"image": Image(), "caption": List(Value("string")), "split": Value("string")}
    rows = {
        "image": [undecoded((n, 0, 0)) for n in range(6)],
        "caption": [[f"one {n}", f"two {n}"] for n in range(6)],
        "split": ["train", "val", "train", "test", "val", "test"],
    }
    arguments = {
        "dataset": hub(features, test=rows),
        "columns": {"captions": "caption"},
        "split_column": "split",
        "validation_split": "val",
        "test_split": "test",
    }
    data = load_retrieval(RetrievalDataArguments(**arguments))
    assert data.train["captions"][:] == [["one 0", "two 0"]] * 2 + [["one 2", "two 2"]] * 2  # a row per caption
    assert data.validation["captions"][:] == [["one 1", "two 1"], ["one 4", "two 4"]]
    assert data.test["captions"][:] == [["one 3", "two 3"], ["one 5", "two 5"]]
    with pytest.raises(ValueError, match="data.train_split='dev': .*'split'"):
        load_retrieval(RetrievalDataArguments(**{**arguments, "train_split": "dev"}))
    with pytest.raises(ValueError, match="data.split_column='part'"):
        load_retrieval(RetrievalDataArguments(**{**arguments, "split_column": "part"}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "a/b", "train_file": ["a"], "validation_file": ["b"]}, "data.dataset and data.train_file"),
        ({"columns": {"a": "b"}}, "data.columns .*no dataset"),
        ({"streaming": True}, "data.streaming .*no dataset"),
        ({"dataset": "a/b", "columns": "{"}, "data.columns='{': .*JSON"),
        ({"dataset": "a/b", "columns": "[1]"}, r"data.columns=\[1\]"),
        ({"dataset": "a/b", "streaming": True, "split_column": "s"}, "data.streaming .*split_column"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**arguments)


def test_a_split_that_the_metrics_need_is_never_streamed(hub):
    rows = {"image": [undecoded()], "hypothesis": ["a"], "label": ["neutral"]}
    features = {"image": Image(), "hypothesis": Value("string"), "label": Value("string")}
    arguments = DataArguments(dataset=hub(features, train=rows, validation=rows), streaming=True)
    assert isinstance(load_hub_split(arguments, "train", COLUMNS), IterableDataset)
    assert isinstance(load_hub_split(arguments, "validation", COLUMNS), Dataset)


# What cannot be loaded


def test_a_dataset_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"data\.dataset='no/such': .*folder.* Hub: .*id"):
        load_hub_split(DataArguments(dataset="no/such"), "train", COLUMNS)
    with pytest.raises(ValueError, match=r"data\.dataset=''"):
        load_hub_split(DataArguments(dataset=""), "train", COLUMNS)
    with pytest.raises(ValueError, match=r"data\.dataset='/no/such/folder': .*folder"):
        load_hub_split(DataArguments(dataset="/no/such/folder"), "train", COLUMNS)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "doesn't contain any data files"),
        ({"hub.py": "x = 1"}, "scripts are no longer supported"),
        ({"train.parquet": "none"}, "cannot be read: .*footer"),
        ({"train.jsonl": "{"}, "(cannot be read: .*JSON|columns are not known)"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_without_a_dataset_is_named(files, message, streaming, tmp_path, hub):
    (tmp_path / "hub").mkdir()
    for name, content in files.items():
        (tmp_path / "hub" / name).write_text(content)
    with pytest.raises(ValueError, match=f"^data.dataset='{tmp_path / 'hub'}': [^\n]*{message}[^\n]*$"):
        load_hub_split(DataArguments(dataset=str(tmp_path / "hub"), streaming=streaming), "train", COLUMNS)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_wrong_split_configuration_or_revision_is_named_beside_those_that_are_there(hub, streaming):
    rows = {"image": [undecoded()], "hypothesis": ["a"], "label": ["neutral"]}
    source = hub(train=rows, dev=rows)
    for name, value, message in (
        ("train_split", "training", r"\['train', 'dev'\]"),
        ("dataset_config", "en", r"\['default'\]"),
        ("dataset_revision", "v2", "a folder here"),
    ):
        arguments = DataArguments(**{"dataset": source, "streaming": streaming, name: value})
        with pytest.raises(ValueError, match=f"^data.{name}='{value}': [^\n]*{message}"):
            load_hub_split(arguments, "train", COLUMNS)


def test_a_configuration_that_is_missing_is_asked_for(hub, tmp_path):
    source = hub()
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "a.csv").write_text("label\nneutral\n")
    configs = "\n".join(f"- config_name: {name}\n  data_files: a.csv" for name in ("de", "en"))
    (tmp_path / "hub" / "README.md").write_text(f"---\nconfigs:\n{configs}\n---\n")
    with pytest.raises(ValueError, match=r"^data.dataset_config=None: [^\n]*\['de', 'en'\][^\n]*$"):
        load_hub_split(DataArguments(dataset=source), "train", COLUMNS)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DatasetNotFoundError("Revision 'v2' doesn't exist"), "data.dataset_revision='v2': Revision 'v2'"),
        (DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."), "data.dataset='a/b': .* gated"),
        (
            RuntimeError("Dataset scripts are no longer supported"),
            "data.dataset='a/b': .*scripts.*data.dataset_revision='refs/convert/parquet'",
        ),
        (ConnectionError("Couldn't reach 'a/b' on the Hub (ConnectTimeout)"), "data.dataset='a/b': .*ConnectTimeout"),
    ],
)
def test_what_the_hub_says_is_passed_on_with_the_argument(error, message, monkeypatch):
    def load(*args, **kwargs):
        cause = (
            RevisionNotFoundError("404", response=Response(404, request=Request("GET", "http://hub")))
            if "Revision" in str(error)
            else None
        )
        raise error from cause

    monkeypatch.setattr("pumer_hf.data.hub.load_dataset_builder", load)
    with pytest.raises(ValueError, match=message):
        load_hub_split(DataArguments(dataset="a/b", dataset_revision="v2"), "train", COLUMNS)


def test_one_column_cannot_be_two(hub):
    rows = {"image": [undecoded()], "sentence": ["a"], "label": ["True"], "identifier": ["dev-1-0-0"]}
    arguments = Nlvr2DataArguments(dataset=hub(train=rows), columns={"left": "image", "right": "image"})
    with pytest.raises(ValueError, match=r"data.columns=.*\['image'\].* two"):
        load_nlvr2(arguments)


def test_a_recipe_ends_with_one_line(tmp_path):
    recipes = Path(__file__).parents[2] / "recipes"
    words = [str(recipes / "train_snli_ve.py"), str(recipes / "vilt" / "own_data" / "scratch.yaml")]
    process = run_here([sys.executable, *words, "--dataset", "no/such", "--output_dir", "out"], tmp_path)
    assert process.returncode == 1
    assert process.stderr.count("\n") == 1
    assert "data.dataset='no/such': " in process.stderr


# Folders of images

METADATA = '{"file_name": "a.png", "hypothesis": "a dog", "label": "neutral"}\n'


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_of_images(zipped, streaming, hub, tmp_path):
    root = tmp_path / "hub"
    for split in ("train", "validation"):
        (root / split).mkdir(parents=True)
        (root / split / "a.png").write_bytes(png((0, 200, 0)))
        (root / split / "metadata.jsonl").write_text(METADATA)
        if zipped:
            shutil.make_archive(str(root / split), "zip", root / split)
            shutil.rmtree(root / split)
    labels = ["neutral", "entailment", "contradiction"]
    data = load_snli_ve(SnliVeDataArguments(dataset=str(root), streaming=streaming), labels)
    for split, dataset in (("train", data.train), ("validation", data.validation)):
        (row,) = dataset
        image = row.pop("image")
        assert image == {
            "bytes": None,
            "path": f"zip://a.png::{root}/{split}.zip" if zipped else f"{root}/{split}/a.png",
        }
        assert open_image(image, "row").getpixel((0, 0)) == (0, 200, 0)
        assert row == {"hypothesis": "a dog", "label": "neutral", "origin": f"{root}, {split}, row 0"}
