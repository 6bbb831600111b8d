"""JSON that users give: as a flag, or in a file."""

import json

import pytest

from pumer_hf.data.vqa import VqaDataArguments
from pumer_hf.reading import parse_json, read_json, read_object
from pumer_hf.recipes.recipe import ModelArguments


@pytest.mark.parametrize("value", [{"a": [1, "x"]}, None, [1, 2], 5])
def test_json_or_a_file_with_it(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it.json").write_text(json.dumps(value))
    for text in (json.dumps(value), f" {json.dumps(value)} ", "it.json", str(tmp_path / "it.json")):
        assert parse_json(text, "--flag") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "--flag='{': .*JSON: .*column"),
        ('{"a": nope}', "--flag=.*nope.*not valid JSON"),
        ("nowhere.json", "--flag='nowhere.json': .*JSON.* file"),
        ("", "--flag='': .*JSON.* file"),
        ("{" + 5000 * " ", "not valid JSON"),  # too long for the name of a file
        ("broken.json", "broken.json: .*JSON: .*line 2"),
        ("image.json", "image.json: .*JSON: .*utf-8"),
    ],
)
def test_errors_name_the_flag_or_the_file(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text('{"a": 1,\n')
    (tmp_path / "image.json").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match=message):
        parse_json(text, "--flag")


def test_an_object_is_asked_for(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    assert read_json(tmp_path / "a.json") == [1]
    with pytest.raises(ValueError, match="a.json: .*object, not a list"):
        read_object(tmp_path / "a.json")


def test_recipes_take_files_too(tmp_path):
    path = tmp_path / "it.json"
    path.write_text('{"question": "q"}')
    assert ModelArguments(config=str(path)).config == {"question": "q"}
    assert VqaDataArguments(dataset="user/data", columns=str(path)).columns == {"question": "q"}
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"model.config=\[1\]: .*object"):
        ModelArguments(config=str(path))
    with pytest.raises(ValueError, match=r"data.columns=\[1\]"):
        VqaDataArguments(dataset="user/data", columns=str(path))
