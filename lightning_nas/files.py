"""Files that are there whole or not at all, tables, and the packaged configurations."""

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lightning_nas.errors import SettingError


def write_whole(path: str | Path, content: bytes) -> None:
    """Writes a file that is there whole or not at all.

    Raises:
        SettingError: if the folder cannot be written to.
    """
    with whole(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A path beside a file, to write to; it is put in the file's place in one move, so that nothing is half-written.

    Raises:
        SettingError: if the folder cannot be written to.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise SettingError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)


def write_table(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table of comma-separated values; it is there whole or not at all."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(header)
    writer.writerows(rows)
    write_whole(path, table.getvalue().encode())


def append_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Adds rows to a table, which begins with its header."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(header)
        writer.writerows(rows)


def config_folder() -> Path:
    """Where the packaged configurations lie: in the installed package, or beside it in a checkout."""
    packaged = Path(str(resources.files("lightning_nas"))) / "configs"
    return packaged if packaged.is_dir() else packaged.parent.parent / "configs"


def packaged_configs() -> list[str]:
    """The names of the packaged configurations, such as ``darts/search.yaml``."""
    return sorted(path.relative_to(config_folder()).as_posix() for path in config_folder().rglob("*.yaml"))


def config_name(path: str) -> str:
    """A short name of a configuration, for tables: the paper of a packaged one, else the file's own name."""
    file = Path(path)
    if file.parent.parent.resolve() != config_folder().resolve():
        return file.stem
    kind = file.stem.removeprefix("search").removeprefix("quickstart").strip("_")
    return f"{file.parent.name}_{kind}" if kind else file.parent.name


def find_config(name: str) -> str:
    """A file as it is; else a packaged configuration.

    A packaged one is called by its paper and what it does, ``darts/retrain.yaml``. The paper alone means its search, or
    its quickstart where it has no search; ``configs/`` before the name and ``.yaml`` behind it can be left out.

    Raises:
        SettingError: if there is neither.
    """
    if Path(name).is_file():
        return name
    packaged = packaged_configs()
    stem = name.removeprefix("configs/").removesuffix(".yaml").strip("/")
    for guess in (f"{stem}.yaml", f"{stem}/search.yaml", f"{stem}/quickstart.yaml"):
        if guess in packaged:
            return str(config_folder() / guess)
    raise SettingError(f"--config: there is no file {name}, and no packaged one; packaged are {', '.join(packaged)}")


def config_content(given: str) -> Any:
    """What a configuration says, given as a file or as its text; the text itself where that is no YAML.

    Args:
        given: the path of a file, or the text in one line.
    """
    try:
        return yaml.safe_load(Path(given).read_text(encoding="utf-8") if os.path.isfile(given) else given)
    except (OSError, yaml.YAMLError, ValueError):  # which the parser says better
        return given
