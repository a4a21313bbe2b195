"""``Task``: what a batch costs and how it is scored. A task is pure: it knows neither spaces nor methods."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_nas.objectives import Mode, Objective
from lightning_nas.specs import Configurable

Carry = Any
"""What a recurrent network hands from one batch of a stream to the next; None for images."""


class Task(Configurable, ABC):
    """A loss and metrics.

    Whoever trains the network also keeps what the task needs beside it: the :meth:`modules` that it trains, and the
    networks of :attr:`teachers`. The loss gets both by name, so that a task itself holds settings alone.

    Attributes:
        score: the name of the metric that decides between architectures.
        mode: ``max`` if a higher score is better, else ``min``.
        modality: what its batches are, ``images`` or ``text``; None: anything, which is not checked.
        views: the number of independently augmented views of each example that it reads.
        labelled: whether it reads labels; without, a batch is the examples alone.
        batch: what a batch has to be, as messages say it of one that cannot be read; empty: nothing is said.
    """

    score: str
    mode: Mode
    modality: ClassVar[str | None] = None
    views: int = 1
    labelled: bool = True
    batch: ClassVar[str] = ""

    @property
    def objective(self) -> Objective:
        """What a search wants of this task."""
        return Objective(self.score, self.mode)

    @property
    def reads(self) -> dict[str, Any]:
        """What it asks of the data beyond one view of each example with its label, as arguments of their streams."""
        views = {"views": self.views} if self.views != 1 else {}
        return views if self.labelled else views | {"labelled": False}

    @property
    def teachers(self) -> Mapping[str, str]:
        """The paths of checkpoints of retrainings whose networks the loss asks in training, by the name under which it
        gets each. They are there in training alone, in evaluation mode and without gradients, and no checkpoint holds
        them."""
        return {}

    def network_inputs(self, inputs: dict[str, int]) -> dict[str, int]:
        """What the network is built for, given what the data are like."""
        return inputs

    def modules(self, inputs: dict[str, int]) -> dict[str, nn.Module]:
        """New modules that the loss calls beside the network, by the name under which it gets each.

        They are kept in checkpoints, and trained with the network as far as their parameters require gradients.

        Args:
            inputs: what the network was built for, from :meth:`network_inputs`.
        """
        return {}

    @abstractmethod
    def loss(
        self, forward: Callable[..., Any], batch: Any, carry: Carry = None, metrics: MetricCollection | None = None
    ) -> tuple[Tensor, Carry]:
        """The mean loss of a batch, and the carry after it.

        A task with :meth:`modules` or :attr:`teachers` takes each as one more argument of its name, None by default.

        Args:
            forward: the network with the gates already in it. In training a network that was built with an auxiliary
                head returns a pair, ``(logits, auxiliary logits)``.
            batch: one batch of the data module.
            carry: the stream's carry so far.
            metrics: from :meth:`metrics`; updated with this batch where given.
        """
        raise NotImplementedError

    def check_output(self, output: Any, inputs: dict[str, int]) -> None:
        """Refuses a network whose outputs it could not read, as far as that is seen before a training.

        Args:
            output: what the network puts out for two examples.
            inputs: what the network was built for.

        Raises:
            SettingError: beginning with the field ``space``, and saying what is needed.
        """

    def reward(
        self, forward: Callable[..., Any], batch: Any, carry: Carry = None, *_: Any, **modules: Any
    ) -> tuple[Tensor, Carry]:
        """What a controller gets for one batch, a number without gradient, higher is better; and the carry after it.

        By default −loss. It takes the :meth:`modules` as :meth:`loss` does."""
        loss, carry = self.loss(forward, batch, carry, **modules)
        return -loss.detach(), carry

    def lr_scale(self, batch: Any, inputs: dict[str, int]) -> float | None:
        """By how much the learning rate is multiplied for a step on this batch; None: it does not depend on batches."""
        return None

    @abstractmethod
    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        """The metrics for data of this kind; over the batches of all ranks, or of this one alone."""
        raise NotImplementedError
