"""Learning without labels, by telling the views of one image from those of the others.

Chen, Kornblith, Norouzi, Hinton 2020: A Simple Framework for Contrastive Learning of Visual Representations (SimCLR).

Differs from the paper: 1. The views are augmented as the data augment their training images; the paper's own crops and
colours are up to the data. 2. The network's last linear layer is the projector's first one, so the representation h is
what that layer reads. 3. Every device compares the images of its own batch alone, where the paper takes the others of
all devices too.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, arange, nn
from torchmetrics import MeanMetric, MetricCollection

from lightning_nas.errors import SettingError
from lightning_nas.tasks.base import Carry, Task


class ContrastiveLearning(Task):
    """The loss of SimCLR for batches of two views of each image, ``(N, 2, C, H, W)``, without labels.

    The network's outputs, ``features`` numbers for each view, go through ReLU and a linear layer to ``dimensions``
    numbers, by whose cosines views are compared. The score ``matched`` is the share of views that are nearer to the
    other view of their image than to any view of another one.

    Args:
        temperature: the number by which cosines are divided, above 0 (the paper on CIFAR-10: 0.5).
        features: the number of outputs of the network, the width of the projector's hidden layer.
        dimensions: the number of outputs of the projector (the paper: 128).
    """

    score = "matched"
    mode = "max"
    modality = "images"
    views = 2
    labelled = False
    adjustable = frozenset({"temperature"})

    def __init__(self, temperature: float = 0.5, features: int = 128, dimensions: int = 128) -> None:
        if not temperature > 0:
            raise SettingError(f"temperature: above 0, got {temperature}")
        for name, value in {"features": features, "dimensions": dimensions}.items():
            if value < 1:
                raise SettingError(f"{name}: at least 1, got {value}")
        self.temperature, self.features, self.dimensions = temperature, features, dimensions

    def network_inputs(self, inputs: dict[str, int]) -> dict[str, int]:
        return inputs | {"num_classes": self.features}

    def modules(self, inputs: dict[str, int]) -> dict[str, nn.Module]:
        return {"projector": nn.Sequential(nn.ReLU(), nn.Linear(self.features, self.dimensions))}

    def loss(
        self,
        forward: Callable[..., Any],
        batch: Any,
        carry: Carry = None,
        metrics: MetricCollection | None = None,
        projector: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Carry]:
        loss, matched = nt_xent(self.projections(forward, batch, projector), self.temperature)
        if metrics is not None:
            metrics.update(matched, weight=matched.new_full((), 2 * len(batch)))
        return loss, carry

    def reward(
        self,
        forward: Callable[..., Any],
        batch: Any,
        carry: Carry = None,
        projector: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Carry]:
        return nt_xent(self.projections(forward, batch, projector), self.temperature)[1], carry

    def projections(
        self, forward: Callable[..., Any], images: Tensor, projector: Callable[[Tensor], Tensor] | None
    ) -> Tensor:
        """The projections ``(2N, dimensions)``, the two views of an image one after the other; without a projector the
        network's outputs."""
        outputs = forward(images.flatten(0, 1))
        if isinstance(outputs, tuple):  # an auxiliary head has no labels to learn from
            outputs, _ = outputs
        return outputs if projector is None else projector(outputs)

    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        return MetricCollection({"matched": MeanMetric(sync_on_compute=over_ranks)})


def nt_xent(projections: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The normalised cross-entropy of pairs (equation 1 of the paper), and the share of rows nearest to their partner.

    Args:
        projections: ``(2N, d)``, of which rows 2k and 2k + 1 belong together.
        temperature: the number by which cosines are divided.
    """
    z = F.normalize(projections, dim=1)
    rows = arange(len(z), device=z.device)
    similarities = (z @ z.T / temperature).masked_fill(rows[:, None] == rows, float("-inf"))
    partners = rows ^ 1
    return F.cross_entropy(similarities, partners), (similarities.argmax(1) == partners).float().mean()
