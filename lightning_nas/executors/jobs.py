"""Jobs that are no trials, in the same worker processes: a killed worker costs its own job, and is replaced."""

import dataclasses
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lightning_nas.errors import SettingError
from lightning_nas.executors.blueprint import Refusal, Submission
from lightning_nas.executors.processes import Processes


@dataclasses.dataclass(frozen=True)
class Calls:
    """What workers that call a function are built from, in the place of a blueprint of trials."""

    function: Callable[[Any], Any]

    def open(self) -> Callable[[Any], Any]:
        """What the worker calls."""
        return self.function

    @staticmethod
    def run(function: Callable[[Any], Any], number: int, job: Any) -> tuple[int, Any] | Refusal:
        """What the worker answers: the number of the job with its result, or why there is none."""
        try:
            return number, function(job)
        except SettingError as error:
            return Refusal(str(error), is_setting=True)
        except BaseException:
            return Refusal(f"job {number}, {job}, failed in its worker:\n{traceback.format_exc()}", is_setting=False)

    @staticmethod
    def give_up(submission: Submission, reason: str) -> Refusal:
        """What the pool answers where workers are lost again and again."""
        return Refusal(f"job {submission.number}, {submission.work}: {reason}", is_setting=False)


def in_processes(function: Callable[[Any], Any], jobs: Sequence[Any], n_workers: int) -> Iterator[tuple[int, Any]]:
    """Calls a function for each job, in worker processes of one thread each.

    The workers ignore Ctrl-C, which is the caller's to handle, and end with this process, however it ends.

    Args:
        function: what is called; it has to be one that can be pickled.
        jobs: the arguments, one for each call.
        n_workers: how many processes there are at most.

    Yields:
        the number of a job with its result, as they end.

    Raises:
        SettingError: as the function does, and where it cannot be pickled.
        RuntimeError: with what else went wrong in a worker, or where a job kills its workers.
    """
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise SettingError(f"processes: 1, since workers import the classes that they need, but {error}") from error
    pool: Any = Processes(n_workers, threads=1)
    pool.begin(Calls(function))
    try:
        for number, job in enumerate(jobs):
            pool.submit(number, job)
        for _ in jobs:
            yield pool.next()
    finally:
        pool.close()
