"""What all executors share: a trial and all that can go wrong in it, what a worker is built from, and the pool."""

import dataclasses
import math
import pickle
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.specs import Configurable, class_path, class_paths, subclasses
from lightning_nas.strategies.base import Status, Trial

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule

LONGEST_REASON = 500  # characters


class Executor(Configurable, ABC):
    """Runs trials, each by an evaluator, up to ``n_workers`` at once.

    Attributes:
        n_workers: how many trials can run at the same time.
    """

    n_workers: int = 1

    @abstractmethod
    def open(self, evaluator: Evaluator, space: Space, data: "DataModule | None" = None, seed: int = 0) -> None:
        """Gets ready to run trials; the arguments go to the evaluator's ``open``, in every worker.

        Raises:
            SettingError: if the evaluator, the space or the data cannot be used; from workers, when the first answers.
        """
        raise NotImplementedError

    @abstractmethod
    def submit(self, number: int, architecture: Architecture) -> None:
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


def run_trial(evaluator: Evaluator, number: int, architecture: Architecture) -> Trial:
    """Evaluates an architecture. Whatever goes wrong becomes the status of the trial and its reason.

    ``KeyboardInterrupt`` and ``SystemExit`` say nothing about the architecture and go through.
    """
    began = time.perf_counter()
    try:
        evaluation = evaluator(architecture, number)
        score, cost = float(evaluation.score), float(evaluation.cost)
        metrics = {str(name): float(value) for name, value in evaluation.metrics.items()}
    except Exception as error:
        status: Status = "out of memory" if _out_of_memory(error) else "failed"
        cost = time.perf_counter() - began
        return Trial(number, architecture, -math.inf, {}, cost, status, _describe(error))
    if not math.isfinite(score):
        return Trial(number, architecture, -math.inf, metrics, cost, "diverged", f"the score is {score}")
    return Trial(number, architecture, score, metrics, cost)


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # PyTorch's words on a CPU


def _describe(error: Exception) -> str:
    """An exception in a line, with where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    words = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]
    return f"{words.removesuffix(':')} ({Path(place.filename).name}, line {place.lineno})"


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a worker cannot work; in plain words, since not every exception can travel."""

    message: str
    is_setting: bool

    def error(self) -> Exception:
        return SettingError(self.message) if self.is_setting else RuntimeError(self.message)


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """What a worker builds its own evaluator from.

    Attributes:
        evaluator, space, data: specs; of the data None where there are none.
        seed: the seed of the search.
        classes: that the specs name, by their paths, pickled, so that a worker imports what it needs.
    """

    evaluator: dict[str, Any]
    space: dict[str, Any]
    data: dict[str, Any] | None
    seed: int
    classes: bytes

    @classmethod
    def of(
        cls,
        evaluator: Evaluator,
        space: Space,
        data: "DataModule | None",
        seed: int,
        dumps: Callable[[Any], bytes] = pickle.dumps,
    ) -> "Blueprint":
        """The blueprint for workers that evaluate like this evaluator.

        Raises:
            SettingError: if one of the objects was made from anything but plain values, or no worker could import it.
        """
        try:
            specs = evaluator.spec, space.spec, None if data is None else data.spec
        except (TypeError, AttributeError) as error:
            raise SettingError(
                f"executor: workers build evaluator, space and data again from plain settings, but {error}; "
                "take the executor Serial"
            ) from error
        known = {class_path(sub): sub for sub in subclasses(Configurable)}
        try:
            classes = dumps({path: known[path] for path in class_paths(list(specs)) if path in known})
        except (pickle.PicklingError, AttributeError) as error:
            raise SettingError(f"executor: workers import the classes that they need, but {error}") from error
        return cls(*specs, seed, classes)

    def open(self) -> Evaluator | Refusal:
        """The evaluator, ready; or why there is none."""
        try:
            # a class of the user's script is called otherwise in a spawned process
            names = {path: class_path(cls) for path, cls in pickle.loads(self.classes).items()}
            evaluator = Evaluator.build(_renamed(self.evaluator, names))
            space = Space.build(_renamed(self.space, names))
            data: Any = None if self.data is None else Configurable.build(_renamed(self.data, names))
            evaluator.open(space, data, self.seed)
        except SettingError as error:
            return Refusal(str(error), is_setting=True)
        except Exception:
            return Refusal(f"a worker could not open its evaluator:\n{traceback.format_exc()}", is_setting=False)
        return evaluator


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: names.get(item, item) if key == "class_path" else _renamed(item, names) for key, item in value.items()
        }
    return [_renamed(item, names) for item in value] if isinstance(value, list) else value


class Lost(Exception):
    """A worker is gone; the message says how."""


@dataclasses.dataclass
class Submission:
    """A trial on its way, and how many workers it has lost."""

    number: int
    architecture: Architecture
    n_lost: int = 0


@dataclasses.dataclass(eq=False)
class Worker:
    """A worker as its pool sees it: opening its evaluator until it is ready, then idle or with a trial."""

    ready: bool = dataclasses.field(default=False, init=False)
    submission: Submission | None = dataclasses.field(default=None, init=False)


class Pool(Executor, ABC):
    """Workers that live as long as the search. A subclass says how one is started, told, heard and stopped.

    A trial whose worker is lost is run again by a new one, and recorded as failed after ``retries`` times.
    """

    dumps: Callable[[Any], bytes] = staticmethod(pickle.dumps)

    def __init__(self, n_workers: int, retries: int) -> None:
        if n_workers < 1:
            raise SettingError(f"n_workers: at least 1, got {n_workers}")
        if retries < 0:
            raise SettingError(f"retries: 0 or more, got {retries}")
        self.n_workers, self.retries = n_workers, retries
        self._workers: list[Any] = []
        self._waiting: deque[Submission] = deque()

    def open(self, evaluator: Evaluator, space: Space, data: "DataModule | None" = None, seed: int = 0) -> None:
        self.blueprint = Blueprint.of(evaluator, space, data, seed, self.dumps)
        self._n_lost_opening = 0
        if data is not None:
            data.prepare_data()  # once, before workers look at the same files

    def submit(self, number: int, architecture: Architecture) -> None:
        self._waiting.append(Submission(number, architecture))

    def next(self, timeout: float | None = None) -> Trial | None:
        while True:
            self._hand_out()
            worker = self.wait([w for w in self._workers if w.submission or not w.ready], timeout)
            if worker is None:
                return None
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
                self.send(worker)

    def _after_loss(self, submission: Submission | None, how: str) -> Trial | Refusal | None:
        if submission is None:
            self._n_lost_opening += 1
            opens = self._n_lost_opening <= self.retries
            return None if opens else Refusal(f"workers are lost before their first trial: {how}", is_setting=False)
        submission.n_lost += 1
        if submission.n_lost <= self.retries:
            self._waiting.appendleft(submission)
            return None
        reason = f"{how}, in each of {submission.n_lost} attempts"
        return Trial(submission.number, submission.architecture, -math.inf, status="failed", reason=reason)

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
    def receive(self, worker: Any) -> Trial | Refusal | None:
        """What it says: None once its evaluator is open.

        Raises:
            Lost: if it is gone.
        """
        raise NotImplementedError

    @abstractmethod
    def stop(self, worker: Any) -> None:
        """Ends a worker at once, with or without a trial."""
        raise NotImplementedError
