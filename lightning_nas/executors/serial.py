"""One trial after the other, in this process."""

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors.base import Executor
from lightning_nas.executors.trial import TimeLimit, check_minutes, run_trial
from lightning_nas.spaces.base import Space
from lightning_nas.strategies.base import Proposal, Trial

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


class Serial(Executor):
    """One trial after the other, in this process: no start-up and no copies. ``next`` runs a trial, however long it
    takes.

    A trial that ends the process itself (a crash in a library, ``os._exit``, the system for want of memory) ends the
    search, which then continues from its file; under :class:`~lightning_nas.executors.Processes` it is a failed trial.

    Args:
        max_minutes: the minutes after which a trial is interrupted and has failed; None: no limit. It is ended where it
            next is in Python: a single call into a library that never returns needs the executor ``Processes``.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        check_minutes(max_minutes)
        self.max_minutes = max_minutes

    def open(
        self,
        evaluator: Evaluator,
        space: Space,
        data: "DataModule | None" = None,
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        if self.max_minutes is not None:
            TimeLimit.check()
        self._waiting: deque[tuple[int, Proposal]] = deque()
        self._evaluator = evaluator
        evaluator.open(space, data, seed, folder)

    def submit(self, number: int, proposal: Proposal) -> None:
        self._waiting.append((number, proposal))

    def next(self, timeout: float | None = None) -> Trial | None:
        return run_trial(self._evaluator, *self._waiting.popleft(), self.max_minutes)
