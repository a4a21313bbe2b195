"""Files and pictures of a search while it runs and when it is done."""

import inspect
import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import Any, cast

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError
from lightning_nas.files import append_rows, find_config
from lightning_nas.methods import OneShotMethod
from lightning_nas.pictures.draw import draw_architecture, draw_weights
from lightning_nas.runs.folder import RUN_FOLDER, USER_PACKAGES, RunFolder
from lightning_nas.runs.outcome import Outcome
from lightning_nas.spaces import Architecture
from lightning_nas.training.module import Module
from lightning_nas.trials.retraining import retrain_config


class ArchitectureLogger(Callback):
    """Writes what the search would return, every few epochs and at the end.

    Into the run's folder: ``architectures.csv`` with a row per epoch, ``weights.csv`` with a row per epoch, choice and
    option, and ``pictures/`` of the cells and of these weights, where the method knows its best architecture at any
    time, and in the end ``architecture.json`` with its
    drawing and the comparison with random architectures. To W&B go the same pictures and a table.

    Args:
        every_n_epochs: how often pictures are made; 0: at the end only.
        n_random: random architectures to compare with in the end, under the same shared weights; 0: none.
        retrain_config: the configuration that the next command names.
    """

    def __init__(self, every_n_epochs: int = 5, n_random: int = 20, retrain_config: str = "darts/retrain.yaml") -> None:
        if every_n_epochs < 0 or n_random < 0:
            raise SettingError("architecture_logger: every_n_epochs and n_random cannot be negative")
        find_config(retrain_config)  # a wrong name is said now and not when the search is over
        self.every_n_epochs = every_n_epochs
        self.n_random = n_random
        self.retrain_config = retrain_config
        self.rows: list[list[Any]] = []
        self.score: float | None = None  # of this epoch, if it is validated

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # the command line's, wherever loggers of the user's write; asking for theirs involves all ranks
        self.run = RunFolder(os.environ.get(RUN_FOLDER) or trainer.log_dir or trainer.default_root_dir)
        self.has_trained = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.has_trained = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _derivable(pl_module) and not trainer.sanity_checking:
            method = cast(OneShotMethod, pl_module)
            # reading a metric may average it over all ranks, so all of them have to
            self.score = float(trainer.callback_metrics[f"val/supernet_{method.task.score}"])

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not _derivable(pl_module) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        method = cast(OneShotMethod, pl_module)
        epoch, best = trainer.current_epoch, method.best()
        if best is None:
            return
        names = method.space.to_names(best)
        self.rows.append([epoch, self.score, *names.values()])
        append_rows(self.run.architectures, ["epoch", "supernet_validation_score", *names], [self.rows[-1]])
        if (weights := method.choice_weights()) is not None:
            of_options = [
                [epoch, choice.name, option, weight]
                for choice, row in zip(method.space.choices, weights, strict=True)
                for option, weight in zip(choice.options, row, strict=True)
            ]
            append_rows(self.run.weights, ["epoch", "choice", "option", "weight"], of_options)
        self.score = None
        if self.every_n_epochs and (epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, method, best, self.run.pictures, f"epoch_{epoch:03d}_")

    def _draw(
        self, trainer: Trainer, method: OneShotMethod, architecture: Architecture, folder: Path, prefix: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        caption = f"{type(method).__name__}, epoch {trainer.current_epoch}"
        weights = method.choice_weights()
        draw_architecture(method.space, architecture, folder / f"{prefix}cells.svg", caption)
        if weights is not None:
            draw_weights(method.space.choices, weights, folder / f"{prefix}weights.svg", caption)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                with tempfile.TemporaryDirectory() as temporary:
                    pictures = {"arch/cells": str(Path(temporary) / "cells.png")}
                    draw_architecture(method.space, architecture, pictures["arch/cells"], caption)
                    if weights is not None:
                        pictures["arch/weights"] = str(Path(temporary) / "weights.png")
                        draw_weights(method.space.choices, weights, pictures["arch/weights"], caption)
                    for key, path in pictures.items():
                        logger.log_image(key, [path])
                columns = ["epoch", "supernet_validation_score", *(choice.name for choice in method.space.choices)]
                logger.log_table("arch/architectures", columns=columns, data=self.rows)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, Module) or trainer.fast_dev_run or trainer.interrupted:  # type: ignore[attr-defined]
            return
        bar = trainer.progress_bar_callback
        if bar is not None:  # which would be drawn once more, below what is printed here
            bar.teardown(trainer, pl_module, "fit")
        pl_module.to(trainer.strategy.root_device)  # Lightning has moved it to the CPU, and there is more to compute
        outcome = pl_module.conclude(pl_module.data, self.run, self.n_random)
        summaries = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        for logger in summaries:
            logger.experiment.summary.update(outcome.figures)
        if summaries and os.environ.get("WANDB_MODE") == "offline":
            print(f"\nW&B          {self.run.path / 'wandb'} (an offline run; wandb sync uploads it)", end="")
        if not self.has_trained and trainer.ckpt_path:
            print(
                f"\nNothing was left to train: the checkpoint has all {trainer.max_epochs} epochs. To go on, set a "
                "larger trainer.max_epochs"
            )
        checkpoint = outcome.run.checkpoint if self.has_trained else trainer.ckpt_path
        command = self.next_command(outcome, pl_module.data, checkpoint)
        text = outcome.describe()
        print(f"{text}\n  {command}" if command else f"{text.removesuffix(':')}.")

    def next_command(self, outcome: Outcome, data: DataModule | None, checkpoint: Any = None) -> str:
        """What to type now: the retraining of what was found, on the same data, or the test of what was trained; empty
        where there is nothing to test, or to test on.

        Args:
            outcome: what the run has left.
            data: the data module that it was trained on; None: there is none.
            checkpoint: the path of what is tested; None: the run's last checkpoint.
        """
        words = ["python -m lightning_nas"]
        if data is not None and not data.rebuilds:  # no command names them
            return ""
        if outcome.next_step == "test":
            checkpoint = Path(checkpoint or outcome.run.checkpoint)
            if data is None or not (data.has_test and checkpoint.exists()):
                return ""
            return " ".join([*words, "test --ckpt_path", shlex.quote(str(checkpoint))]) + _imports()
        config = retrain_config(self.retrain_config, outcome.found.space)  # the default is for one space
        words += ["fit --config", config]
        words += ["--model.architecture", shlex.quote(str(outcome.run.architecture))]
        if data is None or data.is_empty:
            return " ".join(words) + _imports()
        configured = yaml.safe_load(Path(find_config(config)).read_text(encoding="utf-8"))
        said = configured.get("data", "")  # a name alone, or with settings
        said = said["class_path"] if isinstance(said, dict) else said
        if said.rpartition(".")[2] != type(data).__name__:
            words += ["--data", type(data).__name__]
        defaults = inspect.signature(type(data)).parameters
        for name, value in data.spec["init_args"].items():
            if value != defaults[name].default and name != "batch_size":
                words.append(f"--data.{name}={shlex.quote(json.dumps(value).strip(chr(34)))}")
        return " ".join(words) + _imports()


def _derivable(module: LightningModule) -> bool:
    return isinstance(module, Module) and module.derivable


def _imports() -> str:
    """What a next command needs to find a user's own classes again."""
    packages = os.environ.get(USER_PACKAGES, "")
    return "".join(f" --import {name}" for name in packages.split())
