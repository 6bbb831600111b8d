"""Folders are written whole or not at all."""

import pytest

from pumer_hf.folders import whole_folder


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
    with pytest.raises(ValueError, match="it is a file: give a folder"), whole_folder(tmp_path / "it"):
        pass


def test_a_place_where_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/it: nothing can be written there"), whole_folder(tmp_path / "file" / "it"):
        pass


def test_a_folder_that_is_there_may_be_a_link_to_another_disk(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with whole_folder(tmp_path / "link") as folder:
        assert folder.parent == tmp_path / "disk"  # what is moved stays on one disk
        (folder / "a").write_text("1")
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["a"]
