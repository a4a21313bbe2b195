"""What a search and a retraining share: plain hyper-parameters, a network that fits the data, seeded steps, carries."""

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_nas.data import DataModule
from lightning_nas.errors import Diverged, SettingError
from lightning_nas.runs.folder import RunFolder
from lightning_nas.runs.outcome import Outcome
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Network, Space
from lightning_nas.specs import Configurable, check_arguments, class_path
from lightning_nas.tasks import Carry, Task
from lightning_nas.training.drop_path import DropPathSchedule, drop_path_at
from lightning_nas.training.optimizers import Optimizer, Scheduler


class Module(Configurable, LightningModule):
    """A ``LightningModule`` whose hyper-parameters are plain values, so that a checkpoint loads with
    ``weights_only=True`` and rebuilds it."""

    job: ClassVar[Literal["search", "retrain"]] = "retrain"
    """What kind of run it makes, for W&B."""

    derivable: ClassVar[bool] = False
    """Whether its checkpoint has an architecture to derive."""

    has_network: ClassVar[bool] = True
    """Whether it has layers, which can be summarised and validated."""

    @property
    def name(self) -> str:
        """What the run is called in files and pictures."""
        return type(self).__name__

    def conclude(self, data: DataModule, run: RunFolder, n_random: int) -> Outcome:
        """Writes what the finished run leaves behind, and returns it.

        Args:
            data: the data module that it was trained on.
            run: the folder where it writes.
            n_random: how many random architectures a search in shared weights is compared with.
        """
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        from lightning_nas import __version__

        checkpoint["lightning_nas"] = {"class_path": class_path(type(self)), "version": __version__}
        if self.trainer.datamodule is not None and isinstance(self.trainer.datamodule, Configurable):  # type: ignore[attr-defined]
            checkpoint["lightning_nas"]["data"] = self.trainer.datamodule.spec  # type: ignore[attr-defined]


class NetworkModule(Module):
    """A module around one network, whose weights are trained by SGD.

    The network is built when the data are known: at once if ``inputs`` are given, else from the trainer's data module.
    A subclass sets ``optimizer``.

    Args:
        space: whose network is built.
        form: the form of the network, ``search`` or ``final``.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        inputs: what the network must know of the data, e.g. ``{channels: 3, image_size: 32, num_classes: 10}``.
        seed: everything random in a step is seeded from it, the epoch and the step.
    """

    network: Network
    optimizer: Optimizer
    drop_path: float = 0.0
    drop_path_schedule: DropPathSchedule = "scheduled"
    remedy: ClassVar[str] = "lower the optimizer's lr, or set its clip"
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
            raise SettingError(f"drop_path: networks of {type(self.space).__name__} have no paths to drop; set it to 0")
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

    def dropping_paths(self, share_of_epoch: float) -> Callable[..., Any]:
        """The network with drop-path as it is now, where so much of the current epoch is done."""
        if not self.drop_path:
            return self.network  # which may have no paths to drop
        epoch = self.current_epoch + share_of_epoch
        return partial(
            self.network, drop_path=drop_path_at(self.drop_path, self.drop_path_schedule, epoch, self.n_epochs)
        )

    def on_fit_start(self) -> None:
        self.carries = move_data_to_device(self.carries, self.device)  # those of a checkpoint lie on the CPU

    def on_train_epoch_start(self) -> None:
        self.train_metrics.reset()  # a checkpoint from the end of an epoch holds that epoch's

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(derive_seed(self.seed, "step", self.current_epoch, batch_idx, self.global_rank))
        scale = self.task.lr_scale(batch["weights"], self.network.inputs) if "weights" in batch else None
        if scale is not None:
            scheduler = self.schedulers()[0]
            for group, lr in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = lr * scale

    def on_train_epoch_end(self) -> None:
        self.check_finite("weights", self.parameters())

    def check_finite(self, what: str, values: Iterable[Tensor]) -> None:
        """Raises ``Diverged`` if not all values are finite."""
        if not all(value.isfinite().all() for value in values):
            raise Diverged(
                f"the training has diverged, its {what} are not finite; {self.remedy}, and continue from the last "
                "checkpoint"
            )

    def on_validation_epoch_start(self) -> None:
        self.carries.pop("validation", None)

    def optimized(
        self, *sides: tuple[Optimizer, Iterable[Tensor]]
    ) -> tuple[list[torch.optim.Optimizer], list[Scheduler]]:
        """Optimisers of parameters, and what changes their rates; the network's weights come first."""
        optimizers = [settings.make(parameters) for settings, parameters in sides]
        schedulers = [
            settings.make_scheduler(optimizer, lambda: self.n_epochs)
            for (settings, _), optimizer in zip(sides, optimizers, strict=True)
        ]
        return optimizers, schedulers

    def schedulers(self) -> list[Any]:
        """What changes the rates of the optimisers, in their order."""
        schedulers = self.lr_schedulers()
        return schedulers if isinstance(schedulers, list) else [schedulers]

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["carries"] = self.carries

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.carries = checkpoint["carries"]
