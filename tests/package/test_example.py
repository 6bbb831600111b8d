"""The model and the pictures that come with the package."""

from pathlib import Path

import pytest
from PIL import Image
from transformers import pipeline

from pumer_hf.cli import main
from pumer_hf.example import IMAGES, MODEL, copy_example
from pumer_hf.hub.card import PuMerCard


def test_it_answers_with_and_without_its_reduction():
    vqa = pipeline("pumer-vqa", model=MODEL)
    for reduction in (vqa.model.config.reduction, None):
        vqa.model.set_reduction(reduction)
        answers = vqa(image=IMAGES, question="what digit is red?", top_k=1)
        assert [answer[0]["answer"] for answer in answers] == ["8", "5"]  # seen by eye in the pictures


def test_its_report_says_how_good_and_how_fast_it_is():
    report = PuMerCard.load(MODEL).report
    assert len(report.seeds) >= 3
    assert report.evaluations["student"].main.value > 85


def test_it_is_small():
    files = [Path(image) for image in IMAGES] + [path for path in Path(MODEL).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_500_000
    assert {path.suffix for path in files} == {".json", ".png", ".safetensors"}
    for image in IMAGES:
        with Image.open(image) as picture:
            assert picture.size == (64, 64)


def test_the_command_copies_it_and_overwrites_nothing(tmp_path, capsys):
    folder = tmp_path / "mine"
    assert main(["example", str(folder)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3:] == [str(folder / name) for name in ("model", "scene-1.png", "scene-2.png")]
    assert (folder / "model" / "model.safetensors").stat().st_size > 1_000_000
    assert main(["example", str(folder)]) == 2
    assert f"{folder / 'model'} exists: choose another folder" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scene-2.png").touch()
    with pytest.raises(FileExistsError, match=r"scene-2\.png"):
        copy_example(tmp_path / "other")
    assert not (tmp_path / "other" / "model").exists()
