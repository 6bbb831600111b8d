import json
import struct
from types import SimpleNamespace

import pytest
from PIL import Image as PILImage
from tiny import png

from pumer_hf.data.files import (
    _numbered_image,
    images_by_number,
    read_vqa_answers,
    read_vqa_files,
    read_vqa_questions,
)
from pumer_hf.data.vqa import VqaCollator
from pumer_hf.images import open_image
from pumer_hf.inputs import Encoder


def write_image(path, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(**{"size": (6, 4), **kwargs}))
    return path


def write_lines(path, *rows):
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return str(path)


def good_row(**changes):
    return {"image": "a.png", "question": "what is it?", "answer": "a cup", **changes}


@pytest.fixture
def folder(tmp_path):
    write_image(tmp_path / "a.png")
    return tmp_path


# one .jsonl file


def test_jsonl_rows_come_in_order_with_their_origin(folder):
    path = write_lines(folder / "train.jsonl", good_row(), good_row(question="is it?", answer="yes"))
    assert read_vqa_files([path]).to_list() == [
        {
            "image": {"path": str(folder / "a.png"), "bytes": None},
            "question": question,
            "answers": answers,
            "origin": f"{path}, line {line}",
        }
        for line, (question, answers) in enumerate([("what is it?", ["a cup"]), ("is it?", ["yes"])], start=1)
    ]


def test_a_row_may_give_the_answers_of_several_annotators(folder):
    row = {"image": "a.png", "question": "is it?", "answers": ["yes", "yes", "no"]}
    dataset = read_vqa_files([write_lines(folder / "train.jsonl", row)])
    assert dataset[0]["answers"] == ["yes", "yes", "no"]


def test_text_other_than_ascii_survives(folder):
    path = folder / "train.jsonl"
    path.write_text(json.dumps(good_row(question="où est-il?", answer="là"), ensure_ascii=False), encoding="utf-8")
    row = read_vqa_files([str(path)])[0]
    assert (row["question"], row["answers"]) == ("où est-il?", ["là"])


def test_blank_lines_are_skipped_but_counted(folder):
    path = write_lines(folder / "train.jsonl", "", good_row(), "  ", good_row(answer="b"))
    assert read_vqa_files([path])["origin"][:] == [f"{path}, line 2", f"{path}, line 4"]


def test_image_paths_are_relative_to_the_file(folder):
    write_image(folder / "data" / "images" / "b.png")
    path = write_lines(folder / "data" / "train.jsonl", good_row(image="images/b.png"))
    assert read_vqa_files([path])[0]["image"]["path"] == str(folder / "data" / "images" / "b.png")


def test_image_paths_are_relative_to_image_dir_if_it_is_given(folder):
    write_image(folder / "photos" / "a.png")
    path = write_lines(folder / "train.jsonl", good_row())
    assert read_vqa_files([path], str(folder / "photos"))[0]["image"]["path"] == str(folder / "photos" / "a.png")


def test_an_absolute_image_path_stays(folder):
    path = write_lines(folder / "train.jsonl", good_row(image=str(folder / "a.png")))
    assert read_vqa_files([path], "/nowhere")[0]["image"]["path"] == str(folder / "a.png")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "a.png", "question": ', "not valid JSON"),
        ("[1, 2]", "JSON object, got list"),
        (good_row(image=3), "'image' .*str.* 3"),
        (good_row(question=None), "'question' .*str.* None"),
        (good_row(answer=["yes"]), r"'answer' .*str.* \['yes'\]"),
        (good_row(answers=[]), "'answers' .*at least one"),
        (good_row(answers="yes"), "'answers' .*list .*got 'yes'"),
        (good_row(answers=["yes", 1]), "'answers' .*string"),
        ({"question": "what?", "answer": "a"}, "'image' .*missing"),
        ({"image": "a.png", "answer": "a"}, "'question' .*missing"),
        ({"image": "a.png", "question": "what?"}, "'answer' .*missing"),
    ],
)
def test_a_damaged_line_is_named(folder, line, message):
    path = write_lines(folder / "train.jsonl", good_row(), "", line)
    with pytest.raises(ValueError, match=f"train.jsonl, line 3: .*{message}") as error:
        read_vqa_files([path])
    assert path in str(error.value)


def test_a_missing_image_is_named_with_its_line(folder):
    path = write_lines(folder / "train.jsonl", good_row(), good_row(image="b.png"))
    with pytest.raises(FileNotFoundError, match=r"train\.jsonl, line 2: .*no image .*b\.png"):
        read_vqa_files([path])


def test_a_folder_is_not_an_image(folder):
    (folder / "b.png").mkdir()
    path = write_lines(folder / "train.jsonl", good_row(image="b.png"))
    with pytest.raises(FileNotFoundError, match=r"train\.jsonl, line 1: .*no image .*b\.png"):
        read_vqa_files([path])


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_named(folder, content):
    path = folder / "train.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"train\.jsonl: .*no question"):
        read_vqa_files([str(path)])


def test_a_file_that_is_not_utf_8_is_named(folder):
    path = folder / "train.jsonl"
    path.write_bytes(json.dumps(good_row(answer="là"), ensure_ascii=False).encode("latin-1"))
    with pytest.raises(ValueError, match=r"train\.jsonl"):
        read_vqa_files([str(path)])


def test_a_missing_file_is_named(folder):
    path = write_lines(folder / "questions.json", {})
    for files in (["nowhere.jsonl"], [path, "nowhere.jsonl"]):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl: .*no such file"):
            read_vqa_files(files, str(folder))


@pytest.mark.parametrize("names", [[], ["a.json"], ["a.jsonl", "b.jsonl", "c.jsonl"]])
def test_the_wrong_number_of_files_is_an_error_that_names_them(folder, names):
    files = [write_lines(folder / name, good_row()) for name in names]
    with pytest.raises(ValueError, match=r"\.jsonl .*two \.json files") as error:
        read_vqa_files(files, str(folder))
    assert all(path in str(error.value) for path in files)


# VQA v2's two .json files


def vqa_question(question_id=10, image_id=9, question="what is it?"):
    return {"question_id": question_id, "image_id": image_id, "question": question}


def vqa_annotation(question_id=10, answers=("cup", "cup", "mug")):
    return {"question_id": question_id, "answers": [{"answer": answer, "answer_id": 1} for answer in answers]}


@pytest.fixture
def vqa(folder):
    """Writes a pair of files with the given contents, and returns their paths, questions first."""
    write_image(folder / "images" / "COCO_train2014_000000000009.jpg")
    write_image(folder / "images" / "COCO_train2014_000000000025.jpg")

    def write(questions, annotations):
        questions = {"info": {}, "questions": questions} if isinstance(questions, list) else questions
        annotations = {"info": {}, "annotations": annotations} if isinstance(annotations, list) else annotations
        return [write_lines(folder / "q.json", questions), write_lines(folder / "a.json", annotations)]

    write.image_dir = str(folder / "images")
    return write


@pytest.mark.parametrize("order", [1, -1])
def test_vqa_v2_questions_find_their_answers_and_images(vqa, order):
    files = vqa(
        [vqa_question(10, 25), vqa_question(11, 9, "is it?"), vqa_question(12, 25, "why?")],
        [vqa_annotation(12, ["so"] * 10), vqa_annotation(11, ["yes", "no"]), vqa_annotation(10)],
    )
    image = f"{vqa.image_dir}/COCO_train2014_0000000000{{}}.jpg"
    rows = [(25, "what is it?", ["cup", "cup", "mug"]), ("09", "is it?", ["yes", "no"]), (25, "why?", ["so"] * 10)]
    assert read_vqa_files(files[::order], vqa.image_dir).to_list() == [
        {
            "image": {"path": image.format(number), "bytes": None},
            "question": question,
            "answers": answers,
            "consensus": None,
            "origin": f"{files[0]}, question {row}",
        }
        for row, (number, question, answers) in enumerate(rows)
    ]


def test_vqa_v2_files_say_what_most_annotators_answer(vqa):
    said = {**vqa_annotation(11), "multiple_choice_answer": "mug"}
    files = vqa([vqa_question(10), vqa_question(11)], [said, vqa_annotation(10)])
    assert read_vqa_files(files, vqa.image_dir)["consensus"][:] == [None, "mug"]
    files = vqa([vqa_question()], [{**vqa_annotation(), "multiple_choice_answer": 2}])
    with pytest.raises(ValueError, match=r"a\.json, annotation 0: .*'multiple_choice_answer' .*str.* 2"):
        read_vqa_files(files, vqa.image_dir)


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ({"image_id": 9, "question": "why?"}, "'question_id' .*missing"),
        (vqa_question(question_id="11"), "'question_id' .*int.* '11'"),
        ({"question_id": 10, "question": "why?"}, "'image_id' .*missing"),
        (vqa_question(image_id="9"), "'image_id' .*int.* '9'"),
        ({"question_id": 10, "image_id": 9}, "'question' .*missing"),
        (vqa_question(question=["why?"]), r"'question' .*str.* \['why\?'\]"),
        ("why?", "'question_id' .*int"),
        (vqa_question(question_id=11), r"a\.json .*no annotation .*question_id 11"),
    ],
)
def test_a_damaged_vqa_v2_question_is_named(vqa, damaged, message):
    files = vqa([vqa_question(), damaged], [vqa_annotation()])
    with pytest.raises(ValueError, match=rf"q\.json, question 1: .*{message}"):
        read_vqa_files(files, vqa.image_dir)


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ({"answers": [{"answer": "a"}]}, "'question_id' .*missing"),
        ({"question_id": 11}, "'answers' .*list.* missing"),
        ({"question_id": 11, "answers": "a"}, "'answers' .*list.* 'a'"),
        ({"question_id": 11, "answers": ["a"]}, "'answer' .*str"),
        ({"question_id": 11, "answers": [{"answer": 2}]}, "'answer' .*str.* 2"),
        ({"question_id": 11, "answers": []}, "'answers' .*at least one"),
        (None, "'answers' .*list"),
    ],
)
def test_a_damaged_vqa_v2_annotation_is_named(vqa, damaged, message):
    files = vqa([vqa_question()], [vqa_annotation(), damaged])
    with pytest.raises(ValueError, match=rf"a\.json, annotation 1: .*{message}"):
        read_vqa_files(files, vqa.image_dir)


def test_a_vqa_v2_question_without_its_image_is_named(vqa):
    files = vqa([vqa_question(), vqa_question(image_id=90)], [vqa_annotation()])
    with pytest.raises(FileNotFoundError, match=r"q\.json, question 1: .*images .*90"):
        read_vqa_files(files, vqa.image_dir)


def test_some_questions_of_a_file(vqa):
    questions = [vqa_question(10), vqa_question(11, image_id=90), vqa_question(12, 25)]
    path, annotations = vqa(questions, [vqa_annotation(10), vqa_annotation(11, ["yes"])])
    rows = read_vqa_questions(path, vqa.image_dir, [12, 10, 99])  # 11 has no image
    assert rows["question_id"][:] == [10, 12]
    assert rows["origin"][1] == f"{path}, question 2"
    with pytest.raises(ValueError, match=r"q\.json: .*no question .*1 question_ids"):
        read_vqa_questions(path, vqa.image_dir, [99])
    assert read_vqa_answers(annotations) == {10: ["cup", "cup", "mug"], 11: ["yes"]}


def test_files_without_a_number_are_no_vqa_v2_images(vqa, folder):
    write_image(folder / "images" / "thumbnail.jpg")
    assert len(read_vqa_files(vqa([vqa_question()], [vqa_annotation()]), vqa.image_dir)) == 1


def test_only_pictures_are_vqa_v2_images(vqa, folder):
    images = folder / "images"
    (images / "._COCO_train2014_000000000009.jpg").write_bytes(b"what macOS leaves")
    (images / "features_000000000009.npy").write_bytes(b"no picture")
    (images / "COCO_train2014_000000000009.jpg.txt").write_text("a caption")
    (images / ".cache").mkdir()
    write_image(images / ".cache" / "9.png")
    (images / "thumbs_9").mkdir()
    (images / "thumbs_9.png").mkdir()
    row = read_vqa_files(vqa([vqa_question()], [vqa_annotation()]), vqa.image_dir)[0]
    assert row["image"]["path"] == str(images / "COCO_train2014_000000000009.jpg")


def test_two_images_with_the_number_of_a_question_are_an_error_that_names_both(vqa, folder):
    first = folder / "images" / "COCO_train2014_000000000009.jpg"
    second = write_image(folder / "images" / "mask_000000000009.png")
    files = vqa([vqa_question(image_id=25), vqa_question(11)], [vqa_annotation(), vqa_annotation(11)])
    with pytest.raises(ValueError, match=r"q\.json, question 1: .* both .*9") as error:
        read_vqa_files(files, vqa.image_dir)
    assert str(first) in str(error.value)
    assert str(second) in str(error.value)
    assert len(read_vqa_files(vqa([vqa_question(image_id=25)], [vqa_annotation()]), vqa.image_dir)) == 1


def test_vqa_v2_images_may_be_in_subfolders(vqa, folder):
    path = write_image(folder / "images" / "val2014" / "COCO_val2014_000000000042.JPG")
    write_image(folder / "elsewhere" / "43.png")
    (folder / "images" / "linked").symlink_to(folder / "elsewhere")
    files = vqa([vqa_question(image_id=42), vqa_question(image_id=43)], [vqa_annotation()])
    paths = [image["path"] for image in read_vqa_files(files, vqa.image_dir)["image"]]
    assert paths == [str(path), str(folder / "images" / "linked" / "43.png")]


# what is not there, and what is half there


def test_rows_without_their_image_can_be_left_out(vqa, folder):
    files = vqa([vqa_question(), vqa_question(11, image_id=90)], [vqa_annotation(), vqa_annotation(11)])
    skipped = []
    assert read_vqa_files(files, vqa.image_dir, skipped)["image"][0]["path"].endswith("09.jpg")
    assert skipped == [f"{files[0]}, question 1"]
    lines = write_lines(folder / "train.jsonl", good_row(image="gone.png"), good_row(question="is it?"))
    skipped = []
    assert read_vqa_files([lines], skipped=skipped)["question"][:] == ["is it?"]
    assert skipped == [f"{lines}, line 1"]


def test_if_all_images_are_missing_the_error_names_one(folder):
    path = write_lines(folder / "train.jsonl", *[good_row(image="gone.png")] * 2)
    with pytest.raises(ValueError, match=r"missing_images='skip'.* 2 .*line 2: .*gone\.png"):
        read_vqa_files([path], skipped=[])


@pytest.mark.parametrize(
    "changes",
    [
        {"question": "is it \ud83d?"},
        {"answer": "\udc00"},
        {"answers": ["yes", "\udc00"]},
        {"image": "\ud83d.png"},
    ],
)
def test_half_a_character_is_named_with_its_line(folder, changes):
    path = write_lines(folder / "train.jsonl", good_row(), good_row(**changes))
    with pytest.raises(ValueError, match=r"train\.jsonl, line 2: .*'\\ud"):
        read_vqa_files([path])


def test_half_a_character_in_a_vqa_v2_file_is_named_with_its_row(vqa):
    files = vqa([vqa_question(), vqa_question(question="\ud83d")], [vqa_annotation()])
    with pytest.raises(ValueError, match=r"q\.json, question 1: .*'question' .*half a character"):
        read_vqa_files(files, vqa.image_dir)
    files = vqa([vqa_question()], [vqa_annotation(answers=("a", "\ud83d"))])
    with pytest.raises(ValueError, match=r"a\.json, annotation 0: .*'answer' .*half a character"):
        read_vqa_files(files, vqa.image_dir)


def test_a_whole_character_in_two_halves_survives(folder):
    path = folder / "train.jsonl"
    path.write_text(json.dumps(good_row(question="\U0001f600?")))  # json writes \ud83d\ude00
    assert read_vqa_files([str(path)])["question"][0] == "\U0001f600?"


def test_vqa_v2_files_need_an_image_dir_that_exists(vqa):
    files = vqa([vqa_question()], [vqa_annotation()])
    with pytest.raises(ValueError, match=r"q\.json: .*image_dir"):
        read_vqa_files(files)
    with pytest.raises(FileNotFoundError, match="image_dir=/nowhere: .*no such folder"):
        read_vqa_files(files, "/nowhere")


def test_two_question_files_are_an_error_that_names_both(vqa):
    files = vqa([vqa_question()], {"questions": [vqa_question()]})
    with pytest.raises(ValueError, match=r"q\.json, .*a\.json: .*'questions'.* 'annotations'"):
        read_vqa_files(files, vqa.image_dir)


def test_two_annotation_files_are_an_error_that_names_both(vqa):
    files = vqa({"annotations": [vqa_annotation()]}, [vqa_annotation()])
    with pytest.raises(ValueError, match=r"q\.json, .*a\.json: .*'questions'.* 'annotations'"):
        read_vqa_files(files, vqa.image_dir)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": []}, r"'questions' .*'annotations'.* \['data'\]"),
        ({"annotations": {"10": "cup"}}, "'questions' .*'annotations'"),
        ("[]", "JSON object, got list"),
        ('{"annotations": [', "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_a_damaged_vqa_v2_file_is_named(vqa, content, message):
    files = vqa([vqa_question()], content)
    with pytest.raises(ValueError, match=rf"a\.json: .*{message}"):
        read_vqa_files(files, vqa.image_dir)


def test_a_vqa_v2_file_that_is_not_utf_8_is_named(vqa, folder):
    files = vqa([vqa_question()], [vqa_annotation()])
    (folder / "q.json").write_bytes('{"questions": "où?"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"q\.json"):
        read_vqa_files(files, vqa.image_dir)


@pytest.mark.parametrize("order", [1, -1])
def test_a_vqa_v2_file_without_questions_is_named(vqa, order):
    files = vqa([], [vqa_annotation()])
    with pytest.raises(ValueError, match=r"q\.json: .*no question"):
        read_vqa_files(files[::order], vqa.image_dir)


# decoding images


def cut(png):
    return png[: len(png) - 25]


def wrong_chunk(png):
    """Says that the pixel data ends early, so that what follows is no chunk."""
    length = png.index(b"IDAT") - 4
    return png[:length] + struct.pack(">I", 1) + png[length + 4 :]


DAMAGE = {"cut": cut, "wrong chunk": wrong_chunk, "text": lambda png: b"not an image", "empty": lambda png: b""}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_image_is_named_with_its_row(folder, damage):
    (folder / "a.png").write_bytes(damage(png(size=(64, 64))))
    row = read_vqa_files([write_lines(folder / "train.jsonl", good_row())])[0]
    with pytest.raises(ValueError, match=r"train\.jsonl, line 1: .*cannot read .*a\.png"):
        open_image(row["image"], row["origin"])


def test_an_image_that_is_gone_by_now_is_named_with_its_row(folder):
    row = read_vqa_files([write_lines(folder / "train.jsonl", good_row())])[0]
    (folder / "a.png").unlink()
    with pytest.raises(ValueError, match=r"train\.jsonl, line 1: .*cannot read .*a\.png"):
        open_image(row["image"], row["origin"])


def test_a_damaged_image_in_memory_is_named_by_its_row():
    with pytest.raises(ValueError, match="scene 7: .*cannot read"):
        open_image({"path": None, "bytes": b"not an image"}, "scene 7")


def test_an_image_that_is_too_large_for_pillow_is_named_with_its_row(monkeypatch):
    monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match="scene 7: .*cannot read"):
        open_image({"path": None, "bytes": png(size=(6, 4))}, "scene 7")


def test_the_collator_names_the_row_of_a_damaged_image(folder):
    write_image(folder / "b.png")
    rows = read_vqa_files([write_lines(folder / "train.jsonl", good_row(image="b.png"), good_row())]).to_list()
    (folder / "a.png").write_bytes(cut(png(size=(64, 64))))
    squares = SimpleNamespace(image_processor=SimpleNamespace(size={"shortest_edge": None}))
    collator = VqaCollator(Encoder(squares), ["a cup", "yes"])
    with pytest.raises(ValueError, match=r"train\.jsonl, line 2: .*cannot read .*a\.png"):
        collator(rows)


@pytest.mark.parametrize(("mode", "colour", "rgb"), [("L", 77, (77, 77, 77)), ("RGBA", (9, 8, 7, 255), (9, 8, 7))])
def test_images_are_decoded_to_rgb(tmp_path, mode, colour, rgb):
    content = png(colour, (6, 4), mode)
    (tmp_path / "a.png").write_bytes(content)
    for image in ({"path": None, "bytes": content}, {"path": str(tmp_path / "a.png"), "bytes": None}):
        opened = open_image(image, "row")
        assert (opened.mode, opened.size, opened.getpixel((5, 3))) == ("RGB", (6, 4), rgb)


def test_a_link_does_not_count_a_picture_twice(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x_9.png").write_bytes(b"")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "y_9.png").symlink_to(tmp_path / "a" / "x_9.png")
    found = images_by_number(tmp_path)[9]
    assert _numbered_image(found, tmp_path, 9, "row")["path"] in {
        str(tmp_path / "y_9.png"),
        str(tmp_path / "a/x_9.png"),
    }


@pytest.mark.parametrize("change", [{"question": " "}, {"answer": ""}, {"answers": ["red", " "]}], ids=str)
def test_a_blank_text_is_named(change, tmp_path):
    write_image(tmp_path / "a.png")
    path = write_lines(tmp_path / "rows.jsonl", good_row(), good_row(**change))
    with pytest.raises(ValueError, match=f"line 2: .*{next(iter(change))[:6]}"):
        read_vqa_files([path])
