"""``searches.jsonl``: every search of a study that has ended, to survive whatever ends the study.

A line is a search: its strategy and seed, what it took, and the trials that were the best so far when they ended.
"""

import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

from lightning_nas.errors import SettingError
from lightning_nas.objectives import Objective
from lightning_nas.spaces.base import Space
from lightning_nas.trials.anytime import Incumbent, Run
from lightning_nas.trials.locked_file import LockedFile, line, read_free, whole_lines
from lightning_nas.trials.log import read, written

Job = tuple[int, str]
"""The seed of a search, and the name of its strategy."""


class SearchesFile:
    """The searches of a study that have ended, and the file that is written, from the first of them on.

    Args:
        path: the path of the file, which need not be there.
        space: the space of the architectures.
        jobs: the searches of the study.
        objectives: what its trials are judged by.

    Attributes:
        runs: the searches that have ended, those on file among them.

    Raises:
        SettingError: if somebody writes to the file, or it is damaged.
    """

    def __init__(self, path: Path, space: Space, jobs: Collection[Job], objectives: Sequence[Objective]) -> None:
        self.path, self.space, self.jobs, self.objectives = path, space, jobs, objectives
        self._read = read_free(path) if path.exists() else b""
        self._file: LockedFile | None = None
        self.runs: dict[Job, Run] = {}
        for number, each in enumerate(whole_lines(self._read).splitlines(), start=1):
            try:
                job, run = self._run(json.loads(each))
                if job not in jobs or job in self.runs:
                    raise ValueError("no search of this study, or there already")
            except (ValueError, TypeError, LookupError, RecursionError, AttributeError) as error:
                raise SettingError(
                    f"{path}: line {number}: {type(error).__name__}, {str(error)[:200]!r}; put the file back as it "
                    "was, or delete the line, and its search is run again"
                ) from error
            self.runs[job] = run

    @property
    def has_begun(self) -> bool:
        """Whether it was written to."""
        return self._file is not None

    def add(self, job: Job, run: Run) -> None:
        """Keeps a search that has ended; it is on disk when this returns."""
        if self._file is None:
            self._begin()
        seed, strategy = job
        incumbents = [
            {"n_trials": i.n_trials, "seconds": i.seconds, "trial": written(i.trial, self.space)}
            for i in run.incumbents
        ]
        content = {"strategy": strategy, "seed": seed, "n_trials": run.n_trials, "seconds": run.seconds}
        assert self._file is not None
        self._file.write(line(content | {"incumbents": incumbents}))
        self.runs[job] = run

    def _begin(self) -> None:
        self._file = LockedFile(self.path)
        if self._file.read() != self._read:
            raise SettingError(f"{self.path}: another process has written to it meanwhile; begin again")
        whole = whole_lines(self._read)
        if len(whole) < len(self._read):
            self._file.cut(len(whole))
            print(f"{self.path}: the last line was cut off, and its search is run again", file=sys.stderr)

    def _run(self, content: Any) -> tuple[Job, Run]:
        incumbents = [
            Incumbent(read(each["trial"], self.space, self.objectives), int(each["n_trials"]), float(each["seconds"]))
            for each in content["incumbents"]
        ]
        if not incumbents:
            raise ValueError("incumbents: at least one expected")
        run = Run(incumbents, int(content["n_trials"]), float(content["seconds"]))
        return (content["seed"], content["strategy"]), run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._file is not None:
            self._file.close()
