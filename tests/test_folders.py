"""Folders are written whole or not at all."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from safetensors import SafetensorError

from pumer_hf.folders import check_file, whole_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("before", [None, [], ["a", "b"]], ids=["new", "empty", "with files"])
def test_all_comes_at_the_end(before, tmp_path):
    destination = tmp_path / "in" / "it"
    if before is not None:
        destination.mkdir(parents=True)
        for name in before:
            (destination / name).write_text("old")
    with whole_folder(destination) as folder:
        (folder / "b").write_text("new")
        (folder / "part").mkdir()
        assert not destination.exists() or names(destination) == (before or [])
    assert names(destination) == sorted({*(before or []), "b", "part"})
    assert (destination / "b").read_text() == "new"
    assert names(tmp_path / "in") == ["it"]


@pytest.mark.parametrize("before", [None, ["a", "b"]], ids=["new", "with files"])
def test_after_an_error_nothing_has_changed(before, tmp_path):
    destination = tmp_path / "it"
    if before is not None:
        destination.mkdir()
        for name in before:
            (destination / name).write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_folder(destination) as folder:
        (folder / "b").write_text("new")
        raise KeyboardInterrupt
    assert names(tmp_path) == ([] if before is None else ["it"])
    assert before is None or {path.read_text() for path in destination.iterdir()} == {"old"}


def test_the_working_directory_can_be_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with whole_folder(".") as folder:
        (folder / "a").write_text("new")
    assert names(tmp_path) == ["a"]
    assert not [path for path in tmp_path.parent.iterdir() if path.name.startswith(f".{tmp_path.name}")]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "it").write_text("a file")
    with pytest.raises(ValueError, match="file: .*folder"), whole_folder(tmp_path / "it"):
        pass


def test_a_place_where_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/it: .*written"), whole_folder(tmp_path / "file" / "it"):
        pass


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no second disk to try")
def test_a_folder_that_is_there_may_be_on_another_disk(tmp_path):
    with TemporaryDirectory(dir="/dev/shm") as other:
        (tmp_path / "link").symlink_to(other)
        with whole_folder(tmp_path / "link") as folder:
            (folder / "a").write_text("1")
        assert names(Path(other)) == ["a"]
    made = f"pumer-hf-test-{tmp_path.parent.name}-{tmp_path.name}"
    try:
        with whole_folder("/dev/shm") as folder:
            (folder / made).write_text("1")
        assert Path("/dev/shm", made).read_text() == "1"
        assert not folder.exists()
    finally:
        Path("/dev/shm", made).unlink(missing_ok=True)


def test_a_disk_that_is_full_is_named_with_its_folder(tmp_path):
    place = tmp_path / "a"
    with pytest.raises(OSError, match=f"{place}: .*weights"), whole_folder(place):
        raise SafetensorError("I/O error: No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_named_with_its_flag(tmp_path):
    (tmp_path / "file").write_text("")
    check_file(tmp_path / "new.json", "-o")
    for path, message in (
        (tmp_path, "-o .*: it is a folder"),
        (tmp_path / "no" / "a.json", "-o .*: there is no folder"),
        ("/proc/a.json", "-o /proc/a.json: nothing can be written"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            check_file(path, "-o")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
