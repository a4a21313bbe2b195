"""Scores of architectures under the shared weights of a supernet."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_nas.data import AnyData, DataModule
from lightning_nas.errors import SettingError
from lightning_nas.operations.normalization import batch_statistics, evaluating, recalibrated
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.tasks import Task

Statistics = Literal["recalibrate", "batch"]
"""By which statistics BatchNorm normalises: the architecture's own on training data, or those of each batch."""


class Scorer:
    """Scores architectures one by one on the same batches, each as a hard path through the supernet.

    The running averages of a supernet mix all architectures, so BatchNorm is recalibrated for each one on training
    batches first (Guo et al. 2020, section 3.4), the same for all. Afterwards the network is as it was.

    Args:
        space: whose architectures are scored.
        network: the network that holds all architectures.
        task: the task that scores a batch.
        validation: batches of the part that weights were not trained on.
        calibration: training batches for BatchNorm.
        bn: ``recalibrate``, or ``batch``: by the statistics of each validation batch, as references do; the training
            batches are not used then.
        modules: the task's modules by their names, which score with the network; None: it has none.
        progress: whether a ranking draws a bar.
    """

    def __init__(
        self,
        space: Space,
        network: nn.Module,
        task: Task,
        validation: Iterable[Any],
        calibration: Iterable[Any],
        bn: Statistics = "recalibrate",
        modules: Mapping[str, nn.Module] | None = None,
        progress: bool = True,
    ) -> None:
        self.progress = progress
        self.modules: dict[str, Any] = dict(modules or {})
        self.space, self.network, self.task, self.bn = space, network, task, bn
        self.device = next(network.parameters()).device
        self.validation = [move_data_to_device(batch, self.device) for batch in validation]
        self.calibration = [move_data_to_device(batch, self.device) for batch in calibration]

    @classmethod
    def of(cls, method: Any, data: AnyData, n_batches: int | None = None, n_calibration: int = 8) -> "Scorer":
        """The scorer of a method's network on the architecture part of its data, or on ``n_batches`` batches of it."""
        if not hasattr(method, "network"):
            raise SettingError(
                "a search that has not begun has no network to judge by; fit it first, or load a checkpoint"
            )
        own: DataModule = method.data_of(data)
        stream = method.stream(own, "weights")
        n_calibration = n_calibration if method.bn == "recalibrate" else 0
        calibration = [stream.get(index) for index in islice(range(len(stream)), n_calibration)]
        validation = own.evaluation("architecture", n_batches, **method.task.reads)
        task, modules = method.task, method.task_modules
        bn, progress = method.bn, method.draws_bars
        return cls(method.space, method.network, task, validation, calibration, bn, modules, progress)

    def __call__(self, architecture: Architecture) -> float:
        """The task's score of one architecture."""
        return self.figures(architecture)[self.task.score]

    @torch.no_grad()
    def figures(self, architecture: Architecture) -> dict[str, float]:
        """The task's score of one architecture by its name, and as ``loss`` the mean of the batches' losses."""
        with self.normalising(architecture) as forward:
            metrics = self.task.metrics(self.network.inputs, over_ranks=False).to(self.device)  # type: ignore[arg-type]
            run = self._one_after_another(forward, metrics)
            losses = [run(batch) for batch in self.validation]
        return {"loss": float(torch.stack(losses).mean()), self.task.score: float(metrics.compute()[self.task.score])}

    def _one_after_another(
        self, forward: Callable[..., Any], metrics: MetricCollection | None = None
    ) -> Callable[[Any], Tensor]:
        """What runs the batches of one stream, each with the carry of the batch before it, and returns their losses."""
        carry = None

        def run(batch: Any) -> Tensor:
            nonlocal carry
            loss, carry = self.task.loss(forward, batch, carry, metrics, **self.modules)
            return loss

        return run

    @contextmanager
    def normalising(self, architecture: Architecture) -> Iterator[Callable[..., Any]]:
        """Inside, the network evaluates, and BatchNorm has the statistics of the architecture that ``forward`` runs."""
        forward = partial(self.network, gates=self.space.gates(architecture))
        if self.bn == "recalibrate":
            with recalibrated(self.network, self._one_after_another(forward), self.calibration):
                yield forward
            return
        with evaluating(self.network), batch_statistics(self.network):  # all but BatchNorm evaluates
            yield forward

    def rank(self, architectures: Iterable[Architecture], what: str = "Scoring") -> dict[Architecture, float]:
        """Scores of architectures, each once, the best first; one whose score is not a number comes last."""
        from tqdm import tqdm

        each, shown = dict.fromkeys(architectures), f"{what} under shared weights"
        progress = tqdm(each, desc=shown, leave=False, disable=not self.progress)
        return self.best_first({architecture: self(architecture) for architecture in progress})

    def best_first(self, scores: Mapping[Architecture, float]) -> dict[Architecture, float]:
        """Scores of architectures in another order: the best first, and those that are not a number last."""
        orient = self.task.objective.score
        return dict(sorted(scores.items(), key=lambda row: (math.isnan(row[1]), -orient(row[1]))))
