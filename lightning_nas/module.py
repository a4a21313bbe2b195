"""What a search and a retraining share: plain hyper-parameters, a network that fits the data, seeded steps, carries."""

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_nas.errors import Diverged, SettingError
from lightning_nas.lr_schedules import LRSchedule
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import DropPath, Network, Space
from lightning_nas.specs import Configurable, check_arguments, class_path
from lightning_nas.tasks import Carry, Task


class Module(Configurable, LightningModule):
    """A ``LightningModule`` whose hyper-parameters are plain values, so that a checkpoint loads with
    ``weights_only=True`` and rebuilds it."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        from lightning_nas import __version__

        checkpoint["lightning_nas"] = {"class_path": class_path(type(self)), "version": __version__}
        if self.trainer.datamodule is not None and isinstance(self.trainer.datamodule, Configurable):  # type: ignore[attr-defined]
            checkpoint["lightning_nas"]["data"] = self.trainer.datamodule.spec  # type: ignore[attr-defined]


class NetworkModule(Module):
    """A module around one network, whose weights are trained by SGD.

    The network is built when the data are known: at once if ``inputs`` are given, else from the trainer's data module.
    A subclass sets ``lr``, ``lr_schedule``, ``momentum`` and ``weight_decay``.

    Args:
        space: whose network is built.
        form: of the network, ``search`` or ``final``.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        inputs: what the network must know of the data, e.g. ``{channels: 3, image_size: 32, num_classes: 10}``.
        seed: everything random in a step is seeded from it, the epoch and the step.
    """

    network: Network
    lr: float
    lr_schedule: LRSchedule
    momentum: float
    nesterov: bool = False
    weight_decay: float
    drop_path: float = 0.0
    remedy: ClassVar[str] = "lower model.lr, or set trainer.gradient_clip_val"
    """What helps where a training diverges."""

    def __init__(
        self,
        space: Space,
        form: str,
        task: Task,
        network: dict[str, Any] | None,
        inputs: dict[str, int] | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.space = space
        self.form = form
        self.task = task
        self.network_settings = check_arguments(space.network, network or {}, "network", skip={"inputs", "form"})
        self.seed = seed
        self.carries: dict[str, Carry] = {}
        self.save_hyperparameters(self.spec["init_args"])
        if inputs is not None:
            self.build_network(inputs)

    def configure_model(self) -> None:
        if hasattr(self, "network"):
            return
        inputs = getattr(self.trainer.datamodule, "inputs", None)  # type: ignore[attr-defined]
        if inputs is None:
            raise SettingError(
                "inputs: the data module does not tell them; pass the network's inputs, "
                "e.g. inputs={'channels': 3, 'image_size': 32, 'num_classes': 10}"
            )
        self.build_network(inputs)

    def build_network(self, inputs: dict[str, int]) -> None:
        """Builds the network and the metrics for data of this kind."""
        self.hparams["inputs"] = dict(inputs)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(derive_seed(self.seed, "weights"))
            self.network = self.space.network(inputs, form=self.form, **self.network_settings)
        if self.drop_path and "drop_path" not in inspect.signature(self.network.forward).parameters:
            raise SettingError(
                f"model.drop_path: networks of {type(self.space).__name__} have no paths to drop; set it to 0"
            )
        # persistent: a resumed epoch reports the mean over all of its batches
        self.train_metrics = self.task.metrics(inputs)
        self.train_metrics.persistent(True)
        self.val_metrics = self.task.metrics(inputs)
        self.test_metrics = self.task.metrics(inputs)

    @property
    def n_epochs(self) -> int:
        """Of the whole training, over which rates and probabilities change.

        Raises:
            SettingError: if the trainer has no ``max_epochs``.
        """
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise SettingError(f"trainer.max_epochs: at least 1, since the learning rate follows it; got {epochs}")
        return epochs

    def position(self) -> tuple[int, int]:
        """Epoch and step that come next."""
        loop: Any = self.trainer.fit_loop
        return loop.epoch_progress.current.processed, loop.epoch_loop.batch_progress.current.ready

    # -- steps ---------------------------------------------------------------------------------------------------------

    def loss(
        self,
        forward: Callable[..., Any],
        batch: Any,
        stream: str,
        metrics: MetricCollection | None = None,
        advance: bool = False,
    ) -> Tensor:
        """The task's loss of a network with the gates already in it; ``advance`` keeps the carry for the stream's next
        batch. Every stream has a carry of its own, so hidden states of different texts never mix."""
        loss, carry = self.task.loss(forward, batch, self.carries.get(stream), metrics)
        if advance:
            self.carries[stream] = carry
        return loss

    def dropping_paths(self, done: float) -> Callable[..., Any]:
        """The network with ScheduledDropPath, where ``done`` of the training is done."""
        if not self.drop_path:
            return self.network  # which may have no paths to drop
        return partial(self.network, drop_path=scheduled_drop_path(self.drop_path, done))

    def on_fit_start(self) -> None:
        self.carries = move_data_to_device(self.carries, self.device)  # those of a checkpoint lie on the CPU

    def on_train_epoch_start(self) -> None:
        self.train_metrics.reset()  # a checkpoint from the end of an epoch holds that epoch's

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(derive_seed(self.seed, "step", self.current_epoch, batch_idx, self.global_rank))
        scale = self.task.lr_scale(batch["weights"], self.network.inputs) if "weights" in batch else None
        if scale is not None:
            scheduler: Any = self.lr_schedulers()
            for group, lr in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = lr * scale

    def on_train_epoch_end(self) -> None:
        self.check_finite("weights", self.parameters())

    def check_finite(self, what: str, values: Iterable[Tensor]) -> None:
        """Raises ``Diverged`` if not all values are finite."""
        if not all(value.isfinite().all() for value in values):
            raise Diverged(
                f"model: the training has diverged, its {what} are not finite; {self.remedy}, and go on from the last "
                "checkpoint"
            )

    def on_validation_epoch_start(self) -> None:
        self.carries.pop("validation", None)

    def sgd(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """SGD on the network's weights, and its schedule by epochs."""
        optimizer = torch.optim.SGD(
            self.network.parameters(),
            self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )
        if self.lr_schedule.minimum > self.lr:
            raise SettingError(
                f"model.lr_schedule.minimum: from 0 to model.lr ({self.lr}), got {self.lr_schedule.minimum}"
            )
        least = self.lr_schedule.minimum / self.lr
        return optimizer, torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda epoch: self.lr_schedule.factor(epoch, self.n_epochs, least)
        )

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["carries"] = self.carries

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.carries = checkpoint["carries"]


def scheduled_drop_path(probability: float, done: float) -> DropPath:
    """ScheduledDropPath (Zoph et al. 2018, released code): grows from zero with the training and with the cell's depth.

    Args:
        probability: in the last cell at the end of training.
        done: the share of the training that is done.
    """
    return lambda depth: probability * done * depth
