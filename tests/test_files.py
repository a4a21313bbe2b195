"""A file is there whole or not at all."""

from pathlib import Path

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.files import write_whole


def test_content_replaces_what_was_there(tmp_path):
    path = tmp_path / "file"
    for content in (b"one", b"two"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SettingError, match="none/file: cannot be written"):
        write_whole(tmp_path / "none" / "file", b"content")


def test_an_interrupt_in_the_middle_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"old")
    write = Path.write_bytes

    def interrupt(self, content):
        write(self, content[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
