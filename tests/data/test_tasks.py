"""NLVR2, SNLI-VE and retrieval: their official files, collators and metrics."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image as PILImage
from tiny import png, undecoded, vilt_fields
from transformers import EvalPrediction

from pumer_hf.data.nlvr2 import NLVR2, Nlvr2Collator, Nlvr2DataArguments, load_nlvr2, sentence_of
from pumer_hf.data.retrieval import (
    RETRIEVAL,
    RetrievalCollator,
    RetrievalDataArguments,
    group_by_image,
    load_retrieval,
    ranking_metrics,
)
from pumer_hf.data.snli_ve import SNLI_VE, SnliVeCollator, SnliVeDataArguments, load_snli_ve
from pumer_hf.data.task import TaskData
from pumer_hf.data.vqa import VQA, vqa_metrics
from pumer_hf.inputs import Encoder
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.recipe import ModelArguments

TINY = vilt_fields(num_hidden_layers=1, image_size=32, max_position_embeddings=16)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def processor():
    return build_teacher(ModelArguments(config=TINY), ["yes", "no"], ["is it red or blue?"], max_text_length=16)[1]


@pytest.fixture
def write(tmp_path):
    """Write a file: a picture in one colour, or JSON, one object per line if given a list."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, tuple):
            path.write_bytes(png(content))
        else:
            lines = content if isinstance(content, list) else [content]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return str(path)

    return write


def colour_of(image):
    return PILImage.open(image["path"]).getpixel((0, 0))


# NLVR2


def nlvr2_row(identifier="dev-850-2-1", **changes):
    return {"identifier": identifier, "sentence": "two dogs", "label": "True", **changes}


@pytest.mark.parametrize("folder", ["", "dev/"])
def test_nlvr2_images_are_found_by_the_identifier(write, tmp_path, folder):
    write(f"images/{folder}dev-850-2-img0.png", RED)
    write(f"images/{folder}dev-850-2-img1.png", GREEN)
    file = write("dev.json", [nlvr2_row(), nlvr2_row("dev-850-2-0", label="False", sentence="a cat")])
    files = {"train_file": [file], "validation_file": [file], "image_dir": str(tmp_path / "images")}
    data = load_nlvr2(Nlvr2DataArguments(**files))
    first, second = data.train.to_list()
    assert (colour_of(first["left"]), colour_of(first["right"])) == (RED, GREEN)
    assert (first["sentence"], first["label"], first["origin"]) == ("two dogs", "True", f"{file}, line 1")
    assert (second["sentence"], second["label"], second["identifier"]) == ("a cat", "False", "dev-850-2-0")
    assert data.labels == ("False", "True")


@pytest.mark.parametrize("folder", ["images/train/37/", "37/"])
def test_nlvr2_training_images_are_in_numbered_folders(write, tmp_path, folder):
    write(f"{folder}train-5-0-img0.png", RED)
    write(f"{folder}train-5-0-img1.png", BLUE)
    file = write("train.json", [nlvr2_row("train-5-0-3", directory=37)])
    image_dir = str(tmp_path / folder.partition("train/")[0]) if "train/" in folder else str(tmp_path)
    data = load_nlvr2(Nlvr2DataArguments(train_file=[file], validation_file=[file], image_dir=image_dir))
    assert colour_of(data.train[0]["right"]) == BLUE


def test_nlvr2_rows_of_own_data_name_their_images(write):
    write("a.png", RED)
    write("b.png", BLUE)
    file = write("own.json", [nlvr2_row(images=["b.png", "a.png"])])
    row = load_nlvr2(Nlvr2DataArguments(train_file=[file], validation_file=[file])).train[0]
    assert (colour_of(row["left"]), colour_of(row["right"])) == (BLUE, RED)


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        (nlvr2_row(), FileNotFoundError, "dev.json, line 1: .*no image .*dev-850-2-img0.png"),
        (nlvr2_row("dev-850"), ValueError, "line 1: .*'identifier' .*dev-850-0-0, got 'dev-850'"),
        (nlvr2_row(label="maybe"), ValueError, "line 1: .*'label' .*True or False, got 'maybe'"),
        (nlvr2_row(sentence=3), ValueError, "line 1: .*'sentence' .*str.* 3"),
        (nlvr2_row(images=["a.png"]), ValueError, r"'images' .*two images, got \['a.png'\]"),
    ],
)
def test_a_damaged_nlvr2_row_is_named(write, row, error, message):
    if error is ValueError:
        write("dev-850-2-img0.png", RED)
        write("dev-850-2-img1.png", RED)
    file = write("dev.json", [row])
    with pytest.raises(error, match=message):
        load_nlvr2(Nlvr2DataArguments(train_file=[file], validation_file=[file]))


def test_the_pair_does_not_tell_sentences_apart():
    assert sentence_of("dev-850-0-1") == sentence_of("dev-850-3-1") != sentence_of("dev-850-0-0")
    assert sentence_of("dev-85-0-1") != sentence_of("dev-850-0-1")


def test_nlvr2_batches_have_two_images_per_row(processor):
    rows = [
        {"left": undecoded(RED), "right": undecoded(BLUE), "sentence": "is it red?", "label": "True", "origin": "a"},
        {"left": undecoded(BLUE), "right": undecoded(GREEN), "sentence": "is it?", "label": "False", "origin": "b"},
    ]
    batch = Nlvr2Collator(Encoder(processor).replace(max_text_length=9), ("False", "True"))(rows)
    assert batch["pixel_values"].shape == (2, 2, 3, 32, 32)
    assert batch["pixel_values"][:, :, :, 0, 0].round().tolist() == [
        [[1, -1, -1], [-1, -1, 1]],
        [[-1, -1, 1], [-1, 1, -1]],
    ]
    assert batch["input_ids"].shape == (2, 9)
    assert batch["labels"].tolist() == [1, 0]
    assert batch["labels"].dtype == torch.long
    of_others = Nlvr2Collator(Encoder(processor), ("TRUE", "FALSE"))(rows)
    assert of_others["labels"].tolist() == [0, 1]


def test_nlvr2_masks_have_two_images_per_row_too(processor):
    wide = undecoded(RED, size=(60, 40))
    row = {"left": wide, "right": undecoded(BLUE), "sentence": "is it red?", "label": "True", "origin": "a"}
    batch = Nlvr2Collator(Encoder(processor).replace(keep_aspect_ratio=True), ("False", "True"))([row])
    assert batch["pixel_mask"].shape == (1, 2, 32, 48)
    assert batch["pixel_mask"].sum((0, 2, 3)).tolist() == [32 * 48, 32 * 32]


def test_nlvr2_metrics_group_the_rows_by_sentence():
    identifiers = ["dev-1-0-0", "dev-1-1-0", "dev-1-0-1", "dev-2-0-0"]
    compute = NLVR2.metrics(Dataset.from_dict({"identifier": identifiers}), ("False", "True"))
    logits = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])  # 1 0 1 0
    scores = compute(EvalPrediction(predictions=logits, label_ids=np.array([1, 1, 1, 0])))
    assert scores == {"accuracy": 75, "consistency": pytest.approx(200 / 3)}
    with pytest.raises(ValueError, match="3 predictions for 4 rows"):
        compute(EvalPrediction(predictions=logits[:3], label_ids=np.array([1, 1, 1])))


# images that are missing


def nlvr2_files(write):
    write("dev-1-0-img0.png", RED)
    write("dev-1-0-img1.png", GREEN)
    write("dev-2-0-img0.png", RED)  # without its second image
    return write("dev.json", [nlvr2_row("dev-1-0-0"), nlvr2_row("dev-2-0-0"), nlvr2_row("dev-3-0-0")])


def snli_ve_files(write):
    write("1.jpg", RED)
    row = {"gold_label": "neutral", "sentence2": "it barks"}
    return write("dev.jsonl", [{**row, "pairID": f"{number}.jpg#0r1n"} for number in (1, 2, 3)])


def caption_files(write):
    write("1.jpg", RED)
    write("4.jpg", RED)
    rows = [{"image": f"{number}.jpg", "captions": [f"caption {number}"]} for number in (1, 2, 3, 4)]
    return write("dev.jsonl", rows)


def vqa_files(write):
    write("1.jpg", RED)
    row = {"question": "is it?", "answers": ["yes", "no"]}
    return write("dev.jsonl", [{**row, "image": f"{number}.jpg"} for number in (1, 2, 3)])


FILES = {"nlvr2": nlvr2_files, "snli_ve": snli_ve_files, "retrieval": caption_files, "vqa": vqa_files}


@pytest.mark.parametrize("task", [NLVR2, SNLI_VE, RETRIEVAL, VQA], ids=lambda task: task.name)
def test_rows_without_their_images_are_left_out_and_counted(task, write):
    file = FILES[task.name](write)
    files = {"train_file": [file], "validation_file": [file]}
    with pytest.raises(FileNotFoundError, match="line 2: .*no image"):
        task.load(task.arguments(**files), None)
    data = task.load(task.arguments(**files, missing_images="skip"), None)
    assert data.missing_images == {"train": 2, "validation": 2, "test": 2}
    kept = [f"{file}, line 1", f"{file}, line 4"] if task is RETRIEVAL else [f"{file}, line 1"]
    assert data.train["origin"][:] == data.test["origin"][:] == kept
    images = [name for name in ("image", "left", "right") if name in data.train.column_names]
    assert all(colour_of(data.train[0][name]) in (RED, GREEN) for name in images)


def test_nothing_is_counted_unless_it_is_asked_for(write):
    file = write("dev.jsonl", [{"image": "1.jpg", "question": "is it?", "answers": ["yes", "no"]}])
    write("1.jpg", RED)
    assert VQA.load(VQA.arguments(train_file=[file], validation_file=[file]), None).missing_images == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_file": ["a"], "validation_file": ["a"], "missing_images": "drop"}, "data.missing_images='drop'"),
        ({"missing_images": "skip"}, "data.missing_images='skip'.* train_file"),
        ({"dataset": "some/set", "missing_images": "skip"}, "data.missing_images='skip'.* train_file"),
    ],
)
def test_wrong_arguments_about_missing_images(arguments, message):
    with pytest.raises(ValueError, match=message):
        SnliVeDataArguments(**arguments)


def test_an_image_that_a_dataset_lacks_is_named_with_its_row(processor):
    row = {"image": None, "hypothesis": "a", "label": "yes", "origin": "some/set, train, row 7"}
    with pytest.raises(ValueError, match="some/set, train, row 7: .*image .*got nothing"):
        SnliVeCollator(Encoder(processor), ("yes", "no"))([row])


# SNLI-VE


def test_snli_ve_reads_the_official_fields(write, tmp_path):
    write("flickr/77.jpg", GREEN)
    rows = [
        {"pairID": "77.jpg#2r1n", "gold_label": "neutral", "sentence1": "a dog", "sentence2": "it barks"},
        {"pairID": "78.jpg#0r1n", "gold_label": "-", "sentence1": "a dog", "sentence2": "it runs"},
        {"pairID": "77.jpg#1r1e", "gold_label": "entailment", "sentence1": "a dog", "sentence2": "an animal"},
    ]
    file = write("dev.jsonl", rows)
    arguments = {"train_file": [file], "validation_file": [file], "image_dir": str(tmp_path / "flickr")}
    data = load_snli_ve(SnliVeDataArguments(**arguments))
    assert data.train["hypothesis"][:] == ["it barks", "an animal"]
    assert data.train["label"][:] == ["neutral", "entailment"]
    assert data.train["origin"][:] == [f"{file}, line 1", f"{file}, line 3"]
    assert colour_of(data.train[1]["image"]) == GREEN
    write("bad.jsonl", [{**rows[0], "gold_label": "maybe"}])
    with pytest.raises(ValueError, match="bad.jsonl, line 1: .*'gold_label' .*got 'maybe'"):
        load_snli_ve(SnliVeDataArguments(**{**arguments, "train_file": [str(tmp_path / "bad.jsonl")]}))


def test_the_labels_of_a_model_decide_on_their_order(processor):
    scenes = SnliVeDataArguments(train_scenes=2, eval_scenes=1)
    data = load_snli_ve(scenes, labels=["contradiction", "Neutral", "entailment"])
    assert data.labels == ("contradiction", "Neutral", "entailment")
    rows = [data.train[number] for number in range(6)]
    labels = SnliVeCollator(Encoder(processor), data.labels)(rows)["labels"].tolist()
    assert [data.labels[label].lower() for label in labels] == [row["label"] for row in rows]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match=r"labels \['LABEL_0', 'LABEL_1'\]: .*needs"):
        load_snli_ve(scenes, labels=["LABEL_0", "LABEL_1"])


def test_a_label_that_the_model_does_not_have_is_named(processor):
    row = {"image": undecoded(RED), "hypothesis": "a", "label": "maybe", "origin": "row 7"}
    with pytest.raises(ValueError, match=r"row 7: .*'maybe' .*\['yes', 'no'\]"):
        SnliVeCollator(Encoder(processor), ("yes", "no"))([row])


def test_baselines_of_balanced_scenes_are_chance():
    data = load_snli_ve(SnliVeDataArguments(train_scenes=30, eval_scenes=10))
    baselines = SNLI_VE.baselines(data)
    assert baselines["majority"] == baselines["text_only"] == pytest.approx(100 / 3)


def test_baselines_know_what_a_text_usually_means():
    train = Dataset.from_dict({"hypothesis": ["a", "a", "b"], "label": ["neutral", "neutral", "entailment"]})
    test = Dataset.from_dict({"hypothesis": ["b", "c", "a", "b"], "label": ["entailment", "neutral", "neutral", "x"]})
    assert SNLI_VE.baselines(TaskData(train, test, test)) == {"majority": 50, "text_only": 75}


# retrieval


def test_karpathys_file_has_all_splits(write, tmp_path):
    images = []
    for number, split in enumerate(["train", "val", "test", "restval", "val", "test"]):
        write(f"flickr/{number}.jpg", (number, 0, 0))
        sentences = [{"raw": f"Caption {number} {k}.", "tokens": ["caption"]} for k in range(number % 2 + 1)]
        images.append({"filename": f"{number}.jpg", "split": split, "sentences": sentences})
    file = write("dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    arguments = {f"{split}_file": [file] for split in ("train", "validation", "test")}
    data = load_retrieval(RetrievalDataArguments(**arguments, image_dir=str(tmp_path / "flickr")))
    assert data.train["captions"][:] == [["Caption 0 0."], *2 * [["Caption 3 0.", "Caption 3 1."]]]
    assert data.validation["captions"][:] == [["Caption 1 0.", "Caption 1 1."], ["Caption 4 0."]]
    assert data.test["captions"][:] == [["Caption 2 0."], ["Caption 5 0.", "Caption 5 1."]]
    assert data.test["origin"][:] == [f"{file}, image 2", f"{file}, image 5"]
    assert data.labels == ()


def test_captions_of_own_data_are_lines(write):
    write("a.png", RED)
    write("b.png", BLUE)
    rows = [{"image": "a.png", "captions": ["one", "two"]}, {"image": "b.png", "captions": "three"}]
    file = write("own.jsonl", rows)
    data = load_retrieval(RetrievalDataArguments(train_file=[file], validation_file=[file]))
    assert data.test["captions"][:] == [["one", "two"], ["three"]]
    for captions in ([], 3, [3]):
        bad = write("bad.jsonl", [{"image": "a.png", "captions": captions}])
        with pytest.raises(ValueError, match="bad.jsonl, line 1: .*caption"):
            load_retrieval(RetrievalDataArguments(train_file=[bad], validation_file=[file]))


def test_lines_of_one_image_are_taken_together(write, tmp_path):
    write("a.png", RED)
    write("b.png", BLUE)
    (tmp_path / "link.png").symlink_to("a.png")
    names = ["a.png", "b.png", "./a.png", "sub/../b.png", "link.png"]
    (tmp_path / "sub").mkdir()
    file = write("own.jsonl", [{"image": name, "captions": f"caption {n}"} for n, name in enumerate(names)])
    data = load_retrieval(RetrievalDataArguments(train_file=[file], validation_file=[file]))
    own = [["caption 0", "caption 2", "caption 4"], ["caption 1", "caption 3"]]
    assert data.test["captions"][:] == own
    assert data.test["origin"][:] == [f"{file}, line 1", f"{file}, line 2"]
    assert [colour_of(image) for image in data.test["image"]] == [RED, BLUE]
    assert data.train["captions"][:] == [own[0]] * 3 + [own[1]] * 2


def test_images_of_a_karpathy_file_are_taken_together(write):
    write("a.jpg", RED)
    write("b.jpg", BLUE)
    names = ["a.jpg", "b.jpg", "a.jpg"]
    images = [{"filename": name, "split": "val", "sentences": [{"raw": f"{n}"}]} for n, name in enumerate(names)]
    file = write("own.json", {"images": [*images, *({**image, "split": "train"} for image in images)]})
    data = load_retrieval(RetrievalDataArguments(train_file=[file], validation_file=[file]))
    assert data.test["captions"][:] == [["0", "2"], ["1"]]


def test_images_of_a_hub_dataset_are_the_same_by_their_bytes():
    rows = [
        {"image": {**undecoded(colour), "path": path}, "captions": [path], "origin": path}
        for colour, path in [(RED, "1.png"), (BLUE, "1.png"), (RED, "2.png")]
    ]
    dataset = group_by_image(Dataset.from_list(rows))
    assert dataset["captions"][:] == [["1.png", "2.png"], ["1.png"]]


def test_fewer_than_two_images_are_an_error(write):
    write("a.png", RED)
    file = write("own.jsonl", [{"image": "a.png", "captions": f"caption {n}"} for n in range(3)])
    with pytest.raises(ValueError, match="train .*1 images"):
        load_retrieval(RetrievalDataArguments(train_file=[file], validation_file=[file]))


CAPTIONS = [[f"is it {word}?", f"it is {word}?"] for word in ("red", "blue", "green", "one", "two", "three")]


def retrieval_row(number=0):
    return {"image": undecoded(RED), "captions": CAPTIONS[number], "origin": f"row {number}"}


def read(processor, ids):
    return processor.tokenizer.decode(ids, skip_special_tokens=True).replace(" ?", "?")


@pytest.mark.parametrize("training", [True, False])
def test_retrieval_batches_have_the_right_caption_first_and_others_after_it(processor, training):
    collator = RetrievalCollator(
        Encoder(processor).replace(max_text_length=16), captions=CAPTIONS, num_negatives=7, training=training
    )
    batch = collator([retrieval_row(number) for number in range(4)])
    assert batch.keys() == {"input_ids", "attention_mask", "token_type_ids", "pixel_values", "labels"}
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["token_type_ids"].shape == (4, 8, 16)
    assert batch["pixel_values"].shape == (4, 3, 32, 32)
    assert batch["labels"].tolist() == [0] * 4
    for own, candidates in zip(CAPTIONS, batch["input_ids"], strict=False):
        texts = [read(processor, ids) for ids in candidates]
        assert texts[0] in own
        assert not set(texts[1:]) & set(own)
        assert len(set(texts)) == 8
        assert training or texts[0] == own[0]


def test_retrieval_evaluation_is_fixed_and_training_is_not(processor):
    def two(training):
        collator = RetrievalCollator(Encoder(processor), captions=CAPTIONS, num_negatives=4, training=training)
        assert collator.is_random == training
        rows = [retrieval_row(1), retrieval_row(2)]
        return collator(rows)["input_ids"], collator(rows[::-1])["input_ids"].flip(0)

    torch.manual_seed(0)
    assert torch.equal(*two(training=False))  # whatever else is in the batch
    assert not torch.equal(*two(training=True))


def test_draws_of_an_epoch_depend_on_its_name_and_the_rows_alone(processor):
    collator = RetrievalCollator(Encoder(processor), captions=CAPTIONS, num_negatives=4, training=True)
    rows = [retrieval_row(1), retrieval_row(2)]

    def drawn(name, rows=rows):
        torch.rand(3)  # whatever was drawn before
        collator.draws_of = name
        return collator(rows)["input_ids"]

    torch.manual_seed(0)
    first, state = drawn("epoch 0"), torch.get_rng_state()
    assert torch.equal(drawn("epoch 0"), first)
    assert not torch.equal(drawn("epoch 1"), first)
    assert not torch.equal(drawn("epoch 0", rows[::-1]), first.flip(0))
    torch.set_rng_state(state)
    before = torch.rand(3)
    torch.set_rng_state(state)
    collator(rows)
    assert torch.equal(torch.rand(3), before)  # the steps of training draw what they would without


def test_all_captions_of_an_image_are_trained(processor):
    torch.manual_seed(0)
    collator = RetrievalCollator(Encoder(processor), captions=CAPTIONS, num_negatives=1, training=True)
    assert {collator.texts(retrieval_row())[0] for _ in range(20)} == set(CAPTIONS[0])


def test_too_few_captions_are_drawn_again_and_none_are_an_error(processor):
    collator = RetrievalCollator(Encoder(processor), captions=CAPTIONS[:2], num_negatives=5)
    negatives = collator.texts(retrieval_row())[1:]
    assert set(negatives) == set(CAPTIONS[1])
    assert len(negatives) == 5
    with pytest.raises(ValueError, match="same captions"):
        RetrievalCollator(Encoder(processor), captions=CAPTIONS[:1])([retrieval_row()])


def test_speed_is_measured_on_pairs(processor):
    batch = RetrievalCollator(Encoder(processor), captions=CAPTIONS, training=True).for_benchmark()([retrieval_row()])
    assert batch.keys() == {"input_ids", "attention_mask", "token_type_ids", "pixel_values"}
    assert batch["input_ids"].ndim == 2


def test_a_caption_is_no_negative_of_an_image_that_has_it(processor):
    captions = [["A dog.", "it barks"], ["a  dog.", "it sleeps"], ["a cat"]]
    collator = RetrievalCollator(Encoder(processor), captions=captions, num_negatives=3)
    assert set(collator.texts({"captions": captions[0], "origin": "a"})[1:]) == {"it sleeps", "a cat"}
    assert set(collator.texts({"captions": captions[1], "origin": "b"})[1:]) == {"it barks", "a cat"}
    with pytest.raises(ValueError, match="same captions"):
        RetrievalCollator(Encoder(processor), captions=[["A dog"], ["a dog "]]).texts(
            {"captions": ["a dog"], "origin": "c"}
        )


def test_equal_scores_of_a_ranking_count_as_in_random_order():
    compute = ranking_metrics(Dataset.from_dict({"captions": [["a"]] * 4}), ())
    scores = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    result = compute(EvalPrediction(predictions=scores, label_ids=np.zeros(4)))
    assert result == {"accuracy": pytest.approx(100 * (1 + 1 / 2 + 1 / 3) / 4)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"num_negatives": 0}, "data.num_negatives=0"), ({"dataset": "a/b", "streaming": True}, "data.streaming")],
)
def test_a_bad_argument_of_retrieval_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RetrievalDataArguments(**arguments)


# all


@pytest.mark.parametrize("task", [VQA, NLVR2, SNLI_VE, RETRIEVAL], ids=lambda task: task.name)
def test_digit_scenes_of_every_task_go_through_its_collator_into_its_model(task):
    args = task.arguments(train_scenes=40, eval_scenes=4, grid_size=4, max_text_length=32)
    data = task.load(args, None)
    config = ModelArguments(config={**TINY, "max_position_embeddings": 32})
    model, processor = build_teacher(config, data.labels, task.texts(data.train), 32, task)
    for training in (True, False):
        batch = task.collator(processor, data, args, training)([data.train[number] for number in range(4)])
        outputs = model(**batch)
        assert torch.isfinite(outputs.loss)
        assert outputs.logits.shape[0] == 4
        assert (batch["input_ids"] != processor.tokenizer.unk_token_id).all()
    assert isinstance(task.baselines(data), dict)


def test_text_lengths_are_those_of_the_paper():
    assert {task.name: task.arguments().max_text_length for task in (VQA, NLVR2, SNLI_VE, RETRIEVAL)} == {
        "vqa": 32,
        "nlvr2": 40,
        "snli_ve": 40,
        "retrieval": 40,
    }


def test_vqa_metrics_have_the_official_accuracy_where_there_are_enough_annotators():
    labels = ("yes", "no")
    logits = np.array([[1.0, 0.0], [0.0, 1.0]])
    targets = np.array([[0.9, 1.0], [0.6, 1.0]])
    prediction = EvalPrediction(predictions=logits, label_ids=targets)
    ten = [["yes"] * 3 + ["No."] * 7, ["Yes."] * 2 + ["No"] * 8]
    assert vqa_metrics(Dataset.from_dict({"answers": ten}), labels)(prediction) == {
        "accuracy": pytest.approx(95),
        "vqa_accuracy": pytest.approx(95),
    }
    few = Dataset.from_dict({"answers": [["yes"] * 3, ten[1]]})
    assert vqa_metrics(few, labels)(prediction).keys() == {"accuracy"}


def test_only_training_images_are_augmented(processor):
    pytest.importorskip("kornia")
    args = SnliVeDataArguments(train_scenes=2, eval_scenes=1, rand_augment=True)
    data = load_snli_ve(args)
    rows = [data.train[number] for number in range(6)]
    plain = SnliVeCollator(Encoder(processor).replace(max_text_length=args.max_text_length), data.labels)(rows)
    for training in (True, False):
        collator = SNLI_VE.collator(processor, data, args, training)
        assert collator.is_random == training
        batch = collator(rows)
        assert torch.equal(batch["input_ids"], plain["input_ids"])
        assert torch.equal(batch["pixel_values"], plain["pixel_values"]) != training
