"""Classification of images."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lightning_nas.errors import SettingError
from lightning_nas.tasks.base import Carry, Task


def check_shape(output: Any, shape: tuple[int, ...], task: str) -> None:
    """Refuses what a network puts out, first where it is several, unless it is a tensor of this shape.

    Raises:
        SettingError: saying what it is.
    """
    first = output[0] if isinstance(output, tuple) and output else output
    got = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
    if got != shape:
        raise SettingError(
            f"space: the network puts out {got} for two examples, and {task} reads {shape}, by the data's num_classes, "
            "which a constructor's argument of that name is given"
        )


class ImageClassification(Task):
    """Cross-entropy and accuracy for batches ``(images (N, C, H, W), labels (N,))``.

    Args:
        label_smoothing: share of the target spread over all classes, in validation losses too.
        auxiliary_weight: weight of the auxiliary classifier's loss, where the network has one (0.4 in NASNet, DARTS).
    """

    score = "accuracy"
    mode = "max"
    modality = "images"
    batch = "images (N, C, H, W) of float32 and labels (N,) of int64 below num_classes"
    adjustable = frozenset({"label_smoothing", "auxiliary_weight"})

    def __init__(self, label_smoothing: float = 0.0, auxiliary_weight: float = 0.4) -> None:
        if not 0 <= label_smoothing < 1:
            raise SettingError(f"label_smoothing: between 0 and 1, got {label_smoothing}")
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

    def check_output(self, output: Any, inputs: dict[str, int]) -> None:
        check_shape(output, (2, inputs["num_classes"]), type(self).__name__)

    def reward(self, forward: Callable[..., Any], batch: Any, carry: Carry = None) -> tuple[Tensor, Carry]:
        images, labels = batch
        return (forward(images).argmax(1) == labels).float().mean(), carry

    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        accuracy = MulticlassAccuracy(inputs["num_classes"], average="micro", sync_on_compute=over_ranks)
        return MetricCollection({"accuracy": accuracy})
