"""Segmentation of images: a class for every pixel."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.functional.classification import multiclass_jaccard_index

from lightning_nas.errors import SettingError
from lightning_nas.tasks.base import Carry, Task
from lightning_nas.tasks.image_classification import check_shape


class Segmentation(Task):
    """Cross-entropy and mean IoU for batches ``(images (N, C, H, W), masks (N, H, W))``, masks of class numbers.

    IoU is the number of pixels that are and are said to be of a class, divided by those that are or are said to be;
    its mean is over the classes that are there or are said to be. Every network of images gives logits for each pixel,
    those of its last map brought to the size of the images.

    Args:
        ignore_index: the number in masks of pixels that count for nothing.
        auxiliary_weight: weight of the auxiliary classifier's loss, where the network has one (0.4 in PSPNet).
    """

    score = "iou"
    mode = "max"
    modality = "images"
    batch = "images (N, C, H, W) of float32 and masks (N, H, W) of int64 below num_classes"
    adjustable = frozenset({"auxiliary_weight"})

    def __init__(self, ignore_index: int = 255, auxiliary_weight: float = 0.4) -> None:
        if not auxiliary_weight >= 0:
            raise SettingError(f"auxiliary_weight: 0 or more, got {auxiliary_weight}")
        self.ignore_index, self.auxiliary_weight = ignore_index, auxiliary_weight

    def network_inputs(self, inputs: dict[str, int]) -> dict[str, int]:
        return inputs | {"dense": 1}

    def loss(
        self, forward: Callable[..., Any], batch: Any, carry: Carry = None, metrics: MetricCollection | None = None
    ) -> tuple[Tensor, Carry]:
        images, masks = batch
        outputs = forward(images)
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        if metrics is not None:
            metrics.update(logits.detach(), masks)
        losses = [self._per_pixel(outputs, masks) for outputs in (logits, *auxiliary)]
        return losses[0] + self.auxiliary_weight * sum(losses[1:]), carry

    def check_output(self, output: Any, inputs: dict[str, int]) -> None:
        check_shape(output, (2, inputs["num_classes"], *[inputs["image_size"]] * 2), type(self).__name__)

    def reward(self, forward: Callable[..., Any], batch: Any, carry: Carry = None) -> tuple[Tensor, Carry]:
        images, masks = batch
        logits = forward(images)
        return multiclass_jaccard_index(logits, masks, logits.shape[1], ignore_index=self.ignore_index), carry

    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        iou = MulticlassJaccardIndex(inputs["num_classes"], ignore_index=self.ignore_index, sync_on_compute=over_ranks)
        return MetricCollection({"iou": iou})

    def _per_pixel(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The mean cross-entropy of the pixels that count; zero where none does."""
        entropies = F.cross_entropy(logits, masks, ignore_index=self.ignore_index, reduction="sum")
        return entropies / (masks != self.ignore_index).sum().clamp(min=1)
