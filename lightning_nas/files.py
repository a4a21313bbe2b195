"""Files that are there whole or not at all, and the packaged configurations."""

import os
from importlib import resources
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


def config_folder() -> Path:
    """Where the packaged configurations lie: in the installed package, or beside it in a checkout."""
    packaged = Path(str(resources.files("lightning_nas"))) / "configs"
    return packaged if packaged.is_dir() else packaged.parent.parent / "configs"


def find_config(name: str) -> str:
    """A file as it is; else the packaged configuration of this name, with or without ``configs/`` before it.

    Raises:
        SettingError: if there is neither.
    """
    if Path(name).is_file():
        return name
    packaged = config_folder() / name.removeprefix("configs/")
    if not packaged.is_file():
        known = sorted(str(path.relative_to(config_folder())) for path in config_folder().rglob("*.yaml"))
        raise SettingError(f"--config: there is no file {name}, and no packaged one; packaged are {', '.join(known)}")
    return str(packaged)
