"""``trials.jsonl``: every trial of a search that has ended, to survive whatever ends the search.

The first line says what the search is. Each other is a trial, written in one piece and on disk before the search goes
on; its values follow from its metrics and from the objectives in the first line. A trial that failed and was tried
again has another line. The file is data, never code: a closed schema, options by name. A last line that was cut off is
dropped; any other damage is refused with the number of the line and the field.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from lightning_nas.errors import SettingError
from lightning_nas.objectives import Objective
from lightning_nas.spaces.base import Space
from lightning_nas.strategies.base import Proposal, Status, Trial
from lightning_nas.trials.locked_file import LockedFile, line, read_free, whole_lines

FORMAT = "lightning_nas/trials/2"
TRIAL = ("number", "choices", "fidelity", "continues", "metrics", "cost", "status", "reason")
FIELDS = (TRIAL[0], "told", "asked", *TRIAL[1:])
MAYBE = "same_as"
"""The field of a line whose trial was not evaluated, since an equal one had been."""

REMEDY = "put the file back as it was, or delete this line and all below it, whose trials are then run again"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A trial on file.

    Attributes:
        trial: what became of it.
        told: the number of trials that the strategy had been told when this one was begun.
        line: the number of the line in the file, from 1.
        asked: the number of trials that the strategy had been asked for when this one ended, those that were running
            among them.
    """

    trial: Trial
    told: int
    line: int
    asked: int = 0

    @property
    def proposal(self) -> Proposal:
        """What was asked for, as far as it is on file."""
        return Proposal(self.trial.architecture, self.trial.fidelity, self.trial.continues)


class TrialLog:
    """The file of a search, which is read first, and written by this process alone once it has begun.

    Args:
        path: the path of the file, which need not be there.
        space: the space of the architectures.
        search: what the search is, plain values by name, among them its ``objectives``. A file of another one is
            refused.
        before: the file from which the search continues; None: its own.

    Attributes:
        path: the path of the file that will be written.
        source: the path of the file that was read.
        entries: the trials on file, in the order in which they ended.

    Raises:
        SettingError: if the file is in use, damaged, or of another search.
    """

    def __init__(self, path: Path, space: Space, search: dict[str, Any], before: Path | None = None) -> None:
        self.path, self.space, self.source = path, space, before or path
        self._search = {"format": FORMAT, **search}
        self.objectives = _objectives(self._search)
        self._read = read_free(self.source) if before is not None or path.exists() else b""
        whole = whole_lines(self._read)
        self.entries = _parse(whole, self.source, space, self._search) if whole else []
        self._n_lines = len(self.entries)
        self._digest = hashlib.blake2b(b"".join(_lines(whole)), digest_size=16)
        self._file: LockedFile | None = None

    def begin(self) -> None:
        """Makes the file, or takes it as it is, and keeps others from writing to it.

        Raises:
            SettingError: if it has changed since it was read, or has other trials than the file that is continued.
        """
        self._file = LockedFile(self.path)
        there, whole, own = self._file.read(), whole_lines(self._read), self.source == self.path
        if there != self._read and own:
            raise SettingError(f"{self.path}: another search has written to it meanwhile")
        if there not in (b"", self._read):
            raise SettingError(f"{self.path}: holds other trials than {self.source}; continue in another folder")
        if len(whole) < len(self._read):
            print(f"{self.source}: the last line was cut off; the search continues without that trial", file=sys.stderr)
        self._file.cut(min(len(there), len(whole)))
        if not whole:
            self._file.write(line(self._search))
        elif not there:
            self._file.write(whole)

    def append(self, trial: Trial, told: int, asked: int | None = None) -> None:
        """Adds a trial, which is on disk when this returns.

        Args:
            trial: the trial that has ended.
            told: the number of trials that the strategy had been told when it was begun.
            asked: the number of trials that the strategy has been asked for; None: no later one.

        Raises:
            SettingError: if it could not be read again, as what an executor of a user's own answers.
        """
        if self._file is None:
            raise RuntimeError("the log has not begun")
        try:
            first, *others = written(trial, self.space).items()
            content = dict([first, ("told", told), ("asked", trial.number + 1 if asked is None else asked), *others])
            new = line(content)
            _entry(_object(new), self._n_lines, self._n_lines + 2, self.space, self.objectives)
        except (ValueError, TypeError) as error:
            raise SettingError(f"executor: its trial {trial.number} cannot be written: {error}") from error
        self._file.write(new)
        self._digest.update(new)
        self._n_lines += 1

    @property
    def digest(self) -> str:
        """What distinguishes the trials on file from any others."""
        return self._digest.hexdigest()

    def digest_of(self, n: int) -> str | None:
        """What :attr:`digest` was when there were ``n`` trials in the file that was read; None: there never were."""
        lines = _lines(whole_lines(self._read))
        return None if n > len(lines) else hashlib.blake2b(b"".join(lines[:n]), digest_size=16).hexdigest()

    def rounds(self) -> list[list[Entry]]:
        """The trials by the number that was told before them, in each round in the order of their numbers."""
        ordered = sorted(self.entries, key=lambda entry: (entry.told, entry.trial.number))
        return [list(round_) for _, round_ in itertools.groupby(ordered, key=lambda entry: entry.told)]

    def refuse(self, trial: Trial, entries: Iterable[Entry]) -> NoReturn:
        """Says that a trial is not what was asked for, which the lines of these entries build on.

        Raises:
            SettingError: naming the first of the lines.
        """
        raise SettingError(
            f"{self.source}: line {min(entry.line for entry in entries)}: the strategy does not ask for this "
            f"architecture in trial {trial.number}; the file is damaged, or of another version; {REMEDY}"
        )

    def close(self) -> None:
        """Gives the file up."""
        if self._file is not None:
            self._file.close()


def read_trials(path: str | Path, space: Space, objectives: Sequence[Objective] | None = None) -> list[Trial]:
    """The trials of a search, in the order in which they ended, while it runs or later.

    One that was tried again has its last result, in its first place.

    Args:
        path: the path of its ``trials.jsonl``.
        space: the space that it searches.
        objectives: what the trials are judged by; None: by the objectives of the search.

    Raises:
        SettingError: if the file cannot be read, naming the line and the field.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SettingError(f"{path}: cannot be read ({error.strerror or error})") from error
    trials = {entry.trial.number: entry.trial for entry in _parse(whole_lines(content), path, space)}.values()
    try:
        return [trial if objectives is None else trial.judged(objectives) for trial in trials]
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from error


def written(trial: Trial, space: Space) -> dict[str, Any]:
    """A trial as plain values by name."""
    content = {
        "number": trial.number,
        "choices": space.to_names(trial.architecture),
        "fidelity": trial.fidelity,
        "continues": trial.continues,
        "metrics": {name: value if math.isfinite(value) else None for name, value in trial.metrics.items()},
        "cost": trial.cost,
        "status": trial.status,
        "reason": trial.reason,
    }
    return content if trial.same_as is None else content | {MAYBE: trial.same_as}


def read(content: dict[str, Any], space: Space, objectives: Sequence[Objective]) -> Trial:
    """The trial of plain values by name, judged by these objectives.

    Raises:
        ValueError: naming the field that is wrong.
    """
    number, choices, fidelity, continues, metrics, cost, status, reason = (content[field] for field in TRIAL)
    same_as = content.get(MAYBE)
    _check(_is_count(number), "number: expected a whole number from 0")
    named = isinstance(choices, dict) and all(isinstance(option, str) for option in choices.values())
    _check(named, "choices: expected option names by choice name")
    _check(
        fidelity is None or (_is_count(fidelity) and fidelity > 0), "fidelity: expected a whole number from 1, or null"
    )
    before = continues is None or (_is_count(continues) and continues < number)
    _check(before, "continues: expected the number of an earlier trial, or null")
    numbers = isinstance(metrics, dict) and all(value is None or _is_number(value) for value in metrics.values())
    _check(numbers, "metrics: expected numbers by name")
    _check(_is_number(cost) and cost >= 0, "cost: expected seconds")
    _check(status in get_args(Status), f"status: expected {' or '.join(get_args(Status))}")
    _check(isinstance(reason, str), "reason: expected words")
    _check(
        same_as is None or (_is_count(same_as) and status == "done"),
        f"{MAYBE}: expected the number of a trial that is done",
    )
    metrics = {name: math.nan if value is None else float(value) for name, value in metrics.items()}
    architecture = space.from_names(choices)
    trial = Trial(number, architecture, (), metrics, float(cost), status, reason, same_as, fidelity, continues)
    judged = trial.judged(objectives)
    _check(judged.status == status, f"status: expected diverged, since {judged.reason}")
    return judged


def _parse(content: bytes, path: str | Path, space: Space, search: dict[str, Any] | None = None) -> list[Entry]:
    """The entries of whole lines; with ``search``, of that one only."""
    entries: list[Entry] = []
    last: dict[int, Trial] = {}
    number = 1
    try:
        first, *lines = content.split(b"\n")[:-1] or [b""]
        there = _object(first)
        _check_format(there.get("format"))
        objectives = _objectives(there)
        other = None if search is None else _difference(there, search)
        _check(other is None, f"of another search, {other}; continue with its settings, or in another folder")
        for number, each in enumerate(lines, start=2):
            entry = _entry(_object(each), len(entries), number, space, objectives)
            before = last.setdefault(entry.trial.number, entry.trial)
            again = before is not entry.trial and not before.done and before.architecture == entry.trial.architecture
            _check(before is entry.trial or again, f"number: trial {entry.trial.number} is there already")
            last[entry.trial.number] = entry.trial
            entries.append(entry)
    except (ValueError, RecursionError) as error:
        # names in it are the file's: no control characters for a terminal, no megabytes
        message = "".join(c if c.isprintable() else "?" for c in str(error)[:500])
        raise SettingError(f"{path}: line {number}: {message}" + (f"; {REMEDY}" if number > 1 else "")) from error
    return entries


def _lines(whole: bytes) -> list[bytes]:
    """The lines of trials, which are all but the first."""
    return whole.splitlines(keepends=True)[1:]


def _check_format(there: Any) -> None:
    if there == "lightning_nas/trials/1":
        raise ValueError("format: of an earlier version, whose trials have no fidelities; begin in another folder")
    _check(there == FORMAT, f"format: expected {FORMAT!r}, got {str(there)[:80]!r}")


def _objectives(search: dict[str, Any]) -> list[Objective]:
    texts = search.get("objectives")
    _check(isinstance(texts, list), "objectives: expected a list of words")
    assert isinstance(texts, list)
    return [Objective.parse(text) for text in texts]


def _object(line: bytes) -> dict[str, Any]:
    content = json.loads(line)
    _check(isinstance(content, dict), "the line is not an object")
    return content


def _entry(content: dict[str, Any], n_before: int, line: int, space: Space, objectives: Sequence[Objective]) -> Entry:
    for field in FIELDS:
        _check(field in content, f"{field}: missing")
    for field in content:
        _check(field in (*FIELDS, MAYBE), f"{field[:80]}: unknown field; there are {', '.join((*FIELDS, MAYBE))}")
    trial, told, asked = read(content, space, objectives), content["told"], content["asked"]
    _check(_is_count(told) and told <= n_before, f"told: expected a whole number up to {n_before}")
    _check(_is_count(asked), "asked: expected a whole number from 0")
    return Entry(trial, told, line, asked)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


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
