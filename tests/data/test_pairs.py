"""Images with texts from what a user may have."""

import json

import pytest
from datasets import Dataset, Features, Image, Value
from tiny import noise, undecoded
from tiny_tasks import tiny

from pumer_hf.data.pairs import PairCollator, hold_out, read_pairs
from pumer_hf.images import open_image
from pumer_hf.inputs import Encoder

TEXTS = ["what is it?", "how many are there?", "is it red?"]


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        noise().save(tmp_path / f"{index}.png")
    return tmp_path


def write_jsonl(folder, rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("column", ["text", "question", "caption"])
def test_jsonl(column, folder):
    path = write_jsonl(folder, [{"image": f"{index}.png", column: text} for index, text in enumerate(TEXTS)])
    rows = read_pairs(path)
    assert rows["text"][:] == TEXTS
    assert [image["path"] for image in rows["image"]] == [str(folder / f"{index}.png") for index in range(3)]
    assert rows[1]["origin"] == f"{path}, line 2"


def test_named_columns(folder):
    path = write_jsonl(folder, [{"file": "0.png", "asked": "why?", "text": "not this"}])
    (row,) = read_pairs(path, image_column="file", text_column="asked")
    assert (row["text"], row["image"]["path"]) == ("why?", str(folder / "0.png"))


def test_csv(folder):
    (folder / "rows.csv").write_text('image,question\n0.png,"one, or two?"\n1.png,three?\n')
    rows = read_pairs(str(folder / "rows.csv"))
    assert rows["text"][:] == ["one, or two?", "three?"]
    assert open_image(rows[1]["image"]).size == (48, 48)


def test_a_folder_of_datasets(tmp_path):
    features = Features({"picture": Image(decode=False), "question": Value("string")})
    rows = {"picture": [undecoded(), undecoded()], "question": TEXTS[:2]}
    (tmp_path / "data").mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    read = read_pairs(str(tmp_path / "data"), image_column="picture")
    assert read["text"][:] == TEXTS[:2]
    with pytest.raises(ValueError, match="--image-column"):
        read_pairs(str(tmp_path / "data"))


@pytest.mark.parametrize("source", ["digit_scenes", "digit_scenes:plain", "digit_scenes:cluttered"])
def test_digit_scenes(source):
    rows = read_pairs(source, image_size=64, number=10)
    assert len(rows) == 12  # whole scenes, of four questions each
    assert set(rows.column_names) == {"image", "text", "origin"}
    assert open_image(rows[0]["image"]).size == (64, 64)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digit_scenes:foggy", "foggy"),
        ("digit_scenes", "multiple"),
        ("nothing.jsonl", "nothing.jsonl"),
        ("nothing/here/at/all", "nothing/here/at/all"),
    ],
)
def test_what_is_not_there_is_named(source, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_pairs(source, image_size=50)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"picture": "0.png", "text": "a"}, "--image-column"),
        ({"image": "0.png", "words": "a"}, "--text-column"),
        ({"image": "9.png", "text": "a"}, "9.png"),
        ({"image": "0.png", "text": " "}, "must hold text"),
        ({"image": 5, "text": "a"}, "'image'"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(row, message, folder):
    path = write_jsonl(folder, [{"image": "0.png", "text": "fine"}, row] if "text" in row else [row])
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read_pairs(path)
    assert path in str(caught.value)


def test_other_files_are_refused(folder):
    with pytest.raises(ValueError, match=r"\.jsonl or \.csv"):
        read_pairs(str(folder / "0.png"))


def test_rows_of_one_image_stay_together(folder):
    path = write_jsonl(folder, [{"image": f"{index % 3}.png", "text": f"text {index}"} for index in range(30)])
    kept, held = hold_out(read_pairs(path), 6)
    assert (len(kept), len(held)) == (20, 6)
    images = [{image["path"] for image in part["image"]} for part in (kept, held)]
    assert images[0].isdisjoint(images[1])
    again, _ = hold_out(read_pairs(path), 6)
    assert again["text"][:] == kept["text"][:]
    most, _ = hold_out(read_pairs(path), 6, most=5)
    assert set(most["text"]) <= set(kept["text"])
    assert len(most) == 5


def test_scenes_stay_together():
    rows = read_pairs("digit_scenes", image_size=48, number=200)
    kept, held = hold_out(rows, 40)
    assert len(held) == 40
    numbers = [{int(origin.rpartition(" ")[2]) // 4 for origin in part["origin"]} for part in (kept, held)]
    assert numbers[0].isdisjoint(numbers[1])


def test_at_most_a_fifth_is_held_out(folder):
    path = write_jsonl(folder, [{"image": f"{index % 3}.png", "text": f"text {index}"} for index in range(9)])
    kept, held = hold_out(read_pairs(path), 500)
    assert (len(kept), len(held)) == (6, 1)


def test_one_image_is_too_few(folder):
    path = write_jsonl(folder, [{"image": "0.png", "text": "a"}] * 5)
    with pytest.raises(ValueError, match="too few images"):
        hold_out(read_pairs(path), 1)


def test_batches_have_no_labels(folder):
    _, processor = tiny("vilt")
    path = write_jsonl(folder, [{"image": f"{index}.png", "text": text} for index, text in enumerate(TEXTS)])
    batch = PairCollator(Encoder(processor))(list(read_pairs(path)))
    assert batch["pixel_values"].shape == (3, 3, 48, 48)
    assert "input_ids" in batch
    assert "labels" not in batch
