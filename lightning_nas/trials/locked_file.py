"""A file of lines that one process writes, and any may read.

The lock is the operating system's ``flock``. It belongs to the opened file, so that the same process can read the file,
and close it, and a second writer is refused in this process too. Processes that this one forks would keep it beyond its
end, and give it up.
"""

import contextlib
import json
import os
import weakref
from pathlib import Path
from typing import IO, Any

from lightning_nas.errors import SettingError

_files: "weakref.WeakSet[LockedFile]" = weakref.WeakSet()


class LockedFile:
    """A file of lines that is written to by this process alone, and made if it is not there.

    Args:
        path: the path of the file.

    Raises:
        SettingError: if it cannot be written to, or somebody else writes to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = not path.exists()
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
            if new:
                _sync_folder(path.parent)
        except OSError as error:
            raise SettingError(f"{path}: cannot be written ({error.strerror or error})") from error
        try:
            _lock(self._file, path, alone=True)
        except BaseException:
            self.close()
            raise
        _files.add(self)

    def read(self) -> bytes:
        """The whole content."""
        self._file.seek(0)
        return self._file.read()

    def cut(self, size: int) -> None:
        """Keeps just so many bytes from the beginning."""
        self._file.truncate(size)

    def write(self, lines: bytes) -> None:
        """Adds lines, which are on disk when this returns.

        Raises:
            SettingError: if the disk does not take them.
        """
        try:
            if self._file.write(lines) != len(lines):
                raise OSError("the line does not fit")
            os.fsync(self._file.fileno())
        except OSError as error:
            raise SettingError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def close(self) -> None:
        """Gives the file up."""
        if not self._file.closed:
            _unlock(self._file)  # a process that was forked just now may not have given it up yet
            self.drop()

    def drop(self) -> None:
        """Closes the file in a process that was forked; it stays its parent's."""
        self._file.close()


def read_free(path: Path) -> bytes:
    """The whole content of a file to which nobody writes.

    Raises:
        SettingError: if it cannot be read, or somebody writes to it.
    """
    try:
        with open(path, "rb") as file:
            _lock(file, path, alone=False)
            return file.read()
    except OSError as error:
        raise SettingError(f"{path}: cannot be read ({error.strerror or error})") from error


def line(content: dict[str, Any]) -> bytes:
    """Plain values as a line of JSON, which knows neither infinity nor what is no number."""
    # half a character, as in the name of a file that is not UTF-8, is written as JSON escapes it
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def whole_lines(content: bytes) -> bytes:
    """The content without a last line that was cut off."""
    return content[: content.rfind(b"\n") + 1]


def _lock(file: IO[bytes], path: Path, alone: bool) -> None:
    try:
        import fcntl
    except ImportError:  # Windows, where nothing keeps a second writer out
        return
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        raise SettingError(f"{path}: another search is writing to it; wait for its end, or end it") from error


def _unlock(file: IO[bytes]) -> None:
    with contextlib.suppress(ImportError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)


def _sync_folder(folder: Path) -> None:
    """Has a new file's name on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give_up() -> None:
    for file in list(_files):
        file.drop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_up)
