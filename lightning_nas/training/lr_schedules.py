"""The learning rate as a function of the epoch."""

import math
from abc import ABC, abstractmethod

from lightning_nas.errors import SettingError
from lightning_nas.specs import Configurable


class LRSchedule(Configurable, ABC):
    """How a learning rate changes from epoch to epoch."""

    minimum: float = 0.0

    @abstractmethod
    def factor(self, epoch: int, n_epochs: int, least: float) -> float:
        """The rate of an epoch, from 0, divided by the highest; ``least`` is ``minimum`` divided by the highest."""
        raise NotImplementedError

    def _check_minimum(self, minimum: float) -> None:
        if not minimum >= 0:
            raise SettingError(f"minimum: 0 or more, got {minimum}")
        self.minimum = minimum


class Cosine(LRSchedule):
    """A cosine over the whole training, after a linear warm-up.

    Args:
        minimum: the rate at its end, with the trainer's ``max_epochs``.
        warmup_epochs: at the start, in which the rate grows linearly.
    """

    def __init__(self, minimum: float = 0.0, warmup_epochs: int = 0) -> None:
        self._check_minimum(minimum)
        if warmup_epochs < 0:
            raise SettingError(f"warmup_epochs: 0 or more, got {warmup_epochs}")
        self.warmup_epochs = warmup_epochs

    def factor(self, epoch: int, n_epochs: int, least: float) -> float:
        if epoch < self.warmup_epochs:
            return (epoch + 1) / (self.warmup_epochs + 1)
        return _half_cosine((epoch - self.warmup_epochs) / max(1, n_epochs - self.warmup_epochs), least)


class CosineRestarts(LRSchedule):
    """A cosine that starts again, each time for twice as long (Loshchilov and Hutter 2017).

    Args:
        minimum: the rate at the end of each cosine.
        first_period: epochs to the first restart.
    """

    def __init__(self, minimum: float = 0.0, first_period: int = 10) -> None:
        self._check_minimum(minimum)
        if first_period < 1:
            raise SettingError(f"first_period: at least 1, got {first_period}")
        self.first_period = first_period

    def factor(self, epoch: int, n_epochs: int, least: float) -> float:
        doublings = int(math.log2(epoch / self.first_period + 1))
        period = self.first_period * 2**doublings
        return _half_cosine((epoch - (period - self.first_period)) / period, least)


class Exponential(LRSchedule):
    """The same rate for some epochs, then each is a part of the one before. With ``decay`` 1, a constant.

    Args:
        decay: the factor by which each later rate is smaller than the one before.
        constant_epochs: the number of epochs at the start with the same rate.
    """

    def __init__(self, decay: float = 1.0, constant_epochs: int = 0) -> None:
        if not 0 < decay <= 1:
            raise SettingError(f"decay: above 0 and up to 1, got {decay}")
        if constant_epochs < 0:
            raise SettingError(f"constant_epochs: 0 or more, got {constant_epochs}")
        self.decay, self.constant_epochs = decay, constant_epochs

    def factor(self, epoch: int, n_epochs: int, least: float) -> float:
        return self.decay ** max(0, epoch - self.constant_epochs)


class Linear(LRSchedule):
    """A straight line over the whole training.

    Args:
        minimum: the rate at its end, with the trainer's ``max_epochs``.
    """

    def __init__(self, minimum: float = 0.0) -> None:
        self._check_minimum(minimum)

    def factor(self, epoch: int, n_epochs: int, least: float) -> float:
        return 1 + (least - 1) * epoch / n_epochs


def _half_cosine(done: float, least: float) -> float:
    """From 1 to ``least``."""
    return least + (1 - least) * (1 + math.cos(math.pi * done)) / 2
