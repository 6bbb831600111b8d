"""What to download: only what is public and not there."""

import pytest

from pumer_hf.data.arguments import DataArguments
from pumer_hf.data.downloads import check_downloaded, missing_data

QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"


def test_what_is_there_is_not_named(tmp_path):
    (tmp_path / QUESTIONS).write_text("{}")
    (line,) = missing_data([str(tmp_path / name) for name in (QUESTIONS, ANNOTATIONS)], str(tmp_path))
    assert line.startswith("https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/v2_Annotations_Val_mscoco.zip (")
    assert line.endswith(f" {tmp_path})")


def test_images_are_named_if_their_folder_is_missing(tmp_path):
    (tmp_path / "dataset_flickr30k.json").write_text("{}")
    (line,) = missing_data([str(tmp_path / "dataset_flickr30k.json")], str(tmp_path / "pictures"))
    assert line.endswith(f" {tmp_path / 'pictures'})")


@pytest.mark.parametrize("name", ["mine.jsonl", "train.json", "my_snli_ve_train.jsonl"])
def test_own_files_are_left_to_those_who_read_them(name, tmp_path):
    files = [str(tmp_path / name)]
    assert missing_data(files, str(tmp_path / "pictures")) == []
    check_downloaded(DataArguments(train_file=files, validation_file=files))


def test_digit_scenes_need_no_download():
    check_downloaded(DataArguments(), "some/model")
