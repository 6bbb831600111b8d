"""The public sets, read from copies of their repositories that hold a few rows in the published columns."""

import pytest
import yaml
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from laboratory.vlm_scores import SCORES
from laboratory.vlm_sets import OPTION, SETS, SHORT, WORD, drawn, load_questions, read_own_questions

TEXT = Value("string")
ANNOTATOR = {"answer": TEXT, "answer_confidence": TEXT, "answer_id": Value("int64")}
COLUMNS = {
    "vqav2": {"answers": List(ANNOTATOR), "question": TEXT, "image": Image()},
    "textvqa": {"question": TEXT, "image": Image(), "answers": List(TEXT)},
    "pope": {"question": TEXT, "answer": TEXT, "image": Image(), "category": TEXT},
    "chartqa": {"type": TEXT, "question": TEXT, "answer": TEXT, "image": Image()},
    "docvqa": {"question": TEXT, "image": Image(), "answers": List(TEXT)},
    "mmbench": dict.fromkeys(("question", "hint", "answer", "A", "B", "C", "D"), TEXT) | {"image": Image()},
}
ROWS = {
    "vqav2": {"answers": [{"answer": "two", "answer_confidence": "yes", "answer_id": 1}] * 10},
    "textvqa": {"answers": ["two"] * 10},
    "pope": {"answer": "no", "category": "popular"},
    "chartqa": {"answer": "14", "type": "human_test"},
    "docvqa": {"answers": ["two", "2"]},
    "mmbench": {"hint": "nan", "answer": "B", "A": "a dog", "B": "a cat", "C": "nan", "D": None},
}
RIGHT = {"pope": ["no"], "chartqa": ["14"], "docvqa": ["two", "2"], "mmbench": ["B", "a cat"]}


def picture(number):
    return PILImage.new("RGB", (4, 4), (number, 0, 0))


def publish(folder, files, configs):
    """Write parquet files and the README that names them, as on the Hub."""
    for file, (rows, features) in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows, features=Features(features)).to_parquet(path)
    listed = [
        {"config_name": config, "data_files": [{"split": split, "path": path}]} for config, split, path in configs
    ]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n", encoding="utf-8")


@pytest.mark.parametrize("name", COLUMNS)
def test_a_set_is_read_from_its_published_columns(name, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    one, part = SETS[name], SETS[name].config if SETS[name].config not in (None, "default") else "data"
    rows = [{"question": f"what is {number}?", "image": picture(number), **ROWS[name]} for number in range(3)]
    file = f"{part}/{one.split}-00000-of-00001.parquet"
    publish(
        tmp_path / one.repository,
        {file: (rows, COLUMNS[name])},
        [(one.config or "default", one.split, f"{part}/{one.split}-*")],
    )
    questions = load_questions(name, str(tmp_path), 2, seed=1)
    assert len(questions.rows) == 2
    assert questions.metric in SCORES
    for row, place in zip(questions.rows, drawn(3, 2, 1), strict=True):
        asked = f"what is {place}?"
        expected = {
            "textvqa": asked.capitalize() + SHORT,
            "chartqa": asked + WORD,
            "mmbench": f"{asked} There are several options:\nA. a dog\nB. a cat{OPTION}",
        }
        assert row["question"] == expected.get(name, asked + SHORT)
        assert row["answers"] == RIGHT.get(name, ["two"] * 10)
        assert row["group"] == {"pope": "popular", "chartqa": "human_test"}.get(name)
        assert Image().decode_example(row["image"]).getpixel((0, 0)) == (place, 0, 0)


def test_questions_of_gqa_find_their_images_in_another_config(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    asked = [{"imageId": f"n{number}", "question": f"what is {number}?", "answer": "cat"} for number in (2, 1, 2)]
    pictures = [{"id": f"n{number}", "image": picture(number)} for number in range(3)]
    configs = {name: f"testdev_balanced_{name}" for name in ("instructions", "images")}
    publish(
        tmp_path / "GQA",
        {
            f"{configs['instructions']}/testdev-0.parquet": (asked, dict.fromkeys(asked[0], TEXT)),
            f"{configs['images']}/testdev-0.parquet": (pictures, {"id": TEXT, "image": Image()}),
        },
        [(config, "testdev", f"{config}/testdev-*") for config in configs.values()],
    )
    for row in load_questions("gqa", str(tmp_path), None, seed=0).rows:
        red = Image().decode_example(row["image"]).getpixel((0, 0))[0]
        assert row["question"].startswith(f"what is {red}?")


def test_what_cannot_be_read_is_named_with_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"--sets tables: choose from vqav2, .*--file"):
        load_questions("tables", "lmms-lab", None, 0)
    with pytest.raises(ValueError, match=r"--sets pope: .*config default, split test.*hf download .*--hub-user"):
        load_questions("pope", str(tmp_path), None, 0)


def test_a_file_of_ones_own(tmp_path):
    picture(9).save(tmp_path / "a.png")
    line = '{"image": "a.png", "question": "what is %d?", "answer": "cat"}\n'
    (tmp_path / "mine.jsonl").write_text("".join(line % number for number in range(4)), encoding="utf-8")
    questions = read_own_questions(str(tmp_path / "mine.jsonl"), "exact", 3, 0, 8)
    assert (questions.name, questions.source, len(questions.rows)) == ("mine", "mine.jsonl", 3)
    assert questions.rows[0]["question"] == f"what is {drawn(4, 3, 0)[0]}?"
