"""``Task``: what a batch costs and how it is scored. A task is pure: it knows neither spaces nor methods."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor
from torchmetrics import MetricCollection

from lightning_nas.objectives import Mode, Objective
from lightning_nas.specs import Configurable

Carry = Any
"""What a recurrent network hands from one batch of a stream to the next; None for images."""


class Task(Configurable, ABC):
    """A loss and metrics.

    Attributes:
        score: the name of the metric that decides between architectures.
        mode: ``max`` if a higher score is better, else ``min``.
        modality: what its batches are, ``images`` or ``text``; None: anything, which is not checked.
    """

    score: str
    mode: Mode
    modality: ClassVar[str | None] = None

    @property
    def objective(self) -> Objective:
        """What a search wants of this task."""
        return Objective(self.score, self.mode)

    @abstractmethod
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

    @abstractmethod
    def reward(self, forward: Callable[..., Any], batch: Any, carry: Carry = None) -> tuple[Tensor, Carry]:
        """What a controller gets for one batch, a number without gradient, higher is better; and the carry after it."""
        raise NotImplementedError

    def lr_scale(self, batch: Any, inputs: dict[str, int]) -> float | None:
        """By how much the learning rate is multiplied for a step on this batch; None: it does not depend on batches."""
        return None

    @abstractmethod
    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        """The metrics for data of this kind; over the batches of all ranks, or of this one alone."""
        raise NotImplementedError
