"""Training one architecture from scratch: what the figures of a paper are measured on."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_nas.architecture import load_architecture
from lightning_nas.data import DataModule, Schedule
from lightning_nas.errors import SettingError
from lightning_nas.module import NetworkModule
from lightning_nas.tasks import Task


class Retrain(NetworkModule):
    """Trains the network of an architecture from new weights, as Liu et al. 2019 did (their evaluation phase).

    Clip gradients, accumulate them and choose precision by the trainer's own settings.

    Args:
        architecture: the path of an ``architecture.json``, or the name of a published architecture.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels``, ``cells`` and ``auxiliary``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: of everything random in the training.
        train_on: ``all`` training images, as papers do, without validation; or the ``weights`` part alone, validated on
            the architecture part, to tune settings without touching the test part.
        lr: of SGD, annealed to zero by a cosine over the trainer's ``max_epochs``.
        momentum: of SGD.
        weight_decay: of SGD.
        drop_path: the probability to drop a path at the end; it grows linearly from zero.
    """

    def __init__(
        self,
        architecture: str | dict[str, Any],
        task: Task,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        seed: int = 0,
        train_on: str = "all",
        lr: float = 0.025,
        momentum: float = 0.9,
        weight_decay: float = 3e-4,
        drop_path: float = 0.2,
    ) -> None:
        if train_on not in ("all", "weights"):
            raise SettingError(f"model.train_on: all or weights, got {train_on!r}")
        if not 0 <= drop_path < 1:
            raise SettingError(f"model.drop_path: between 0 and 1, got {drop_path}")
        self.found = load_architecture(architecture)
        self._init_args["architecture"] = self.found.to_dict()  # the checkpoint holds the content, not a path
        space = self.found.space.restrict(self.found.architecture)
        super().__init__(space, "final", Task.build(task), network, inputs, seed)
        self.train_on = train_on
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.drop_path = drop_path

    @property
    def validation_part(self) -> str | None:
        return None if self.train_on == "all" else "architecture"

    def schedule(self, data: DataModule) -> Schedule:
        """A pass over the training images per epoch."""
        stream = data.stream("train" if self.train_on == "all" else "weights", self.seed)
        return Schedule({"weights": stream}, len(stream), self.position, num_workers=data.num_workers)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        probability = self.drop_path * self.current_epoch / max(1, self.trainer.max_epochs or 1)
        forward = partial(self.network, drop_path=probability)
        loss, _ = self.task.loss(forward, batch["weights"], None, self.train_metrics)
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/{k}": v for k, v in self.train_metrics.items()}, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss, _ = self.task.loss(self.network, batch, None, self.val_metrics)
        self.log("val/loss", loss, sync_dist=True)
        self.log_dict({f"val/{name}": metric for name, metric in self.val_metrics.items()}, prog_bar=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.task.loss(self.network, batch, None, self.test_metrics)
        self.log_dict({f"test/{name}": metric for name, metric in self.test_metrics.items()})

    def on_test_epoch_end(self) -> None:
        from lightning_nas.analysis.profile import profile

        figures = profile(self.network, self.network.example())
        self.log_dict({"n_params": float(figures.n_params), "flops": float(figures.flops)})

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(
            self.network.parameters(), self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )
        epochs = max(1, self.trainer.max_epochs or 1)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)]
