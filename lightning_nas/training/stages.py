"""Stages: a fit that begins again, with another network, at the start of some of its epochs.

A stage has a network of new weights, new optimisers, and rates that run over its own epochs. The trainer sees one fit:
epochs, batches and files go on. What a stage begins with follows from the module at the end of the stage before, so a
checkpoint holds the number of the stage and its space, and every checkpoint loads alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Space
from lightning_nas.specs import check_arguments
from lightning_nas.training import checks
from lightning_nas.training.module import NetworkModule


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a stage of a fit has of its own.

    Attributes:
        epochs: the number of its epochs.
        network: the settings of its network that the module's settings do not have, or have otherwise, by name.
    """

    epochs: int
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Staged(NetworkModule):
    """A module whose fit has stages.

    A subclass stands before the class that it stages (``class PDARTS(Staged, DifferentiableMethod)``), and calls
    :meth:`in_stages` once the rest of it is made. It overrides :meth:`next_stage` where a stage has another space than
    the one before, and :meth:`enter` for what it owns besides the network.

    Attributes:
        stages: the stages in their order.
        stage: the number of the current stage, from 0.
    """

    stages: Sequence[Stage]
    stage: int = 0

    refused_in_stages: ClassVar[dict[str, str]] = {
        "WeightAveraging": "averages the weights of the first stage, which the others do not have; leave it out",
        "EarlyStopping": "would end the training before its last stage; leave it out",
    }
    """Callbacks that are refused besides those that the class refuses without stages."""

    def in_stages(self, stages: Sequence[Stage]) -> None:
        """Makes the fit one of these stages, and begins the first.

        Args:
            stages: at least one stage, in their order.

        Raises:
            SettingError: if a stage has no epoch, or its network a setting that the space does not know.
        """
        for stage in stages:
            if stage.epochs < 1:
                raise SettingError(f"epochs: at least 1 in every stage, got {stage.epochs}")
            check_arguments(self.space.network, dict(stage.network), "stages", skip={"inputs", "form"})
        self.stages, self._common = stages, self.network_settings
        self.enter(0, self.space)

    def next_stage(self) -> None:
        """Enters the stage after the current one, which has ended; a subclass says in which space."""
        self.enter(self.stage + 1, self.space)

    def enter(self, number: int, space: Space) -> None:
        """Becomes the module of a stage, as it is when the stage begins.

        Args:
            number: the number of the stage, from 0.
            space: the space of the stage.
        """
        self.stage, self.space = number, space
        self.network_settings = {**self._common, **self.stages[number].network}
        if hasattr(self, "network"):
            self.network = self.new_network(self.hparams["inputs"])

    # -- the fit -----------------------------------------------------------------------------------------------------

    def check(self, trainer: Trainer, data: Any, checkpoint: str | Path | None = None) -> None:
        super().check(trainer, data, checkpoint)
        checks.check_callbacks(trainer.callbacks, self.refused_in_stages)  # type: ignore[attr-defined]
        epochs = [stage.epochs for stage in self.stages]
        if trainer.max_epochs != sum(epochs) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise SettingError(
                f"trainer.max_epochs: {sum(epochs)}, which is {' + '.join(map(str, epochs))} epochs of the stages, got "
                f"{trainer.max_epochs}"
            )

    @property
    def n_epochs(self) -> int:
        """The epochs of the stage, over which rates and probabilities change."""
        return self.stages[self.stage].epochs

    @property
    def epoch(self) -> int:
        """The epoch of the stage, from 0."""
        return self.current_epoch - sum(stage.epochs for stage in self.stages[: self.stage])

    @property
    def weights_purpose(self) -> tuple[int | str, ...]:
        return (*super().weights_purpose, *([self.stage] if self.stage else []))

    @property
    def figures(self) -> list[str]:
        return [*super().figures, "train/stage"]

    def on_train_epoch_start(self) -> None:
        if self.epoch == self.n_epochs:
            self.next_stage()
            self.trainer.strategy.connect(self)  # as a new fit: to the device, to the other ranks, with optimisers
            self.trainer.strategy.setup(self.trainer)
            count = sum(parameter.numel() for parameter in self.network.parameters())
            own = "".join(f"{name} {value}, " for name, value in self.stages[self.stage].network.items())
            rank_zero_info(f"Stage {self.stage + 1} of {len(self.stages)}: {own}{count:,} parameters")
        super().on_train_epoch_start()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.log("train/stage", float(self.stage + 1), sync_dist=True)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["stage"] = {"number": self.stage, "space": self.space.spec}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint["stage"]
        self.enter(saved["number"], Space.build(saved["space"]))
