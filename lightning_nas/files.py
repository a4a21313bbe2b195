"""Files that are there whole or not at all."""

import os
from pathlib import Path

from lightning_nas.errors import SettingError


def write_whole(path: str | Path, content: bytes) -> None:
    """Writes beside the file first and puts it in place in one move, so that nothing is ever half-written.

    Raises:
        SettingError: if the folder cannot be written to.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise SettingError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)
