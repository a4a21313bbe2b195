"""Lightning without files or output, and networks trained by one recipe to stand beside each other."""

import logging
import time
from typing import Any

import lightning.pytorch as pl
from torch import nn

from lightning_nas.data import DataModule
from lightning_nas.training.retrain import Retrain

HEADER = f"{'network':44}{'parameters':>12}{'lr':>8}{'seed':>6}{'validation':>12}{'test':>10}{'minutes':>9}"


def quiet_trainer(accelerator: str, **settings: Any) -> pl.Trainer:
    """A trainer that writes and prints nothing, on one device, for one epoch if ``settings`` do not say otherwise."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return pl.Trainer(accelerator=accelerator, devices=1, **({"max_epochs": 1} | quiet | settings))


def trained(name: str, module: Retrain, data: DataModule, trainer: pl.Trainer, metric: str, digits: int) -> str:
    """Trains and tests a network: its line, of name, parameters, learning rate, seed, validation, test and minutes."""
    start = time.time()
    trainer.fit(module, data)
    validation = float(trainer.callback_metrics[f"val/{metric}"])
    (figures,) = trainer.test(module, data, verbose=False)
    test, minutes = figures[f"test/{metric}"], (time.time() - start) / 60
    settings = f"{count(module.network):12,}{module.optimizer.lr:8}{module.seed:6}"
    return f"{name[-44:]:44}{settings}{validation:12.{digits}f}{test:10.{digits}f}{minutes:9.1f}"


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
