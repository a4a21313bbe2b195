"""Optimisers as objects: a rule with its learning rate, how that changes, and how long a gradient may be."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from lightning_nas.errors import SettingError
from lightning_nas.specs import Configurable
from lightning_nas.training.lr_schedules import LRSchedule


class Optimizer(Configurable, ABC):
    """The settings of an optimiser; :meth:`make` makes it.

    Args:
        lr: the highest learning rate; with 0 the parameters stay as they are.
        schedule: how the rate changes from epoch to epoch; None: it is constant.
        clip: the largest norm of all gradients together, to which longer ones are shortened; None: no limit.
    """

    adjustable = frozenset({"lr", "schedule", "clip"})

    def __init__(self, lr: float, schedule: LRSchedule | None = None, clip: float | None = None) -> None:
        if not lr >= 0:
            raise SettingError(f"lr: 0 or more, got {lr}")
        if clip is not None and not clip > 0:
            raise SettingError(f"clip: above 0, or null, got {clip}")
        self.lr, self.clip = lr, clip
        self.schedule = None if schedule is None else LRSchedule.build(schedule, "schedule")
        if self.schedule is not None and self.schedule.minimum > lr:
            raise SettingError(f"schedule.minimum: from 0 to lr ({lr}), got {self.schedule.minimum}")

    @abstractmethod
    def make(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """PyTorch's optimiser of these parameters."""
        raise NotImplementedError

    def make_scheduler(self, optimizer: torch.optim.Optimizer, n_epochs: Callable[[], int]) -> LambdaLR:
        """What sets the rate at the end of every epoch.

        Args:
            optimizer: the optimiser that :meth:`make` returned.
            n_epochs: tells the number of epochs of the whole training, which is known when it begins.
        """

        def factor(epoch: int) -> float:
            if self.schedule is None:
                return 1.0
            least = self.schedule.minimum / self.lr if self.lr else 0.0
            return self.schedule.factor(epoch, n_epochs(), least)

        return LambdaLR(optimizer, factor)

    def take_effect(self, optimizer: torch.optim.Optimizer, scheduler: LambdaLR) -> None:
        """Gives these settings to an optimiser whose state comes from a checkpoint, which brought the old ones, and the
        rate that they have in the epoch of the checkpoint.

        Args:
            optimizer: one that :meth:`make` returned.
            scheduler: what :meth:`make_scheduler` returned for it.
        """
        fresh = self.make([torch.nn.Parameter(torch.empty(0))]).param_groups
        rate = self.lr * scheduler.lr_lambdas[0](scheduler.last_epoch)
        for group, new in zip(optimizer.param_groups, fresh, strict=True):
            group.update({name: value for name, value in new.items() if name != "params"})
            group.update(lr=rate, initial_lr=self.lr)
        scheduler.base_lrs = [self.lr for _ in optimizer.param_groups]
        scheduler._last_lr = [rate for _ in optimizer.param_groups]  # what ``get_last_lr`` gives


class SGD(Optimizer):
    """Stochastic gradient descent.

    Args:
        lr: the highest learning rate; with 0 the parameters stay as they are.
        momentum: the share of the last step that the next one keeps.
        nesterov: whether the gradient is taken where the momentum leads (Nesterov).
        weight_decay: the multiple of the weights that is added to their gradient.
        schedule: how the rate changes from epoch to epoch; None: it is constant.
        clip: the largest norm of all gradients together, to which longer ones are shortened; None: no limit.
        decay_vectors: whether weight decay holds for biases and for what BatchNorm learns, too.
    """

    adjustable = Optimizer.adjustable | {"momentum", "nesterov", "weight_decay"}

    def __init__(
        self,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        schedule: LRSchedule | None = None,
        clip: float | None = None,
        decay_vectors: bool = True,
    ) -> None:
        super().__init__(lr, schedule, clip)
        _share("momentum", momentum)
        _decay(weight_decay)
        if nesterov and not momentum:
            raise SettingError("nesterov: needs a momentum above 0")
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self.decay_vectors = decay_vectors

    def make(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [{"params": list(parameters)}]
        if not self.decay_vectors:
            vectors = [parameter for parameter in groups[0]["params"] if parameter.ndim < 2]
            groups[0]["params"] = [parameter for parameter in groups[0]["params"] if parameter.ndim > 1]
            groups.append({"params": vectors, "weight_decay": 0.0})
        return torch.optim.SGD(
            groups, self.lr, momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay
        )


class RMSprop(Optimizer):
    """Gradients divided by a moving root of their mean square (Hinton), the optimiser of NASNet and AmoebaNet.

    Args:
        lr: the highest learning rate; with 0 the parameters stay as they are.
        alpha: the decay of the moving mean square.
        eps: a number that is added to the root.
        momentum: the share of the last step that the next one keeps.
        weight_decay: the multiple of the weights that is added to their gradient.
        schedule: how the rate changes from epoch to epoch; None: it is constant.
        clip: the largest norm of all gradients together, to which longer ones are shortened; None: no limit.
    """

    adjustable = Optimizer.adjustable | {"alpha", "eps", "weight_decay"}  # momentum: its state may not be there

    def __init__(
        self,
        lr: float,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        schedule: LRSchedule | None = None,
        clip: float | None = None,
    ) -> None:
        super().__init__(lr, schedule, clip)
        _share("alpha", alpha)
        _share("momentum", momentum)
        _decay(weight_decay)
        _eps(eps)
        self.alpha, self.eps, self.momentum, self.weight_decay = alpha, eps, momentum, weight_decay

    def make(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(
            parameters, self.lr, self.alpha, self.eps, momentum=self.momentum, weight_decay=self.weight_decay
        )


class _AdaptiveMoments(Optimizer):
    """What both kinds of Adam share: moving averages of gradients and of their squares."""

    adjustable = Optimizer.adjustable | {"betas", "eps", "weight_decay"}

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        schedule: LRSchedule | None = None,
        clip: float | None = None,
    ) -> None:
        super().__init__(lr, schedule, clip)
        for k, beta in enumerate(betas):
            _share(f"betas[{k}]", beta)
        _decay(weight_decay)
        _eps(eps)
        self.betas = (betas[0], betas[1])
        self.eps, self.weight_decay = eps, weight_decay


class Adam(_AdaptiveMoments):
    """Adam (Kingma and Ba 2015).

    Args:
        lr: the highest learning rate; with 0 the parameters stay as they are.
        betas: the decays of the moving averages of gradients and of their squares.
        eps: a number that is added to the root of the average of squares.
        weight_decay: the multiple of the weights that is added to their gradient.
        schedule: how the rate changes from epoch to epoch; None: it is constant.
        clip: the largest norm of all gradients together, to which longer ones are shortened; None: no limit.
    """

    def make(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, self.lr, self.betas, self.eps, self.weight_decay)


class AdamW(_AdaptiveMoments):
    """Adam whose weight decay shrinks the weights directly, apart from the gradient (Loshchilov and Hutter 2019).

    Args:
        lr: the highest learning rate; with 0 the parameters stay as they are.
        betas: the decays of the moving averages of gradients and of their squares.
        eps: a number that is added to the root of the average of squares.
        weight_decay: the share, times the rate, by which a step shrinks the weights.
        schedule: how the rate changes from epoch to epoch; None: it is constant.
        clip: the largest norm of all gradients together, to which longer ones are shortened; None: no limit.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        schedule: LRSchedule | None = None,
        clip: float | None = None,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, schedule, clip)

    def make(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, self.lr, self.betas, self.eps, self.weight_decay)


def _share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise SettingError(f"{name}: from 0 to below 1, got {value}")


def _decay(value: float) -> None:
    if not value >= 0:
        raise SettingError(f"weight_decay: 0 or more, got {value}")


def _eps(value: float) -> None:
    if not value > 0:
        raise SettingError(f"eps: above 0, got {value}")
