import io
import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image as PILImage
from tiny import encoded, meter_fields, png, vilt_fields

from pumer_hf.data.vqa import (
    VqaCollator,
    VqaDataArguments,
    answer_labels,
    counted_answers,
    drop_unknown,
    load_vqa,
    scene_questions,
)
from pumer_hf.inputs import Encoder
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.recipe import ModelArguments

ALL_SCENE_ANSWERS = {*map(str, range(10)), "yes", "no", "red", "green", "blue", "yellow", "pink", "cyan"}
TINY = vilt_fields(num_hidden_layers=1, image_size=32, max_position_embeddings=16)


# labels


def test_labels_are_ordered_by_count_then_alphabet():
    answers = [["b", "c"], ["c"], ["a", "d"], ["d", "d"]]
    assert answer_labels(answers, 1) == ("d", "c", "a", "b")


def test_labels_are_the_answers_given_often_enough():
    answers = [["b", "c"], ["c"], ["a", "d"], ["d", "d"]]
    assert answer_labels(answers, 2) == ("d", "c")


def test_labels_do_not_depend_on_case_and_white_space():
    assert answer_labels([["Yes "], ["no"], ["YES", "yes"], ["No"]], 2) == ("yes", "no")


@pytest.mark.parametrize(("min_count", "left"), [(3, 1), (4, 0)])
def test_fewer_than_two_labels_are_an_error(min_count, left):
    with pytest.raises(ValueError, match=f"data.min_answer_count={min_count} .*{left} labels"):
        answer_labels([["a"], ["a"], ["a"], ["b"]], min_count)


def test_vqa_v2_counts_the_consensus_of_training_and_validation():
    # The annotators say "two" and "t-shirt" more often than "2" and "t shirt", but that is the same.
    train = rows(["two", "2", "two"], ["t-shirt", "t shirt"], ["no", "yes"], said=["2", "t-shirt", "Yes"])
    validation = rows(["2"], ["T-shirt."], ["a"], ["?"], said=["two", None, "a", None])
    counted = counted_answers(train, validation, "auto")
    assert counted == [["2"], ["t shirt"], ["yes"], ["2"], ["t shirt"], [""], [""]]
    assert answer_labels(counted, 2) == ("", "2", "t shirt")
    assert answer_labels(counted_answers(train, validation, "annotators"), 1) == (
        *("two", "2", "no", "t shirt", "t-shirt", "yes"),
    )


def test_questions_of_four_annotators_have_a_consensus():
    four = rows(["one", "1", "2", "2"], ["the cup", "cup", "mug", "jar"])
    assert counted_answers(four, four, "auto") == 2 * [["1"], ["cup"]]
    few = rows(["one", "1", "2"], ["the cup", "cup", "mug", "jar"])
    assert counted_answers(few, few, "auto") == few["answers"][:]
    assert counted_answers(few, four, "consensus") == 2 * [["1"], ["cup"]]


def test_the_consensus_of_answers_with_weights_is_the_one_of_the_highest():
    weighted = rows(["cup", "Two", "mug", "jar"]).add_column("answer_weights", [[0.3, 1.0, 0.6, 0.3]])
    assert counted_answers(weighted, weighted, "consensus") == 2 * [["2"]]
    assert counted_answers(weighted, weighted, "auto") == weighted["answers"][:]


def test_labels_of_vqa_v2_files_are_those_of_the_field(tmp_path):
    """The official files, in small: read, counted over both splits, and looked up as they were counted."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "COCO_train2014_000000000009.jpg").write_bytes(encoded(picture(8, 8)))
    files = {}
    for split, spoken in {"train": ["two", "no"], "validation": ["2", "two", "no", "rare"]}.items():
        questions = [{"question_id": n, "image_id": 9, "question": "what?"} for n in range(len(spoken))]
        annotations = [
            {
                "question_id": n,
                "multiple_choice_answer": answer,
                "answers": [{"answer": answer, "answer_id": m} for m in range(6)] + 4 * [{"answer": f"other {n}"}],
            }
            for n, answer in enumerate(spoken)
        ]
        files[split] = [str(tmp_path / f"{split}_{name}.json") for name in ("questions", "annotations")]
        for path, content in zip(files[split], ({"questions": questions}, {"annotations": annotations}), strict=True):
            with open(path, "w") as file:
                json.dump(content, file)
    arguments = {f"{split}_file": paths for split, paths in files.items()}
    arguments |= {"image_dir": str(tmp_path / "images"), "min_answer_count": 2, "unknown_answers": "ignore"}
    data = load_vqa(VqaDataArguments(**arguments))
    assert data.labels == ("2", "no")
    assert len(data.train) == 2  # "two" is known
    collator = VqaCollator(None, data.labels)
    assert [collator.target(answers).tolist() for answers in data.validation["answers"]] == [
        *([1, 0], [1, 0], [0, 1], [0, 0]),
    ]
    raw = load_vqa(VqaDataArguments(**{**arguments, "min_answer_count": 6}, answer_counting="annotators"))
    assert raw.labels == ("no", "two")


# rows without a known answer


def rows(*answers, said=None):
    columns = {"answers": list(answers), "origin": [f"f, line {n}" for n in range(1, len(answers) + 1)]}
    return Dataset.from_dict(columns if said is None else {**columns, "consensus": said})


@pytest.mark.parametrize("policy", ["error", "ignore"])
@pytest.mark.parametrize("drop", [True, False])
def test_rows_with_one_known_answer_stay(policy, drop):
    dataset = rows(["Yes"], ["maybe", " no"], ["no"])
    assert drop_unknown(dataset, ["yes", "no"], policy, drop=drop)["origin"][:] == dataset["origin"][:]


@pytest.mark.parametrize("drop", [True, False])
def test_an_unknown_answer_is_an_error_that_names_row_answer_and_extent(drop):
    dataset = rows(["yes"], ["so", "perhaps", "so"], ["no"], ["why"])
    message = r"^f, line 2: the answer 'perhaps / so' is not among the 2 labels; 2 of 4 rows .*data.unknown_answers"
    with pytest.raises(ValueError, match=message):
        drop_unknown(dataset, ["yes", "no"], "error", drop=drop)


def test_ignoring_drops_unknown_rows_of_training_only():
    dataset = rows(["yes"], ["perhaps"], ["no"])
    train = drop_unknown(dataset, ["yes", "no"], "ignore", drop=True)
    evaluation = drop_unknown(dataset, ["yes", "no"], "ignore", drop=False)
    assert train["origin"][:] == ["f, line 1", "f, line 3"]
    assert evaluation["origin"][:] == ["f, line 1", "f, line 2", "f, line 3"]


@pytest.mark.parametrize("drop", [True, False])
def test_no_known_answer_at_all_is_an_error_even_if_ignored(drop):
    with pytest.raises(ValueError, match="f, line 1: .*2 labels"):
        drop_unknown(rows(["a"], ["b"]), ["yes", "no"], "ignore", drop=drop)


def test_the_labels_of_a_finetuned_model_may_have_capital_letters():
    dataset = rows(["yes"], ["No"])
    assert len(drop_unknown(dataset, ["Yes", "No"], "error", drop=True)) == 2


def test_a_row_is_known_if_its_answer_is_a_label_once_normalised():
    dataset = rows(["two"], ["T-Shirt!"], ["the dog"], ["three"])
    kept = drop_unknown(dataset, ["2", "t shirt", "dog"], "ignore", drop=True)
    assert kept["answers"][:] == [["two"], ["T-Shirt!"], ["the dog"]]


# the arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_file": ["a.jsonl"]}, "data.validation_file .*missing"),
        ({"validation_file": ["a.jsonl"]}, "data.train_file .*missing"),
        ({"test_file": ["a.jsonl"]}, "data.test_file"),
        ({"image_dir": "images"}, "data.image_dir"),
        ({"train_file": "a.jsonl", "validation_file": "b.jsonl"}, "data.train_file='a.jsonl'"),
        ({"train_file": [], "validation_file": []}, r"data.train_file=\[\]"),
        ({"unknown_answers": "drop"}, "data.unknown_answers='drop': .*'error' .*'ignore'"),
        ({"answer_counting": "all"}, "data.answer_counting='all': .*'auto', 'consensus' .*'annotators'"),
        ({"min_answer_count": 0}, "data.min_answer_count=0: .*1"),
        ({"max_text_length": 2}, "data.max_text_length=2: .*3"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        VqaDataArguments(**arguments)


# loading the splits


@pytest.fixture
def write(tmp_path):
    (tmp_path / "a.png").write_bytes(png(size=(6, 4)))

    def write(name, *answers):
        lines = [{"image": "a.png", "question": f"{name} {n}?", "answers": given} for n, given in enumerate(answers)]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)))
        return [str(path)]

    return write


def test_files_give_three_splits_and_the_labels_of_training(write):
    data = load_vqa(
        VqaDataArguments(
            train_file=write("train", ["no"], ["yes"], ["Yes"]),
            validation_file=write("validation", ["no"]),
            test_file=write("test", ["yes"], ["no"]),
        )
    )
    assert data.labels == ("yes", "no")
    assert data.train["question"][:] == ["train 0?", "train 1?", "train 2?"]
    assert data.validation["question"][:] == ["validation 0?"]
    assert data.test["question"][:] == ["test 0?", "test 1?"]
    for split in (data.train, data.validation, data.test):
        assert {"image", "question", "answers", "origin"} <= set(split.column_names)
        assert set(split[0]["image"]) == {"path", "bytes"}  # not decoded


def test_without_a_test_file_the_validation_data_is_the_test(write):
    files = {"train_file": write("train", ["no"], ["yes"]), "validation_file": write("validation", ["no"])}
    data = load_vqa(VqaDataArguments(**files))
    assert data.test["question"][:] == ["validation 0?"]


def test_min_answer_count_and_unknown_answers_reach_the_splits(write):
    files = {
        "train_file": write("train", ["no"], ["yes"], ["so"], ["no", "yes"]),
        "validation_file": write("validation", ["so"], ["no"]),
    }
    with pytest.raises(ValueError, match="train.jsonl, line 3: .*'so'"):
        load_vqa(VqaDataArguments(**files, min_answer_count=2))
    data = load_vqa(VqaDataArguments(**files, min_answer_count=2, unknown_answers="ignore"))
    assert data.labels == ("no", "yes")
    assert data.train["question"][:] == ["train 0?", "train 1?", "train 3?"]
    assert len(data.validation) == len(data.test) == 2


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_unknown_answer_in_an_evaluation_split_is_an_error_too(write, split):
    files = {f"{name}_file": write(name, ["no"], ["yes"]) for name in ("train", "validation", "test")}
    files[f"{split}_file"] = write(split, ["no"], ["so"])
    with pytest.raises(ValueError, match=f"{split}.jsonl, line 2: .*'so'"):
        load_vqa(VqaDataArguments(**files))


def test_given_labels_take_the_place_of_those_of_training(write):
    files = {"train_file": write("train", ["no"], ["yes"]), "validation_file": write("validation", ["no"])}
    assert load_vqa(VqaDataArguments(**files), labels=["no", "maybe", "yes"]).labels == ("no", "maybe", "yes")
    with pytest.raises(ValueError, match=r"train\.jsonl, line 2: .*'yes'"):
        load_vqa(VqaDataArguments(**files), labels=["no", "maybe"])


def test_image_dir_reaches_the_files(write, tmp_path):
    files = {"train_file": write("train", ["no"], ["yes"]), "validation_file": write("validation", ["no"])}
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes((tmp_path / "a.png").read_bytes())
    data = load_vqa(VqaDataArguments(**files, image_dir=str(tmp_path / "images")))
    assert data.validation[0]["image"]["path"] == str(tmp_path / "images" / "a.png")


def test_without_files_the_data_are_digit_scenes():
    data = load_vqa(VqaDataArguments(train_scenes=100, eval_scenes=5, grid_size=4, num_digits=2))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [400, 20, 20]
    assert set(data.labels) == ALL_SCENE_ANSWERS
    row = data.test[3]
    assert row["origin"] == "digit scenes, test, row 3"
    assert len(row["answers"]) == 1
    assert {"kind", "cells"} <= set(row)
    pixels = np.asarray(PILImage.open(io.BytesIO(row["image"]["bytes"])))
    assert pixels.shape == (32, 32, 3)
    assert pixels.reshape(4, 8, 4, 8, 3).any((1, 3, 4)).sum() == 2  # digits
    for one, other in ((data.train, data.validation), (data.validation, data.test), (data.train, data.test)):
        assert not {row["image"]["bytes"] for row in one} & {row["image"]["bytes"] for row in other}


def test_the_scene_seed_makes_other_scenes():
    scenes = {"train_scenes": 5, "eval_scenes": 5, "unknown_answers": "ignore"}
    first, again, other = (load_vqa(VqaDataArguments(**scenes, scene_seed=seed)) for seed in (0, 0, 1))
    assert first.validation.to_list() == again.validation.to_list()
    assert first.validation.to_list() != other.validation.to_list()


CLUTTERED = {"setting": "cluttered", "train_scenes": 8, "eval_scenes": 10, "grid_size": 4, "unknown_answers": "ignore"}


def test_cluttered_scenes_are_sparse_and_dense_and_say_so():
    data = load_vqa(VqaDataArguments(**CLUTTERED, question_kinds=["count", "digit_by_colour"]))
    for row in data.test:
        places = {"count": "many places", "digit_by_colour": "one place"}[row["kind"]]
        assert row["groups"] == [places, row["density"]]
    assert {row["density"] for row in data.test} == {"sparse", "dense"}
    dense = load_vqa(VqaDataArguments(**CLUTTERED, dense_part=1.0, num_distractors=10))
    assert set(dense.test["density"]) == {"dense"}


def test_plain_scenes_are_grouped_by_the_places_that_answer_them():
    kinds = ["digit_by_colour", "colour_of_digit", "digit_by_position", "absent", "count", "left_of"]
    rows = scene_questions(VqaDataArguments(question_kinds=kinds), "test", 50)
    places = {row["kind"]: row["groups"] for row in rows}
    assert places == {kind: ["one place" if kind in kinds[:4] else "many places"] for kind in kinds}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"setting": "busy"}, r"data\.setting='busy': .*'plain', 'cluttered'"),
        ({"setting": "cluttered", "dataset": "user/data"}, r"data\.setting='cluttered'"),
        ({"dense_part": 0.5}, r"data\.dense_part=0\.5 .*data\.setting"),
        ({"num_distractors": 0}, r"data\.num_distractors=0 .*data\.setting"),
        ({"setting": "cluttered", "dense_part": 2.0}, r"data\.dense_part=2\.0: .*\[0, 1\]"),
        ({"setting": "cluttered", "num_distractors": -1}, r"data\.num_distractors=-1"),
        ({"setting": "cluttered", "grid_size": 3}, r"data\.grid_size=3: .*num_distractors=8"),
    ],
)
def test_a_bad_setting_of_the_scenes_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        VqaDataArguments(**arguments)


# the collator


@pytest.fixture(scope="module")
def processor():
    questions = ["is it red?", "what is it?"]
    return build_teacher(ModelArguments(config=TINY), ["yes", "no"], questions, max_text_length=16)[1]


def picture(width, height):
    """Red on the left, blue on the right."""
    image = PILImage.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    return image


def row(size=(32, 32), **changes):
    image = {"path": None, "bytes": encoded(picture(*size))}
    return {"image": image, "question": "is it red?", "answers": ["yes"], "origin": "row 0", **changes}


RED, BLUE = [1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]


def test_batches_have_the_shapes_and_types_that_models_take(processor):
    batch = VqaCollator(Encoder(processor).replace(max_text_length=9), ["yes", "no", "so"])([row(), row((50, 20))])
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items() if name != "token_type_ids"} == {
        "input_ids": ((2, 9), torch.long),
        "attention_mask": ((2, 9), torch.long),
        "pixel_values": ((2, 3, 32, 32), torch.float32),
        "labels": ((2, 3), torch.float32),
    }


def test_questions_are_padded_to_max_text_length(processor):
    batch = VqaCollator(Encoder(processor).replace(max_text_length=12), ["yes", "no"])([row(), row(question="is it?")])
    lengths = [len(processor.tokenizer(question).input_ids) for question in ("is it red?", "is it?")]
    assert lengths[0] > lengths[1]
    for ids, mask, length in zip(batch["input_ids"], batch["attention_mask"], lengths, strict=True):
        assert mask.tolist() == [1] * length + [0] * (12 - length)
        assert (ids[length:] == processor.tokenizer.pad_token_id).all()


def test_questions_are_cut_at_max_text_length_and_still_end_properly(processor):
    question = "is it red? " * 9
    batch = VqaCollator(Encoder(processor).replace(max_text_length=7), ["yes", "no"])([row(question=question)])
    tokenizer = processor.tokenizer
    words = tokenizer(question, add_special_tokens=False).input_ids[:5]
    assert batch["input_ids"].tolist() == [[tokenizer.cls_token_id, *words, tokenizer.sep_token_id]]
    assert batch["attention_mask"].tolist() == [[1] * 7]


def test_an_image_of_the_right_size_keeps_its_pixels(processor):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    image = {"path": None, "bytes": encoded(PILImage.fromarray(pixels))}
    values = VqaCollator(Encoder(processor), ["yes", "no"])([row(image=image)])["pixel_values"][0]
    expected = torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(50, 20), (20, 50), (64, 64), (8, 8)])
def test_square_images_are_whole_and_need_no_mask(processor, size):
    batch = VqaCollator(Encoder(processor), ["yes", "no"])([row(size), row()])
    assert "pixel_mask" not in batch
    values = batch["pixel_values"][0]
    assert values.shape == (3, 32, 32)
    torch.testing.assert_close(values[:, :, 2], torch.tensor(RED)[:, None].expand(3, 32), atol=0.05, rtol=0)
    torch.testing.assert_close(values[:, :, -3], torch.tensor(BLUE)[:, None].expand(3, 32), atol=0.05, rtol=0)


def test_images_of_different_shapes_keep_their_mask(processor):
    batch = VqaCollator(Encoder(processor).replace(keep_aspect_ratio=True), ["yes", "no"])(
        [row((40, 40)), row((80, 52)), row((30, 48))]
    )
    heights, widths = (32, 32, 48), (32, 48, 32)
    assert batch["pixel_values"].shape == (3, 3, 48, 48)
    assert (batch["pixel_mask"].dtype, batch["pixel_mask"].shape) == (torch.long, (3, 48, 48))
    for values, mask, height, width in zip(batch["pixel_values"], batch["pixel_mask"], heights, widths, strict=True):
        assert mask[:height, :width].all()
        assert mask.sum() == height * width
        assert not values[:, mask == 0].any()
        assert values[:, 4, width - 4].tolist() == pytest.approx(BLUE, abs=0.05)


def test_images_of_the_same_shape_need_no_mask(processor):
    batch = VqaCollator(Encoder(processor).replace(keep_aspect_ratio=True), ["yes", "no"])(
        [row((60, 40)), row((60, 40))]
    )
    assert "pixel_mask" not in batch
    assert batch["pixel_values"].shape == (2, 3, 32, 48)


@pytest.mark.parametrize("size", [(2000, 3), (3, 2000)])
def test_an_image_that_is_too_long_for_its_shape_is_named_with_its_row(processor, size):
    rows = [row(), {**row(size), "origin": "train.jsonl, line 7"}]
    assert VqaCollator(Encoder(processor), ["yes", "no"])(rows)["pixel_values"].shape == (2, 3, 32, 32)
    expected = f"train.jsonl, line 7: keep_aspect_ratio=True: the image .*has {size[0]} x {size[1]} pixels"
    with pytest.raises(ValueError, match=expected):
        VqaCollator(Encoder(processor).replace(keep_aspect_ratio=True), ["yes", "no"])(rows)


@pytest.mark.parametrize("length", range(120, 170, 7))
def test_the_longest_image_is_the_one_that_the_processor_takes(processor, length):
    image = np.zeros((20, length, 3), dtype=np.uint8)
    collator = VqaCollator(Encoder(processor).replace(keep_aspect_ratio=True), ["yes", "no"])
    try:
        processor.image_processor([image])
    except ValueError:
        with pytest.raises(ValueError, match=f"{length} x 20 pixels"):
            collator([row((length, 20))])
    else:
        assert collator([row((length, 20))])["pixel_values"].shape[2] == 8


@pytest.fixture(scope="module")
def meter_processor():
    config = meter_fields(vision={"image_size": 32})
    arguments = ModelArguments(backbone="meter", config=config)
    return build_teacher(arguments, ["yes", "no"], ["is it red?", "what is it?"], max_text_length=16)[1]


def test_meter_sees_squares_of_whole_images(meter_processor):
    batch = VqaCollator(Encoder(meter_processor).replace(max_text_length=9), ["yes", "no"])([row((50, 20)), row()])
    assert "pixel_mask" not in batch
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 9)
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    assert batch["pixel_values"][0, :, 16, 2].tolist() == pytest.approx(RED, abs=0.05)
    assert batch["pixel_values"][0, :, 16, -3].tolist() == pytest.approx(BLUE, abs=0.05)


def test_meter_cannot_keep_the_aspect_ratio(meter_processor):
    with pytest.raises(ValueError, match="data.keep_aspect_ratio=True"):
        VqaDataArguments(keep_aspect_ratio=True).encoder(meter_processor)


def test_a_row_does_not_depend_on_the_others(processor):
    collator = VqaCollator(Encoder(processor), ["yes", "no"])
    together = collator([row(), row((50, 20), question="what is it? " * 9, answers=["no"])])
    alone = collator([row()])
    for name, value in alone.items():
        assert torch.equal(together[name][:1], value), name


@pytest.mark.parametrize(
    ("answers", "target"),
    [
        (["no"], [0, 1, 0]),
        ([" No"], [0, 1, 0]),
        (["yes", "no"], [0.5, 0.5, 0]),
        (["yes", "perhaps", "no", "no", "no"] + 5 * ["so"], [0.3, 0.9, 1]),
        (["perhaps"], [0, 0, 0]),
    ],
)
def test_labels_are_soft_targets(processor, answers, target):
    batch = VqaCollator(Encoder(processor), ["yes", "no", "so"])([row(answers=answers)])
    torch.testing.assert_close(batch["labels"], torch.tensor([target], dtype=torch.float32))


def test_labels_with_capital_letters_are_matched(processor):
    assert VqaCollator(Encoder(processor), ["Yes", "No"]).target(["no"]).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "target"),
    [
        (["2", "two"], [0.9, 0.9]),  # apart, as raw counting wants them
        (["2", "cup"], [1.0, 0.6]),
        (["Two.", "the cup"], [1.0, 0.6]),  # of a vocabulary made elsewhere
        (["a", ""], [0, 0.6]),
        (["a", "b"], [0.0, 0.0]),  # "?" is no letter
    ],
)
def test_answers_count_as_labels_normalised_in_the_same_way(labels, target):
    answers = ["2", "2", "2", "two", "Two", "two ", "a cup", "cup", "?", "!"]
    torch.testing.assert_close(VqaCollator(None, labels).target(answers), torch.tensor(target))


def test_rows_without_answers_have_no_labels(processor):
    unanswered = {name: value for name, value in row().items() if name != "answers"}
    assert "labels" not in VqaCollator(Encoder(processor), ["yes", "no"])([unanswered])


def test_teacher_logits_are_passed_through(processor):
    collator = VqaCollator(Encoder(processor), ["yes", "no"])
    batch = collator([row(teacher_logits=[0.25, -3.0]), row(teacher_logits=[1.5, 2.0])])
    assert batch["teacher_logits"].dtype == torch.float32
    assert batch["teacher_logits"].tolist() == [[0.25, -3.0], [1.5, 2.0]]
    assert "teacher_logits" not in collator([row()])


def test_digit_scenes_go_through_the_collator(processor):
    scenes = {"train_scenes": 20, "eval_scenes": 2, "grid_size": 4, "unknown_answers": "ignore"}
    data = load_vqa(VqaDataArguments(**scenes))
    batch = VqaCollator(Encoder(processor), data.labels)([data.train[number] for number in range(8)])
    assert batch["pixel_values"].shape == (8, 3, 32, 32)
    assert "pixel_mask" not in batch
    assert [data.labels[number] for number in batch["labels"].argmax(1)] == [a[0] for a in data.train["answers"][:8]]
    assert batch["labels"].sum(1).tolist() == [1] * 8
