"""What a batch costs and how it is scored. A task is pure: it knows neither spaces nor methods and keeps no state."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lightning_nas.errors import SettingError
from lightning_nas.specs import Configurable

Carry = Any
"""What a recurrent network hands from one batch of a stream to the next; None for images."""


class Task(Configurable):
    """A loss and metrics.

    Attributes:
        score: the name of the metric that decides between architectures.
        mode: ``max`` if a higher score is better, else ``min``.
    """

    score: str
    mode: str

    def loss(
        self, forward: Callable[..., Any], batch: Any, carry: Carry = None, metrics: MetricCollection | None = None
    ) -> tuple[Tensor, Carry]:
        """The mean loss of a batch, and the carry after it.

        Args:
            forward: the network with the gates already in it.
            batch: one batch of the data module.
            carry: the stream's carry so far.
            metrics: from :meth:`metrics`; updated with this batch where given.
        """
        raise NotImplementedError

    def reward(self, forward: Callable[..., Any], batch: Any, carry: Carry = None) -> Tensor:
        """What a controller gets for one batch, a number without gradient; higher is better."""
        raise NotImplementedError

    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        """The metrics for data of this kind; over the batches of all ranks, or of this one alone."""
        raise NotImplementedError


class ImageClassification(Task):
    """Cross-entropy and accuracy for batches ``(images (N, C, H, W), labels (N,))``.

    Args:
        label_smoothing: share of the target spread over all classes, in validation losses too.
        auxiliary_weight: weight of the auxiliary classifier's loss, where the network has one (0.4 in NASNet, DARTS).
    """

    score = "accuracy"
    mode = "max"

    def __init__(self, label_smoothing: float = 0.0, auxiliary_weight: float = 0.4) -> None:
        if not 0 <= label_smoothing < 1:
            raise SettingError(f"task.label_smoothing: between 0 and 1, got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = auxiliary_weight

    def loss(
        self, forward: Callable[..., Any], batch: Any, carry: Carry = None, metrics: MetricCollection | None = None
    ) -> tuple[Tensor, Carry]:
        images, labels = batch
        logits = forward(images)
        auxiliary = None
        if isinstance(logits, tuple):
            logits, auxiliary = logits
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if auxiliary is not None:
            loss = loss + self.auxiliary_weight * F.cross_entropy(
                auxiliary, labels, label_smoothing=self.label_smoothing
            )
        if metrics is not None:
            metrics.update(logits.detach(), labels)
        return loss, carry

    def reward(self, forward: Callable[..., Any], batch: Any, carry: Carry = None) -> Tensor:
        images, labels = batch
        return (forward(images).argmax(1) == labels).float().mean()

    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        accuracy = MulticlassAccuracy(inputs["num_classes"], average="micro", sync_on_compute=over_ranks)
        return MetricCollection({"accuracy": accuracy})
