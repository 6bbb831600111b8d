"""Chats with images from what a user may have, and the prompts that a chat template makes of them."""

import json
import logging

import pytest
from datasets import Dataset, Features, Image, List, Value
from tiny import noise, undecoded

from pumer_hf.data.chat import ChatCollator
from pumer_hf.data.messages import FEATURES, read_chats
from pumer_hf.data.pairs import groups_by_image, hold_out
from pumer_hf.images import open_image

IMAGE = {"type": "image"}


@pytest.fixture
def folder(tmp_path):
    for index in range(4):
        noise().save(tmp_path / f"{index}.png")
    return tmp_path


def text(words):
    return {"type": "text", "text": words}


def user(*content):
    return {"role": "user", "content": list(content)}


def model(words):
    return {"role": "assistant", "content": words}


def write(folder, *rows):
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def paths(row):
    return [image["path"].rpartition("/")[2] for image in row["images"]]


def test_a_chat_ends_with_its_last_question(folder):
    turns = [user(IMAGE, text("what?")), model("this"), user(text("and that?")), model("that")]
    found = read_chats(write(folder, {"images": ["0.png"], "messages": turns}))
    assert found.without_image == 0
    (row,) = found.rows
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant", "user"]
    assert [part["type"] for part in row["messages"][0]["content"]] == ["image", "text"]
    assert row["messages"][1]["content"] == [{"type": "text", "text": "this"}]
    assert open_image(row["images"][0]).size == (48, 48)
    assert row["origin"].endswith("chats.jsonl, line 1")


def test_a_chat_for_training_ends_with_the_answer_to_its_last_question(folder):
    turns = [user(IMAGE, text("what?")), model("this"), user(text("and that?")), model("that"), model("more")]
    found = read_chats(write(folder, {"images": ["0.png"], "messages": turns}), with_answers=True)
    assert [turn["content"][-1]["text"] for turn in found.rows[0]["messages"]] == [
        "what?",
        "this",
        "and that?",
        "that",
    ]
    with pytest.raises(ValueError, match="line 1: messages: no turn with the role 'assistant' follows"):
        read_chats(write(folder, {"images": ["0.png"], "messages": turns[:3]}), with_answers=True)


def test_images_may_stand_in_the_turns_and_beside_them(folder):
    of_their_own = [
        user({"type": "image", "path": "1.png"}, text("a?"), {"type": "image_url", "image_url": {"url": "2.png"}})
    ]
    mixed = [user({"type": "image", "image": "3.png"}, IMAGE, text("b?"))]
    without_parts = [{"role": "system", "content": "be short"}, {"role": "user", "content": "c?"}]
    path = write(
        folder,
        {"messages": of_their_own},
        {"images": ["0.png"], "messages": mixed},
        {"image": "1.png", "messages": without_parts},
    )
    rows = read_chats(path).rows
    assert [paths(row) for row in rows] == [["1.png", "2.png"], ["3.png", "0.png"], ["1.png"]]
    assert [part["type"] for part in rows[2]["messages"][1]["content"]] == ["image", "text"]
    assert [part["type"] for part in rows[2]["messages"][0]["content"]] == ["text"]


def test_an_image_after_the_last_question_is_left_out(folder):
    turns = [user(IMAGE, text("a?")), {"role": "assistant", "content": [text("see"), IMAGE]}]
    (row,) = read_chats(write(folder, {"images": ["0.png", "1.png"], "messages": turns})).rows
    assert paths(row) == ["0.png"]


def test_chats_without_an_image_are_counted(folder, caplog):
    alone = {"messages": [user(text("who?"))]}
    path = write(folder, alone, {"images": ["0.png"], "messages": [user(text("what?"))]}, {**alone, "images": []})
    with caplog.at_level(logging.WARNING, "pumer_hf"):
        found = read_chats(path)
    assert (len(found.rows), found.without_image) == (1, 2)
    assert "2 of 3 chats have no image" in caplog.text
    with pytest.raises(ValueError, match=r"none of the 1 chats has an image in images or image.*--image-column"):
        read_chats(write(folder, alone))


@pytest.mark.parametrize("several", [True, False])
def test_a_folder_of_datasets(several, tmp_path):
    part = {"type": Value("string"), "text": Value("string")}
    features = Features(
        {
            "pictures": List(Image(decode=False)) if several else Image(decode=False),
            "messages": List({"role": Value("string"), "content": List(part)}),
        }
    )
    pictures = [[undecoded(), undecoded()], []] if several else [undecoded(), None]
    number = 2 if several else 1
    messages = [[user(*[IMAGE | {"text": None}] * number, text("a?"))], [user(text("b?"))]]
    (tmp_path / "data").mkdir()
    Dataset.from_dict({"pictures": pictures, "messages": messages}, features=features).to_parquet(
        tmp_path / "data" / "train.parquet"
    )
    found = read_chats(str(tmp_path / "data"), image_column="pictures")
    assert found.rows.features == FEATURES
    assert (len(found.rows), found.without_image) == (1, 1)
    assert [open_image(image).size for image in found.rows[0]["images"]] == [open_image(undecoded()).size] * number
    with pytest.raises(ValueError, match=f"row 0: messages: {number} parts .* 0 images"):
        read_chats(str(tmp_path / "data"))


def test_other_data_are_no_chats(folder, tmp_path):
    assert read_chats(write(folder, {"image": "0.png", "question": "what?"})) is None
    (tmp_path / "data").mkdir()
    Dataset.from_dict({"question": ["a"]}).to_parquet(tmp_path / "data" / "train.parquet")
    assert read_chats(str(tmp_path / "data")) is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [model("hello")]}, "no turn with the role 'user'"),
        ({"messages": [{"content": "a"}]}, "'role'"),
        ({"messages": [{"role": "user", "content": 5}]}, "'content'.*5"),
        ({"messages": [user({"type": "video"})]}, "'video'"),
        ({"messages": [user(IMAGE, IMAGE)], "images": ["0.png"]}, "2 parts .* 1 images"),
        ({"messages": [user(IMAGE)], "images": ["9.png"]}, "9.png"),
        ({"messages": [user(IMAGE)], "images": [5]}, "an image of the chat must hold an image"),
        ({"messages": "what?"}, "'messages' must be a list"),
    ],
)
def test_what_is_wrong_with_a_chat_is_named(row, message, folder):
    path = write(folder, row)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read_chats(path)
    assert path in str(caught.value)


def test_chats_that_share_an_image_stay_together(folder):
    def chat(*names):
        return {"images": [f"{name}.png" for name in names], "messages": [user(text(f"about {names}?"))]}

    rows = read_chats(write(folder, chat(0), chat(1, 2), chat(3), chat(2, 0), chat(1))).rows
    assert groups_by_image(rows) == [[0, 1, 3, 4], [2]]
    for seed in range(4):
        kept, held = hold_out(rows, 1, seed=seed)
        used = [{path for row in part for path in paths(row)} for part in (kept, held)]
        assert used[0].isdisjoint(used[1])


class Processor:
    """Writes prompts as a processor with a chat template does."""

    image_token = "<image>"

    chat_template = "a template"

    def apply_chat_template(self, messages, add_generation_prompt):
        assert add_generation_prompt
        assert all(None not in part.values() for turn in messages for part in turn["content"])
        words = [
            "<image>" if part["type"] == "image" else part["text"] for turn in messages for part in turn["content"]
        ]
        return " ".join(words)

    class tokenizer:
        bos_token = None

    def __call__(self, images, text, **options):
        return {"images": images, "text": text}


def test_the_collator_writes_the_whole_chat(folder):
    turns = [user(IMAGE, text("what?")), model("this"), user(text("and?"), IMAGE)]
    rows = read_chats(write(folder, {"images": ["0.png", "1.png"], "messages": turns})).rows
    batch = ChatCollator(Processor()).prompts(list(rows))
    assert batch["text"] == ["<image> what? this and? <image>"]
    assert [len(images) for images in batch["images"]] == [2]
    processor = Processor()
    processor.chat_template = None
    with pytest.raises(ValueError, match=r"line 1: messages: .*chat_template"):
        ChatCollator(processor).prompts(list(rows))
