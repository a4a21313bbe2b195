"""The settings of a run in its checkpoints, so that it continues with them."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class RunSettings(Callback):
    """Puts settings that neither model nor data know of into every checkpoint, the trainer's above all.

    Args:
        settings: plain values, by the section of a configuration that they come from.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint.setdefault("lightning_nas", {})["settings"] = self.settings


class LastCheckpoint(ModelCheckpoint):
    """The checkpoint of the last epoch, from which a run continues.

    It is a class of its own since a trainer keeps the states of callbacks by class and settings: so a user's plain
    ``ModelCheckpoint`` can stand beside it.
    """
