"""What all executors share: how a search talks to them, and the pool of workers."""

import dataclasses
import pickle
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors.blueprint import Blueprint, Refusal, Submission
from lightning_nas.executors.trial import check_minutes, late
from lightning_nas.executors.trial import run_trial as run_trial  # of which every executor makes use
from lightning_nas.spaces.base import Space
from lightning_nas.specs import Configurable
from lightning_nas.strategies.base import Proposal, Trial

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule

LONGEST_WAIT = 3600.0  # seconds; operating systems take no more than some weeks


class Executor(Configurable, ABC):
    """Runs trials, each by an evaluator, up to ``n_workers`` at once.

    What it answers are the trials of :func:`~lightning_nas.executors.trial.run_trial`, wherever that runs: with their
    metrics, and not judged yet by the objectives of the search.

    Attributes:
        n_workers: how many trials can run at the same time.
    """

    n_workers: int = 1

    @abstractmethod
    def open(
        self,
        evaluator: Evaluator,
        space: Space,
        data: "DataModule | None" = None,
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        """Gets ready to run trials; the arguments go to the evaluator's ``open``, in every worker.

        Raises:
            SettingError: if the evaluator, the space or the data cannot be used; from workers, when the first answers.
        """
        raise NotImplementedError

    @abstractmethod
    def submit(self, number: int, proposal: Proposal) -> None:
        """Queues a trial."""
        raise NotImplementedError

    @abstractmethod
    def next(self, timeout: float | None = None) -> Trial | None:
        """Waits for one of the submitted trials, of which there must be one, to end.

        Args:
            timeout: seconds after which None is returned; ``None``: waits for as long as it takes.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Gives everything back and drops trials that are running. An executor can be closed twice."""


class Lost(Exception):
    """A worker is gone; the message says how."""


@dataclasses.dataclass(eq=False)
class Worker:
    """A worker as its pool sees it: opening its evaluator until it is ready, then idle or with a trial."""

    ready: bool = dataclasses.field(default=False, init=False)
    submission: Submission | None = dataclasses.field(default=None, init=False)


class Pool(Executor, ABC):
    """Workers that live as long as the search. A subclass says how one is started, told, heard and stopped.

    A trial whose worker is lost is run again by a new one, and recorded as failed after ``retries`` times. A trial that
    takes longer than ``max_minutes`` has failed at once: its worker is stopped, and a new one takes the next.
    """

    dumps: Callable[[Any], bytes] = staticmethod(pickle.dumps)

    def __init__(self, n_workers: int, retries: int, max_minutes: float | None = None) -> None:
        if n_workers < 1:
            raise SettingError(f"n_workers: at least 1, got {n_workers}")
        if retries < 0:
            raise SettingError(f"retries: 0 or more, got {retries}")
        check_minutes(max_minutes)
        self.n_workers, self.retries, self.max_minutes = n_workers, retries, max_minutes
        self._workers: list[Any] = []
        self._waiting: deque[Submission] = deque()

    def open(
        self,
        evaluator: Evaluator,
        space: Space,
        data: "DataModule | None" = None,
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.begin(Blueprint.of(evaluator, space, data, seed, folder, self.dumps))
        if data is not None:
            data.prepare_data()  # once, before workers look at the same files

    def begin(self, blueprint: Any) -> None:
        """Gets ready for what a blueprint says: trials, or work of another kind that opens, runs and is given up."""
        self.blueprint = blueprint
        self._n_lost_opening = 0

    def submit(self, number: int, proposal: Any) -> None:
        self._waiting.append(Submission(number, proposal))

    def next(self, timeout: float | None = None) -> Trial | None:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            self._hand_out()
            late_one = self._late()
            if late_one is not None:
                self._workers.remove(late_one)
                self.stop(late_one)
                return self._give_up(late_one.submission, late(self.max_minutes))
            worker = self.wait([w for w in self._workers if w.submission or not w.ready], self._patience(end))
            if worker is None:
                if end is not None and time.monotonic() >= end:
                    return None
                continue
            try:
                answer = self.receive(worker)
            except Lost as lost:
                self._workers.remove(worker)
                answer = self._after_loss(worker.submission, str(lost))
            if isinstance(answer, Refusal):
                raise answer.error()
            worker.ready, worker.submission = True, None
            if answer is not None:
                return answer

    def close(self) -> None:
        while self._workers:
            self.stop(self._workers.pop())
        self._waiting.clear()

    def _hand_out(self) -> None:
        n_busy = sum(worker.submission is not None for worker in self._workers)
        while len(self._workers) < min(self.n_workers, n_busy + len(self._waiting)):
            self.start()
        for worker in self._workers:
            if self._waiting and worker.ready and worker.submission is None:
                worker.submission = self._waiting.popleft()
                worker.submission.began = time.monotonic()
                self.send(worker)

    def _deadlines(self) -> dict[Any, float]:
        if self.max_minutes is None:
            return {}
        return {w: w.submission.began + 60 * self.max_minutes for w in self._workers if w.submission is not None}

    def _late(self) -> Any:
        """A worker whose trial took too long, if it has not answered meanwhile; None if there is none."""
        now = time.monotonic()
        return next((w for w, end in self._deadlines().items() if end <= now and self.wait([w], 0) is None), None)

    def _patience(self, end: float | None) -> float | None:
        """The seconds to wait for an answer; None: for as long as it takes."""
        ends = [*self._deadlines().values(), *([] if end is None else [end])]
        return min(max(0.0, min(ends) - time.monotonic()), LONGEST_WAIT) if ends else None

    def _after_loss(self, submission: Submission | None, how: str) -> Any:
        if submission is None:
            self._n_lost_opening += 1
            opens = self._n_lost_opening <= self.retries
            return None if opens else Refusal(f"workers are lost before their first trial: {how}", is_setting=False)
        submission.n_lost += 1
        if submission.n_lost <= self.retries:
            submission.seconds += time.monotonic() - submission.began
            self._waiting.appendleft(submission)
            return None
        return self._give_up(submission, f"{how}, in each of {submission.n_lost} attempts")

    def _give_up(self, submission: Submission, reason: str) -> Any:
        submission.seconds += time.monotonic() - submission.began
        return self.blueprint.give_up(submission, reason)

    # -- what a subclass defines -------------------------------------------------------------------------------------

    @abstractmethod
    def start(self) -> None:
        """Adds a new worker to ``_workers``, which opens its evaluator and then says so."""
        raise NotImplementedError

    @abstractmethod
    def send(self, worker: Any) -> None:
        """Gives the worker its submission."""
        raise NotImplementedError

    @abstractmethod
    def wait(self, workers: list[Any], timeout: float | None) -> Any:
        """One of the workers that has something to say, or is lost; None after ``timeout`` seconds."""
        raise NotImplementedError

    @abstractmethod
    def receive(self, worker: Any) -> Any:
        """What it says: None once its evaluator is open.

        Raises:
            Lost: if it is gone.
        """
        raise NotImplementedError

    @abstractmethod
    def stop(self, worker: Any) -> None:
        """Ends a worker at once, with or without a trial."""
        raise NotImplementedError
