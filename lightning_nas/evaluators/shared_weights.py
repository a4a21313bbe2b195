"""Scores of architectures under the shared weights of a trained supernet."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import nn
from torchmetrics import MetricCollection

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluation, Evaluator
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
        network: the supernet.
        task: scores a batch.
        validation: batches of the part that weights were not trained on.
        calibration: training batches for BatchNorm.
        bn: ``recalibrate``, or ``batch``: by the statistics of each validation batch, as references do; the training
            batches are not used then.
    """

    def __init__(
        self,
        space: Space,
        network: nn.Module,
        task: Task,
        validation: Iterable[Any],
        calibration: Iterable[Any],
        bn: Statistics = "recalibrate",
    ) -> None:
        self.space, self.network, self.task, self.bn = space, network, task, bn
        self.device = next(network.parameters()).device
        self.validation = [move_data_to_device(batch, self.device) for batch in validation]
        self.calibration = [move_data_to_device(batch, self.device) for batch in calibration]

    @classmethod
    def of(cls, method: Any, data: Any, n_batches: int | None = None, n_calibration: int = 8) -> "Scorer":
        """The evaluator of a method's network on its data module's architecture part, or on so many batches of it."""
        stream = data.stream("weights", method.seed)
        n_calibration = n_calibration if method.bn == "recalibrate" else 0
        calibration = [stream.get(index) for index in islice(range(len(stream)), n_calibration)]
        validation = data.evaluation("architecture", n_batches)
        return cls(method.space, method.network, method.task, validation, calibration, method.bn)

    @torch.no_grad()
    def __call__(self, architecture: Architecture) -> float:
        """The task's score of one architecture."""
        gates = self.space.gates(architecture)
        forward = partial(self.network, gates=gates)
        with self._statistics(self._one_after_another(forward)):
            metrics = self.task.metrics(self.network.inputs, over_ranks=False).to(self.device)  # type: ignore[arg-type]
            run = self._one_after_another(forward, metrics)
            for batch in self.validation:
                run(batch)
        return float(metrics.compute()[self.task.score])

    def _one_after_another(
        self, forward: Callable[..., Any], metrics: MetricCollection | None = None
    ) -> Callable[[Any], None]:
        """What runs the batches of one stream, each with the carry of the batch before it."""
        carry = None

        def run(batch: Any) -> None:
            nonlocal carry
            _, carry = self.task.loss(forward, batch, carry, metrics)

        return run

    @contextmanager
    def _statistics(self, forward: Callable[[Any], Any]) -> Iterator[None]:
        if self.bn == "recalibrate":
            with recalibrated(self.network, forward, self.calibration):
                yield
            return
        with evaluating(self.network), batch_statistics(self.network):  # all but BatchNorm evaluates
            yield

    def rank(self, architectures: Iterable[Architecture], what: str = "Scoring") -> dict[Architecture, float]:
        """Scores of architectures, each once, the best first; one whose score is not a number comes last."""
        from tqdm import tqdm

        progress = tqdm(dict.fromkeys(architectures), desc=f"{what} under shared weights", leave=False)
        scores = {architecture: self(architecture) for architecture in progress}
        sign = 1 if self.task.mode == "min" else -1
        return dict(sorted(scores.items(), key=lambda row: (math.isnan(row[1]), sign * row[1])))


class SharedWeights(Evaluator):
    """Scores each architecture as a path through the supernet of a finished search, by a :class:`Scorer`.

    The metric is ``val/supernet_`` and the task's score: that of shared weights, not of a trained network. BatchNorm is
    treated as the search does. The batches are those of the data given, else of the data in the checkpoint.

    Args:
        checkpoint: the path of a search's checkpoint.
        n_batches: of the architecture part, spread over it, the same for all architectures; None: all of it.
        n_calibration: training batches for BatchNorm.
    """

    def __init__(self, checkpoint: str, n_batches: int | None = None, n_calibration: int = 8) -> None:
        if n_batches is not None and n_batches < 1:
            raise SettingError(f"evaluator.n_batches: at least 1, or null, got {n_batches}")
        if n_calibration < 1:
            raise SettingError(f"evaluator.n_calibration: at least 1, got {n_calibration}")
        self.checkpoint, self.n_batches, self.n_calibration = checkpoint, n_batches, n_calibration

    def open(self, space: Space, data: Any = None, seed: int = 0) -> None:
        """Loads the supernet, onto the accelerator if there is one.

        Raises:
            SettingError: if it is of another space, or was trained on images that the data hold back for validation.
        """
        from lightning_nas.checkpoints import load_search  # which knows all methods

        method, own = load_search(self.checkpoint)
        if method.space.spec != space.spec:
            there, here = type(method.space).__name__, type(space).__name__
            other = there if there != here else f"{there} with other settings"
            raise SettingError(f"evaluator.checkpoint: {self.checkpoint} is a supernet of {other}, not of this {here}")
        if data is not None and _division(data) != _division(own):
            raise SettingError(
                f"evaluator.checkpoint: {self.checkpoint} was trained on other data, or on data divided otherwise; "
                f"its data are {_division(own)}"
            )
        method.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
        self.scorer = Scorer.of(method, data or own, self.n_batches, self.n_calibration)

    def __call__(self, architecture: Architecture, number: int) -> Evaluation:
        began = time.perf_counter()
        score, task = self.scorer(architecture), self.scorer.task
        oriented = score if task.mode == "max" else -score
        return Evaluation(oriented, {f"val/supernet_{task.score}": score}, time.perf_counter() - began)


def _division(data: Any) -> dict[str, Any]:
    """What of the spec says which examples are in which part."""
    elsewhere = {"batch_size", "num_workers", "folder", "download", "verify"}
    return {"class_path": data.spec["class_path"]} | {
        name: value for name, value in data.spec["init_args"].items() if name not in elsewhere
    }
