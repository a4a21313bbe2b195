"""The folder of a study belongs to its settings: they are written into it first, and other settings are refused there.

So a study that continues, or writes its tables again, is the one that the folder was begun for.
"""

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from lightning_nas.errors import SettingError
from lightning_nas.files import write_whole
from lightning_nas.lazy import root

SETTINGS = "settings.yaml"
"""The name of the file with the settings."""

_ABOUT = "# What this study is of. Its folder takes no other: with other settings, choose another --folder.\n"
_LONGEST = 60  # characters of a value in a message


class StudyFolder:
    """A folder and the settings of the one study that it is for.

    The version of the package is one of the settings: what a configuration leaves out, the package decides.

    Attributes:
        path: the path of the folder.
        settings: the settings as plain values, the name of the study first.
    """

    def __init__(self, path: Path, settings: dict[str, Any], results: Sequence[str]) -> None:
        self.path, self.settings, self._results = path, _plain(settings), results

    @classmethod
    def open(
        cls, path: Path | None, study: str, subject: str, settings: dict[str, Any], results: Sequence[str]
    ) -> Self:
        """The folder of a study, which may be there or not. Nothing is written yet.

        Args:
            path: where the user wants it; None: in ``runs/``, other settings in another folder.
            study: the name of the study, such as ``random``.
            subject: what is studied, a part of the folder's name; empty: the name does without.
            settings: all that decides what the study finds, the version of the package left out.
            results: patterns of the names of what the study keeps there.

        Raises:
            SettingError: if the folder holds another study, or results without settings, or cannot be written to.
        """
        settings = {"study": study, **settings, "version": root().__version__}
        if path is None:
            text = json.dumps(_plain(settings), sort_keys=True)  # the order in which settings stand says nothing
            digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
            path = Path("runs", "-".join(filter(None, ("study", study, subject, digest))))
        folder = cls(path, settings, results)
        folder.check()
        return folder

    def check(self) -> None:
        """Reads whose folder it is.

        Raises:
            SettingError: if the folder holds another study, or results without settings, or cannot be written to.
        """
        nearest = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):  # better known before hours than after
            raise SettingError(f"--folder: {nearest} is no folder that can be written to")
        noted = self.path / SETTINGS
        if noted.exists():
            for name, there, here in _differences(_read(noted), self.settings):
                raise SettingError(
                    f"--folder: {self.path} holds another study: {name} is {_say(there)} there and {_say(here)} here; "
                    "choose another --folder"
                )
        for found in itertools.chain(*map(self.path.glob, self._results if not noted.exists() else ())):
            raise SettingError(
                f"--folder: {self.path} holds {found.name} and no {SETTINGS} that says of which study; "
                "choose another --folder"
            )

    def make(self) -> None:
        """Makes the folder, unless it is there, and writes the settings into it.

        Raises:
            SettingError: as :meth:`check` does.
        """
        self.check()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(f"--folder: {self.path} cannot be made ({error.strerror})") from error
        if not (self.path / SETTINGS).exists():
            text = yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True)
            write_whole(self.path / SETTINGS, (_ABOUT + text).encode())


def read_config(path: str | Path) -> Any:
    """What a configuration says, with the content of the files that it names in the place of their names.

    Raises:
        SettingError: if it cannot be read.
    """
    return _content(Path(path), ())


def _content(path: Path, outer: tuple[Path, ...]) -> Any:
    outer = (*outer, path.resolve())  # a file that names itself is not read again

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resolved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [resolved(item) for item in value]
        if isinstance(value, str) and value.endswith((".yaml", ".yml", ".json")):
            for named in (path.parent / value, Path(value)):  # where the parser looks, and where commands do
                if named.is_file() and named.resolve() not in outer:
                    with contextlib.suppress(SettingError):  # whoever needs it says what is wrong with it
                        return _content(named, outer)
        return value

    return resolved(_read(path))


def _read(path: Path) -> Any:
    try:
        content = path.read_bytes()
        return json.loads(content) if path.suffix == ".json" else yaml.safe_load(content)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise SettingError(f"{path}: cannot be read, so mend it or choose another ({reason})") from error


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """What is the same in memory and read from a file: lists for tuples, names for numbers as names, text for dates."""
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


class _Unset:
    def __repr__(self) -> str:
        return "not set"


_UNSET = _Unset()


def _differences(there: Any, here: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The settings that differ, each by its whole name with both values, in the order of ``here``."""
    if isinstance(here, dict) and (isinstance(there, dict) or not name):
        there = there if isinstance(there, dict) else {}
        for key in here | there:
            inner = f"{name}.{key}" if name else key
            yield from _differences(there.get(key, _UNSET), here.get(key, _UNSET), inner)
    elif isinstance(here, list) and isinstance(there, list):
        for index, (one, other) in enumerate(itertools.zip_longest(there, here, fillvalue=_UNSET)):
            yield from _differences(one, other, f"{name}[{index}]")
    elif repr(there) != repr(here):  # not ``!=``: that takes true for 1, and no NaN for itself
        yield name, there, here


def _say(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
