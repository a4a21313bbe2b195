"""Worker processes on this machine."""

import atexit
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from lightning_nas.errors import SettingError
from lightning_nas.executors.base import Lost, Pool, Worker
from lightning_nas.executors.blueprint import Refusal

SECONDS_TO_END = 5.0  # of a process whose connection has ended


@dataclasses.dataclass(eq=False)
class _Process(Worker):
    process: SpawnProcess
    connection: Connection
    place: int


class Processes(Pool):
    """Spawned processes that live as long as the search, each with an evaluator of its own.

    A killed worker is replaced. Workers ignore Ctrl-C, which is this process's to handle, and end with this process,
    however it ends. Where there are several GPUs they take turns. A script that uses them needs the usual
    ``if __name__ == "__main__":``.

    Args:
        n_workers: the number of worker processes.
        retries: how often a trial whose worker died is run again before it counts as failed.
        threads: PyTorch's threads in each worker; None: those of this process, divided among the workers. On some
            machines the last bits of results depend on them.
        max_minutes: the minutes after which a trial has failed and its process is killed; None: no limit.
    """

    def __init__(
        self,
        n_workers: int = 2,
        retries: int = 2,
        threads: int | None = None,
        max_minutes: float | None = None,
    ) -> None:
        super().__init__(n_workers, retries, max_minutes)
        if threads is not None and threads < 1:
            raise SettingError(f"threads: at least 1, or null, got {threads}")
        self.threads = threads

    def begin(self, blueprint: Any) -> None:
        super().begin(blueprint)
        atexit.register(self.close)  # before the one of multiprocessing, which waits for workers to end

    def close(self) -> None:
        super().close()
        atexit.unregister(self.close)

    def start(self) -> None:
        taken = {worker.place for worker in self._workers}
        place = next(k for k in range(self.n_workers) if k not in taken)
        threads = self.threads or max(1, torch.get_num_threads() // self.n_workers)
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        start_method = multiprocessing.get_start_method(allow_none=True)
        process = spawn.Process(target=_work, args=(theirs, self.blueprint, threads, _gpu(place), start_method))
        with _no_interrupts():
            process.start()
            self._workers.append(_Process(process, ours, place))
        theirs.close()  # so that the connection ends with the worker

    def send(self, worker: _Process) -> None:
        with contextlib.suppress(OSError):  # a worker that died idle is missed where its answer is awaited
            worker.connection.send((worker.submission.number, worker.submission.work))  # type: ignore[union-attr]

    def wait(self, workers: list[_Process], timeout: float | None) -> _Process | None:
        ready = wait([worker.connection for worker in workers], timeout)
        return next((worker for worker in workers if worker.connection in ready), None)

    def receive(self, worker: _Process) -> Any:
        try:
            return worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(SECONDS_TO_END)
            code = worker.process.exitcode
            self.stop(worker)
            how = f"exited with status {code}" if code is None or code >= 0 else f"was killed by signal {-code}"
            raise Lost(f"its worker {how}") from None

    def stop(self, worker: _Process) -> None:
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _gpu(place: int) -> str | None:
    """What ``CUDA_VISIBLE_DEVICES`` is for a worker: one of those that this process sees; None where there is none."""
    if not torch.cuda.is_available():
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(",")
    return visible[place % len(visible)]


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Holds Ctrl-C back. A process that is started meanwhile never gets it, not even before it can say so."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting it would end the blocking
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, blueprint: Any, threads: int, gpu: str | None, start_method: str | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # what trials start themselves, such as workers of data loaders, starts as it would in the parent: forked, where
    # that is the default, since spawning them again for every epoch takes longer than small trainings
    multiprocessing.set_start_method(start_method, force=True)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    evaluator = blueprint.open()
    with contextlib.suppress(EOFError, OSError):  # the parent has closed the connection, or is gone
        if isinstance(evaluator, Refusal):
            connection.send(evaluator)
            return
        connection.send(None)
        while True:
            connection.send(blueprint.run(evaluator, *connection.recv()))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()  # type: ignore[union-attr]
    os._exit(1)
