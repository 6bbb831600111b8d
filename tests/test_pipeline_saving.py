"""Saving and pushing `pipeline("pumer-vqa")`: model and processor, both or neither."""

import json

import pytest
import tiny_tasks
from tiny import CHECKPOINT_FILES, assert_same_answers, noise
from transformers import pipeline

from pumer_hf import release
from pumer_hf.encoding import EncodingRecord, saved_record
from pumer_hf.wheel import make_wheel

QUESTION = "what digit is red?"


@pytest.fixture(params=["vilt", "meter"])
def vqa(request):
    model, processor = tiny_tasks.tiny(request.param)
    return pipeline("pumer-vqa", model=model, processor=processor)


@pytest.fixture
def picture():
    return noise()


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_saved_pipeline_gives_the_same_answers(vqa, picture, tmp_path):
    vqa.save_pretrained(tmp_path / "saved")
    assert names(tmp_path / "saved") == CHECKPOINT_FILES
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert "custom_pipelines" not in config
    again = pipeline("pumer-vqa", model=str(tmp_path / "saved"))
    assert_same_answers(again(picture, QUESTION), vqa(picture, QUESTION))


def test_a_saved_pipeline_says_how_inputs_are_made(tmp_path):
    folder = tiny_tasks.without_record(tiny_tasks.save_tiny(tmp_path / "run" / "student", "vilt"))
    data = {"max_text_length": 12, "keep_aspect_ratio": True}
    (tmp_path / "run" / "stages.json").write_text(json.dumps({"student": {"data": data}}))
    pipeline("pumer-vqa", model=folder).save_pretrained(tmp_path / "saved")
    assert saved_record(tmp_path / "saved") == EncodingRecord(12, keep_aspect_ratio=True)


@pytest.mark.parametrize("vqa", ["vilt"], indirect=True)
def test_no_weights_of_another_model_stay_beside_those_saved(vqa, picture, tmp_path):
    expected = vqa(picture, QUESTION)
    tiny_tasks.save_tiny(tmp_path, "vilt", seed=1)
    (tmp_path / "notes.md").write_text("mine")
    vqa.save_pretrained(tmp_path, max_shard_size="10KB")
    assert {"notes.md", "model.safetensors.index.json"} < names(tmp_path)
    assert "model.safetensors" not in names(tmp_path)
    assert_same_answers(pipeline("pumer-vqa", model=str(tmp_path))(picture, QUESTION), expected)
    vqa.save_pretrained(tmp_path)
    assert names(tmp_path) == CHECKPOINT_FILES | {"notes.md"}


@pytest.mark.parametrize("vqa", ["vilt"], indirect=True)
@pytest.mark.parametrize("before", [False, True], ids=["new", "over another"])
def test_after_an_error_nothing_half_written_stays(vqa, before, tmp_path, monkeypatch):
    folder = tmp_path / "saved"
    if before:
        tiny_tasks.save_tiny(folder, "vilt", seed=1)
    files = {path.name: path.read_bytes() for path in folder.iterdir()} if before else {}

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(type(vqa.processor), "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        vqa.save_pretrained(folder)
    assert [path.name for path in tmp_path.iterdir()] == (["saved"] if before else [])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files if before else not folder.exists()


@pytest.mark.parametrize("vqa", ["vilt"], indirect=True)
def test_what_cannot_be_saved(vqa, tmp_path):
    with pytest.raises(ValueError, match=r"push_to_hub=True: .*push_to_hub\(repo_id\)"):
        vqa.save_pretrained(tmp_path / "saved", push_to_hub=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file: .*folder"):
        vqa.save_pretrained(tmp_path / "file")
    assert names(tmp_path) == {"file"}


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.parametrize("vqa", ["meter"], indirect=True)
def test_a_push_is_one_commit_with_a_card(vqa, hub, monkeypatch):
    monkeypatch.setattr(release, "PUBLISHED", False)
    vqa.push_to_hub("user/tiny", private=True, commit_message="Mine")
    repo, files = hub.repos["user/tiny"], hub.files("user/tiny")
    assert repo.private
    assert repo.titles == ["initial commit", "Mine"]
    assert set(files) == CHECKPOINT_FILES | {".gitattributes", "README.md", "results.json", make_wheel()[0]}
    assert "# tiny" in files["README.md"].decode().splitlines()
    assert 'model="user/tiny"' in files["README.md"].decode()
