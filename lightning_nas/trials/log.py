"""``trials.jsonl``: every trial of a search that has ended, to survive whatever ends the search.

The first line says what the search is. Each other is a trial, written in one piece and on disk before the search goes
on. The file is data, never code: a closed schema, options by name. A last line that was cut off is dropped; any other
damage is refused with the number of the line and the field.
"""

import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import Any, get_args

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Space
from lightning_nas.strategies.base import Status, Trial

FORMAT = "lightning_nas/trials/1"
FIELDS = ("number", "told", "choices", "score", "metrics", "cost", "status", "reason")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A trial on file.

    Attributes:
        trial: what became of it.
        told: the number of trials that the strategy had been told when it was asked for this one.
        line: the number of the line in the file, from 1.
    """

    trial: Trial
    told: int
    line: int


class TrialLog:
    """The file of a search that is running, for this process alone.

    Args:
        path: the path of the file, which is begun if it does not exist.
        space: the space of the architectures.
        search: what the search is, plain values by name. A file of another one is refused.

    Attributes:
        entries: the trials on file, in the order in which they ended.

    Raises:
        SettingError: if the file is in use, damaged, or of another search.
    """

    def __init__(self, path: Path, space: Space, search: dict[str, Any]) -> None:
        self.path, self.space = path, space
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise SettingError(f"{path}: cannot be written ({error.strerror or error})") from error
        try:
            self._lock()
            self.entries = self._begin(search)
        except BaseException:
            self.close()
            raise

    def append(self, trial: Trial, told: int) -> None:
        """Adds a trial, which is on disk when this returns."""
        self._write(
            {
                "number": trial.number,
                "told": told,
                "choices": self.space.to_names(trial.architecture),
                "score": trial.score if trial.done else None,
                "metrics": {name: value if math.isfinite(value) else None for name, value in trial.metrics.items()},
                "cost": trial.cost,
                "status": trial.status,
                "reason": trial.reason,
            }
        )

    def close(self) -> None:
        self._file.close()

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows, where nothing keeps a second search out
            return
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not ``flock``, which forked processes inherit
        except OSError as error:
            raise SettingError(f"{self.path}: another search is writing to it") from error

    def _begin(self, search: dict[str, Any]) -> list[Entry]:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
            print(f"{self.path}: the last line was cut off; the search continues without that trial", file=sys.stderr)
        search = {"format": FORMAT, **search}
        if not whole:
            self._write(search)
            _sync_folder(self.path.parent)
            return []
        return _parse(whole, self.path, self.space, search)

    def _write(self, content: dict[str, Any]) -> None:
        line = json.dumps(content, ensure_ascii=False).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError("the line does not fit")
            os.fsync(self._file.fileno())
        except OSError as error:
            raise SettingError(f"{self.path}: cannot be written ({error.strerror or error})") from error


def read_trials(path: str | Path, space: Space) -> list[Trial]:
    """The trials of a search, in the order in which they ended, while it runs or later.

    Raises:
        SettingError: if the file cannot be read, naming the line and the field.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SettingError(f"{path}: cannot be read ({error.strerror or error})") from error
    return [entry.trial for entry in _parse(content[: content.rfind(b"\n") + 1], path, space)]


def _parse(content: bytes, path: str | Path, space: Space, search: dict[str, Any] | None = None) -> list[Entry]:
    """The entries of whole lines; with ``search``, of that one only."""
    entries: list[Entry] = []
    seen = set()
    number = 1
    try:
        first, *lines = content.split(b"\n")[:-1] or [b""]
        there = _object(first)
        _check(there.get("format") == FORMAT, f"format: expected {FORMAT!r}, got {str(there.get('format'))[:80]!r}")
        other = None if search is None else _difference(there, search)
        _check(other is None, f"of another search, {other}; continue with its settings, or in another folder")
        for number, line in enumerate(lines, start=2):
            entry = _entry(_object(line), len(entries), number, space)
            _check(entry.trial.number not in seen, f"number: trial {entry.trial.number} is there already")
            seen.add(entry.trial.number)
            entries.append(entry)
    except (ValueError, RecursionError) as error:
        # names in it are the file's: no control characters for a terminal, no megabytes
        message = "".join(c if c.isprintable() else "?" for c in str(error)[:500])
        raise SettingError(f"{path}: line {number}: {message}") from error
    return entries


def _object(line: bytes) -> dict[str, Any]:
    content = json.loads(line)
    _check(isinstance(content, dict), "the line is not an object")
    return content


def _entry(content: dict[str, Any], n_before: int, line: int, space: Space) -> Entry:
    for field in FIELDS:
        _check(field in content, f"{field}: missing")
    for field in content:
        _check(field in FIELDS, f"{field[:80]}: unknown field; there are {', '.join(FIELDS)}")
    number, told, choices, score, metrics, cost, status, reason = (content[field] for field in FIELDS)
    _check(type(number) is int and number >= 0, "number: expected a whole number from 0")
    _check(type(told) is int and 0 <= told <= n_before, f"told: expected a whole number up to {n_before}")
    named = isinstance(choices, dict) and all(isinstance(option, str) for option in choices.values())
    _check(named, "choices: expected option names by choice name")
    numbers = isinstance(metrics, dict) and all(value is None or _is_number(value) for value in metrics.values())
    _check(numbers, "metrics: expected numbers by name")
    _check(_is_number(cost) and cost >= 0, "cost: expected seconds")
    _check(status in get_args(Status), f"status: expected {' or '.join(get_args(Status))}")
    done = status == "done"
    _check(_is_number(score) if done else score is None, "score: expected a number if the trial is done, else null")
    _check(isinstance(reason, str), "reason: expected words")
    metrics = {name: math.nan if value is None else float(value) for name, value in metrics.items()}
    score = float(score) if done else -math.inf
    return Entry(Trial(number, space.from_names(choices), score, metrics, float(cost), status, reason), told, line)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _difference(there: Any, here: Any, name: str = "") -> str | None:
    """The first difference between plain values, in words; None if there is none."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in {**there, **here}:
            part = key if not name else f"{name}.{key}".replace(".init_args", "")
            if (found := _difference(there.get(key), here.get(key), part)) is not None:
                return found
        return None
    return None if there == here else f"{name}: {str(there)[:80]} on file, {str(here)[:80]} now"


def _sync_folder(folder: Path) -> None:
    """Has a new file's name on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
