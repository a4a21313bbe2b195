"""Training one architecture from scratch: what the figures of a paper are measured on."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor

from lightning_nas.architecture import load_architecture
from lightning_nas.data import DataModule, Schedule
from lightning_nas.errors import SettingError
from lightning_nas.lr_schedules import Cosine, LRSchedule
from lightning_nas.module import NetworkModule
from lightning_nas.tasks import Task


class Retrain(NetworkModule):
    """Trains the network of an architecture from new weights by SGD, the learning rate annealed by a cosine after a
    linear warm-up. With the defaults, the evaluation phase of Liu et al. 2019.

    Clipping, accumulation and precision are the trainer's own settings, an average of the weights is Lightning's
    ``EMAWeightAveraging`` callback, label smoothing and the auxiliary head's weight are the task's, cutout is the
    data's.

    Args:
        architecture: the path of an ``architecture.json``, or the name of a published architecture.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels``, ``cells`` and ``auxiliary``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: of everything random in the training.
        train_on: ``all`` training images, as papers do, without validation; or the ``weights`` part alone, validated on
            the architecture part, to tune settings without touching the test part.
        lr: of SGD at its highest.
        lr_schedule: how it changes; None: a cosine to 0.
        momentum: of SGD.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: of SGD.
        drop_path: the probability to drop a path at the end.
        drop_path_schedule: ``linear``: from zero with the epochs, the same in all cells (DARTS); ``scheduled``: from
            zero with the steps, times the cell's depth, so that the last cell drops most (NASNet's ScheduledDropPath).
    """

    def __init__(
        self,
        architecture: str | dict[str, Any],
        task: Task,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        seed: int = 0,
        train_on: Literal["all", "weights"] = "all",
        lr: float = 0.025,
        lr_schedule: LRSchedule | None = None,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 3e-4,
        drop_path: float = 0.2,
        drop_path_schedule: Literal["linear", "scheduled"] = "linear",
    ) -> None:
        if train_on not in ("all", "weights"):
            raise SettingError(f"model.train_on: all or weights, got {train_on!r}")
        if not 0 <= drop_path < 1:
            raise SettingError(f"model.drop_path: from 0 to below 1, got {drop_path}")
        if drop_path_schedule not in ("linear", "scheduled"):
            raise SettingError(f"model.drop_path_schedule: linear or scheduled, got {drop_path_schedule!r}")
        if lr <= 0:
            raise SettingError(f"model.lr: above 0, got {lr}")
        if nesterov and not momentum:
            raise SettingError("model.nesterov: needs model.momentum above 0")
        self.found = load_architecture(architecture)
        self._init_args["architecture"] = self.found.to_dict()  # the checkpoint holds the content, not a path
        space = self.found.space.restrict(self.found.architecture)
        super().__init__(space, "final", Task.build(task), network, inputs, seed)
        self.train_on = train_on
        self.lr, self.lr_schedule = lr, LRSchedule.build(lr_schedule or Cosine())
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self.drop_path, self.drop_path_schedule = drop_path, drop_path_schedule

    @property
    def validation_part(self) -> str | None:
        return None if self.train_on == "all" else "architecture"

    def schedule(self, data: DataModule) -> Schedule:
        """A pass over the training images per epoch."""
        stream = data.stream("train" if self.train_on == "all" else "weights", self.seed)
        return Schedule({"weights": stream}, len(stream), self.position, num_workers=data.num_workers)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = self.loss(self.with_drop_path(batch_idx), batch["weights"], "weights", self.train_metrics, advance=True)
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/{k}": v for k, v in self.train_metrics.items()}, on_step=False, on_epoch=True)
        return loss

    def with_drop_path(self, batch_idx: int) -> Callable[..., Any]:
        """The network with drop-path as it is at this step of the epoch."""
        if self.drop_path and self.drop_path_schedule == "linear":
            return partial(self.network, drop_path=self.drop_path * self.current_epoch / self.n_epochs)
        done = (self.current_epoch + batch_idx / self.trainer.num_training_batches) / self.n_epochs
        return self.dropping_paths(done)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss = self.loss(self.network, batch, "validation", self.val_metrics, advance=True)
        self.log("val/loss", loss, sync_dist=True)
        self.log_dict({f"val/{name}": metric for name, metric in self.val_metrics.items()}, prog_bar=True)

    def on_test_epoch_start(self) -> None:
        self.carries.pop("test", None)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.loss(self.network, batch, "test", self.test_metrics, advance=True)
        self.log_dict({f"test/{name}": metric for name, metric in self.test_metrics.items()})

    def on_test_epoch_end(self) -> None:
        from lightning_nas.analysis.profile import profile

        figures = profile(self.network, self.network.example())
        self.log_dict({"n_params": float(figures.n_params), "flops": float(figures.flops)})

    def configure_optimizers(self) -> Any:
        weights, schedule = self.sgd()
        return [weights], [schedule]
