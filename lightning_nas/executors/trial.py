"""A trial, and all that can go wrong in it.

Whatever an evaluator raises or returns becomes a trial that can be judged and written: numbers, names, and where it
failed a reason in plain words.
"""

import functools
import math
import numbers
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluation, Evaluator
from lightning_nas.strategies.base import Proposal, Status, Trial

LONGEST_REASON = 500  # characters
SECONDS_TO_HEED = 10.0  # after which a trial that caught the end of its time, and continues, is told again


class Unusable(Exception):
    """What an evaluator returned is no evaluation; the message says why."""


class TimeIsUp(BaseException):
    """Is raised inside a trial at the end of its time. It is no ``Exception``, since evaluators catch those."""


def run_trial(evaluator: Evaluator, number: int, proposal: Proposal, minutes: float | None = None) -> Trial:
    """Evaluates what is proposed. Whatever goes wrong becomes the status of the trial and its reason.

    Ctrl-C, and the exception that Lightning makes of SIGTERM, say nothing about the architecture and go through.
    ``sys.exit`` is a failure like any other, as it is in a worker.

    Args:
        evaluator: what evaluates, already open.
        number: the number of the trial.
        proposal: the architecture and how thoroughly it is evaluated.
        minutes: after how many :class:`TimeLimit` ends it; None: no limit.
    """
    began = time.perf_counter()
    limit = TimeLimit(minutes)
    status: Status = "failed"
    try:
        with limit:
            evaluation = evaluator(proposal, number)
        if isinstance(evaluation, numbers.Real):
            evaluation = _of_number(evaluator, float(evaluation), time.perf_counter() - began)
        return _ended(number, proposal, evaluation)
    except Unusable as error:
        reason = f"{type(evaluator).__name__} returned no evaluation that can be used: {error}"
    except BaseException as error:
        if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None  # which makes Lightning's trainer leave the process
        # by name: a search on a table does without Lightning
        if isinstance(error, KeyboardInterrupt) or "SIGTERMException" in [cls.__name__ for cls in type(error).__mro__]:
            raise
        reason = late(minutes) if limit.is_over else _describe(error)
        status = "out of memory" if _out_of_memory(error) else "failed"
    return failed(number, proposal, reason, time.perf_counter() - began, status)


def failed(number: int, proposal: Proposal, reason: str, cost: float, status: Status = "failed") -> Trial:
    """A trial that came to nothing, with a reason that any file and terminal can take."""
    architecture, fidelity, continues, *_ = proposal
    return Trial(number, architecture, (), {}, cost, status, _plain(reason), None, fidelity, continues)


def late(minutes: float | None) -> str:
    """The reason of a trial that was ended after so many minutes."""
    return f"it took longer than the executor's max_minutes, {minutes:g}"


# -- what is returned ------------------------------------------------------------------------------------------------


def _ended(number: int, proposal: Proposal, evaluation: Any) -> Trial:
    """The trial of an evaluation.

    Raises:
        Unusable: if it is none, or has something else than numbers by names.
    """
    if not isinstance(evaluation, Evaluation):
        raise Unusable(f"an Evaluation or a number expected, got {_short(evaluation)}")
    if not isinstance(evaluation.metrics, Mapping):
        raise Unusable(f"metrics: numbers by name expected, got {_short(evaluation.metrics)}")
    cost = _number(evaluation.cost, "cost")
    metrics = dict(_metrics(evaluation.metrics))
    if not 0 <= cost < math.inf:
        raise Unusable(f"cost: seconds from 0 expected, got {cost}")
    architecture, fidelity, continues, *_ = proposal
    return Trial(number, architecture, (), metrics, cost, "done", "", None, fidelity, continues)


def _of_number(evaluator: Evaluator, value: float, seconds: float) -> Evaluation:
    """The evaluation of an evaluator that returned a number alone: its objective's metric, at the cost of its time.

    Raises:
        Unusable: if it has no objective to say what the number is.
    """
    objective = getattr(evaluator, "objective", None)
    if objective is None:
        raise Unusable(f"a number alone, {value:g}, and no objective that names it; return Evaluation({{'NAME': ...}})")
    return Evaluation({objective.metric: value}, seconds)


def _metrics(metrics: Mapping[Any, Any]) -> Iterator[tuple[str, float]]:
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise Unusable(f"metrics: names expected, got {_short(name)}")
        number = _number(value, f"metrics.{name}")
        yield _name(name), number if math.isfinite(number) else math.nan  # as a file has it, which knows no infinity


@functools.lru_cache(1024)
def _name(name: str) -> str:
    """A metric's name, of which there are few, so that each is looked at once."""
    return _plain(name)


def _number(value: Any, field: str) -> float:
    try:
        if isinstance(value, (str, bytes)):  # which Python's ``float`` would read
            raise TypeError
        return float(value)
    except Exception:  # whatever the value's own class says
        raise Unusable(f"{field}: a number expected, got {_short(value)}") from None


# -- what is raised --------------------------------------------------------------------------------------------------


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # PyTorch's words on a CPU


def _describe(error: BaseException) -> str:
    """An exception in a line, with where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    try:
        words = _plain(f"{type(error).__name__}: {error}")
    except Exception:  # of an exception that cannot be printed
        words = type(error).__name__
    return f"{words.removesuffix(':')} ({Path(place.filename).name}, line {place.lineno})"


def _short(value: Any) -> str:
    try:
        return _plain(repr(value))[:80]
    except Exception:  # of an object that cannot be printed
        return type(value).__name__


def _plain(text: str) -> str:
    """A line that can be written as UTF-8 and shown, also of a file name that is not UTF-8 itself."""
    text = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else "?" for c in text)[:LONGEST_REASON]


# -- time ------------------------------------------------------------------------------------------------------------


class TimeLimit:
    """Ends what runs in it by :class:`TimeIsUp`, raised by a timer of the operating system.

    That works in the main thread, and while Python is running or waiting. A call into another language, such as one
    kernel or one convolution, is not ended before it returns.

    Args:
        minutes: the minutes after which it is ended; None: never.
    """

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.is_over = self._is_on = False

    @staticmethod
    def check() -> None:
        """Refuses a limit where there cannot be one.

        Raises:
            SettingError: outside of the main thread, and on Windows.
        """
        if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
            raise SettingError("max_minutes: only in the main thread, and not on Windows; else take Processes(1)")

    def __enter__(self) -> None:
        if self.minutes is None:
            return
        self._is_on = True
        self._before = signal.signal(signal.SIGALRM, self._expire)
        signal.setitimer(signal.ITIMER_REAL, 60 * self.minutes, SECONDS_TO_HEED)

    def __exit__(self, *error: Any) -> None:
        if self._is_on:
            self._is_on = False  # first: a signal that comes now says nothing any more
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    def _expire(self, number: int, frame: FrameType | None) -> None:
        if self._is_on:
            self.is_over = True
            raise TimeIsUp


def check_minutes(minutes: float | None) -> None:
    """Refuses what is no limit.

    Raises:
        SettingError: if it is neither None nor above 0.
    """
    if minutes is not None and not 0 < minutes < math.inf:
        raise SettingError(f"max_minutes: above 0, or null, got {minutes}")
