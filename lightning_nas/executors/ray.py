"""Workers on a Ray cluster, or on this machine by Ray."""

import dataclasses
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors.base import Lost, Pool, Worker
from lightning_nas.executors.blueprint import Blueprint, Refusal
from lightning_nas.spaces.base import Space
from lightning_nas.strategies.base import Proposal, Trial

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


@dataclasses.dataclass(eq=False)
class _Actor(Worker):
    handle: Any
    answer: Any  # a reference to what it says next


class Ray(Pool):
    """Ray actors that live as long as the search, each with an evaluator of its own, on whatever nodes have room.

    A worker that is lost, with its process or its whole node, is replaced. There are fewer than ``n_workers`` while the
    cluster has room for no more. A Ray that runs already is used and left running; else one is started on this machine,
    without its dashboard, and ended with the search. Needs the extra ``ray``. On other nodes the package, the data and
    the folder of the run have to be where they are on this one.

    Args:
        n_workers: the largest number of actors at once.
        cpus: cores of a worker.
        gpus: the number of GPUs of a worker; fractions share one.
        retries: how often a trial whose worker was lost is run again before it counts as failed.
        address: the address of a cluster, such as ``auto`` or ``ray://host:10001``; None: the one in ``RAY_ADDRESS``,
            or this machine.
        max_minutes: the minutes after which a trial has failed and its actor is killed; None: no limit.
    """

    def __init__(
        self,
        n_workers: int = 2,
        cpus: float = 1.0,
        gpus: float = 0.0,
        retries: int = 2,
        address: str | None = None,
        max_minutes: float | None = None,
    ) -> None:
        super().__init__(n_workers, retries, max_minutes)
        for name, value in {"cpus": cpus, "gpus": gpus}.items():
            if not value >= 0:
                raise SettingError(f"{name}: 0 or more, got {value}")
        self.cpus, self.gpus, self.address = cpus, gpus, address
        self._is_ours = False

    def open(
        self,
        evaluator: Evaluator,
        space: Space,
        data: "DataModule | None" = None,
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise SettingError("executor: Ray is not installed; pip install 'lightning_nas[ray]'") from error

        self._ray: Any = ray
        self.dumps = ray.cloudpickle.dumps  # takes classes of the user's script along
        super().open(evaluator, space, data, seed, folder)
        if ray.is_initialized():
            return
        self._is_ours = True
        ray.init(self.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        if self.address is None and "RAY_ADDRESS" not in os.environ:  # a cluster may grow, this machine does not
            self._check("cpus", self.cpus, ray.cluster_resources().get("CPU", 0))
            self._check("gpus", self.gpus, ray.cluster_resources().get("GPU", 0))

    def _check(self, name: str, wanted: float, there: float) -> None:
        if wanted > there:
            self.close()
            raise SettingError(f"{name}: {wanted:g} for each worker, but this machine has {there:g}")

    def close(self) -> None:
        super().close()
        if self._is_ours:
            self._ray.shutdown()
            self._is_ours = False

    def start(self) -> None:
        handle = self._ray.remote(num_cpus=self.cpus, num_gpus=self.gpus)(_RemoteWorker).remote()
        self._workers.append(_Actor(handle, handle.open.remote(self.blueprint)))

    def send(self, worker: _Actor) -> None:
        worker.answer = worker.handle.run.remote(worker.submission.number, worker.submission.work)  # type: ignore[union-attr]

    def wait(self, workers: list[_Actor], timeout: float | None) -> _Actor | None:
        ready, _ = self._ray.wait([worker.answer for worker in workers], timeout=timeout)
        return next((worker for worker in workers if worker.answer in ready), None)

    def receive(self, worker: _Actor) -> Trial | Refusal | None:
        try:
            return self._ray.get(worker.answer)
        except self._ray.exceptions.RayError as error:
            self.stop(worker)  # whatever is left of it
            message = " ".join(str(error).split())[:300]
            raise Lost(f"its worker was lost ({type(error).__name__}: {message})") from None

    def stop(self, worker: _Actor) -> None:
        self._ray.kill(worker.handle)


class _RemoteWorker:
    """The other end of an actor."""

    def open(self, blueprint: Blueprint) -> Refusal | None:
        evaluator = blueprint.open()
        if isinstance(evaluator, Refusal):
            return evaluator
        self.evaluator = evaluator
        return None

    def run(self, number: int, proposal: Proposal) -> Trial:
        return Blueprint.run(self.evaluator, number, proposal)
