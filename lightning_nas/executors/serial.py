"""One trial after the other, in this process."""

from collections import deque
from typing import TYPE_CHECKING

from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors.base import Executor, run_trial
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.strategies.base import Trial

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


class Serial(Executor):
    """One trial after the other, in this process: no start-up and no copies. ``next`` runs a trial, however long it
    takes."""

    def open(self, evaluator: Evaluator, space: Space, data: "DataModule | None" = None, seed: int = 0) -> None:
        self._waiting: deque[tuple[int, Architecture]] = deque()
        self._evaluator = evaluator
        evaluator.open(space, data, seed)

    def submit(self, number: int, architecture: Architecture) -> None:
        self._waiting.append((number, architecture))

    def next(self, timeout: float | None = None) -> Trial | None:
        return run_trial(self._evaluator, *self._waiting.popleft())
