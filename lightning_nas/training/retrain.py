"""Training one architecture: from scratch, which the figures of a paper are measured on, or from weights that are
there."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lightning_nas.data import DataModule, Schedule
from lightning_nas.errors import SettingError
from lightning_nas.runs.folder import RunFolder
from lightning_nas.runs.outcome import Outcome
from lightning_nas.spaces.architecture_file import ArchitectureRecord, load_architecture
from lightning_nas.tasks import Task
from lightning_nas.training.drop_path import DropPathSchedule
from lightning_nas.training.inheritance import inherit, state_of
from lightning_nas.training.lr_schedules import Cosine
from lightning_nas.training.module import NetworkModule
from lightning_nas.training.optimizers import SGD, Optimizer

if TYPE_CHECKING:
    Given = str | dict[str, Any] | ArchitectureRecord
else:  # for the command line, which would read a file as the fields of a record
    Given = str | dict[str, Any]


class Retrain(NetworkModule):
    """Trains the network of an architecture, from new weights or from inherited ones. With the defaults, the evaluation
    phase of Liu et al. 2019.

    Example::

        import lightning.pytorch as pl
        from lightning_nas import Digits, ImageClassification, Retrain

        data, module = Digits(), Retrain("darts_v2", ImageClassification(), {"channels": 4, "cells": 3})
        trainer = pl.Trainer(max_epochs=10)
        trainer.fit(module, data)
        trainer.test(module, data)
        logits = trainer.predict(module, data)

    Accumulation and precision are the trainer's own settings, an average of the weights is Lightning's
    ``EMAWeightAveraging`` callback, label smoothing and the auxiliary head's weight are the task's, cutout is the
    data's.

    Args:
        architecture: the path of an ``architecture.json``, the name of a published architecture, or a record of one
            such as ``ArchitectureRecord(search.space, search.best())``.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels``, ``cells`` and ``auxiliary``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: the seed of everything random in the training.
        train_on: ``all`` training images, as papers do, without validation unless a set for it is handed over; or the
            ``weights`` part alone, validated on the architecture part, to tune settings without touching the test part.
        optimizer: what trains the weights; None: SGD from .025 by a cosine to 0, momentum .9, weight decay 3e-4.
        drop_path: the probability to drop a path at the end; None: .2, or 0 where the network has no paths to drop.
        drop_path_schedule: ``linear``: from zero with the epochs, the same in all cells (DARTS); ``scheduled``: from
            zero with the steps, times the cell's depth, so that the last cell drops most (NASNet's ScheduledDropPath).
        initial: the path of a checkpoint whose weights the training begins with, as far as their names and shapes are
            the same: of a search in one network that has the architecture in its space, or of another retraining of
            the architecture. None: all weights are new. A run that continues does not read it again.
    """

    usual_drop_path = 0.2
    adjustable = frozenset({"drop_path", "drop_path_schedule"})

    def __init__(
        self,
        architecture: Given,
        task: Task,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        seed: int = 0,
        train_on: Literal["all", "weights"] = "all",
        optimizer: Optimizer | None = None,
        drop_path: float | None = None,
        drop_path_schedule: DropPathSchedule = "linear",
        initial: str | None = None,
    ) -> None:
        if train_on not in ("all", "weights"):
            raise SettingError(f"train_on: all or weights, got {train_on!r}")
        if drop_path is not None and not 0 <= drop_path < 1:
            raise SettingError(f"drop_path: from 0 to below 1, got {drop_path}")
        if drop_path_schedule not in get_args(DropPathSchedule):
            raise SettingError(f"drop_path_schedule: linear or scheduled, got {drop_path_schedule!r}")
        self.found = load_architecture(architecture)
        self._init_args["architecture"] = self.found.to_dict()  # the checkpoint holds the content, not a path
        space = self.found.space.restrict(self.found.architecture)
        super().__init__(space, "final", Task.build(task, "task"), network, inputs, seed)
        self.train_on = train_on
        self.optimizer = self.recorded(
            "optimizer", optimizer or SGD(0.025, momentum=0.9, weight_decay=3e-4, schedule=Cosine())
        )
        self.drop_path, self.drop_path_schedule = drop_path, drop_path_schedule
        self.initial = initial
        self._has_inherited = False

    def on_fit_start(self) -> None:
        super().on_fit_start()
        # a checkpoint is restored by now, and then it is known that there is one
        if self.initial is not None and not self.trainer.ckpt_path and not self._has_inherited:
            rank_zero_info(inherit(self.network, self.initial, self.found))
            self._has_inherited = True

    @property
    def validation_part(self) -> str | None:
        return "architecture" if self.train_on == "weights" or getattr(self.data, "holds_out", False) else None

    def schedule(self, data: DataModule) -> Schedule:
        """A pass over the training images per epoch."""
        stream = self.stream(data, "train" if self.train_on == "all" else "weights")
        return Schedule({"weights": stream}, len(stream), self.position, num_workers=data.num_workers)

    @property
    def figures(self) -> list[str]:
        validated = [f"val/{name}" for name in ("loss", *self.metric_names)] if self.validates else []
        return [*super().figures, *validated]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        network = self.dropping_paths(batch_idx / self.trainer.num_training_batches)
        loss = self.loss(network, batch["weights"], "weights", self.train_metrics, advance=True)
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/{k}": v for k, v in self.train_metrics.items()}, on_step=False, on_epoch=True)
        return loss

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
        from lightning_nas.costs.profile import profile

        figures = profile(self.network, self.network.example())
        self.log_dict({"n_params": float(figures.n_params), "flops": float(figures.flops)})

    def configure_optimizers(self) -> Any:
        optimizers, schedulers = self.optimized((self.optimizer, self.trained))
        return optimizers, schedulers

    def check(self, trainer: Trainer, data: Any, checkpoint: str | Path | None = None) -> None:
        super().check(trainer, data, checkpoint)
        if self.optimizer.clip is not None and trainer.gradient_clip_val is not None:
            raise SettingError(
                "trainer.gradient_clip_val: the optimizer has a clip of its own; set model.optimizer.clip"
            )
        if self.initial is not None and checkpoint is None and not self.fits:  # a fit tells only later if it continues
            state_of(self.initial, self.found)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        limit = gradient_clip_val if self.optimizer.clip is None else self.optimizer.clip
        self.clip_gradients(optimizer, limit, gradient_clip_algorithm)

    def conclude(self, data: DataModule, run: RunFolder, n_random: int) -> Outcome:
        """Writes the architecture that was trained, and its drawing."""
        outcome = RetrainOutcome(self.found, run)
        outcome.write()
        return outcome


@dataclasses.dataclass(frozen=True)
class RetrainOutcome(Outcome):
    """What a retraining leaves: the architecture that it trained."""

    next_step: str = "test"

    def describe(self) -> str:
        return "\nTrained. The figure to report is the test part's, taken once:"
