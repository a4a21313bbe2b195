"""Scores of architectures under the shared weights of a trained supernet."""

from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Any

import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import nn

from lightning_nas.operations.normalization import recalibrated
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.tasks import Task


class SharedWeights:
    """Evaluates architectures one by one on the same batches, each as a hard path through the supernet.

    The running averages of a supernet mix all architectures, so BatchNorm is recalibrated for each one on training
    batches first (Guo et al. 2020, section 3.4), the same for all. Afterwards the network is as it was.

    Args:
        space: whose architectures are scored.
        network: the supernet.
        task: scores a batch.
        validation: batches of the part that weights were not trained on.
        calibration: training batches for BatchNorm.
    """

    def __init__(
        self, space: Space, network: nn.Module, task: Task, validation: Iterable[Any], calibration: Iterable[Any]
    ) -> None:
        self.space, self.network, self.task = space, network, task
        self.device = next(network.parameters()).device
        self.validation = [move_data_to_device(batch, self.device) for batch in validation]
        self.calibration = [move_data_to_device(batch, self.device) for batch in calibration]

    @classmethod
    def of(cls, module: Any, data: Any, n_calibration: int = 8) -> "SharedWeights":
        """The evaluator of a method's network on its data module's architecture part."""
        stream = data.stream("weights", module.seed)
        calibration = [stream.get(index) for index in islice(range(len(stream)), n_calibration)]
        return cls(module.space, module.network, module.task, data.evaluation("architecture"), calibration)

    @torch.no_grad()
    def __call__(self, architecture: Architecture) -> float:
        """The task's score of one architecture."""
        gates = self.space.gates(architecture)
        forward = partial(self.network, gates=gates)
        with recalibrated(self.network, lambda batch: self.task.loss(forward, batch), self.calibration):
            metrics = self.task.metrics(self.network.inputs, over_ranks=False).to(self.device)  # type: ignore[arg-type]
            carry = None
            for batch in self.validation:
                _, carry = self.task.loss(forward, batch, carry, metrics)
        return float(metrics.compute()[self.task.score])
