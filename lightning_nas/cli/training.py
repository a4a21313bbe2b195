"""The commands that train, on ``LightningCLI``: fit, validate, test, derive."""

import inspect
import logging
import netrc
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from lightning_nas.callbacks import ArchitectureLogger, Interruption
from lightning_nas.callbacks.run_settings import LastCheckpoint, RunSettings
from lightning_nas.callbacks.summary import Summary
from lightning_nas.catalogue import KINDS, kind_of
from lightning_nas.cli.lightning_adapter import LightningAdapter
from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError, one_line
from lightning_nas.methods import OneShotMethod
from lightning_nas.objectives import Objective
from lightning_nas.runs.folder import CHECKPOINT, RUN_FOLDER, RunFolder
from lightning_nas.specs import find_class, subclasses
from lightning_nas.training.checkpoints import restore
from lightning_nas.training.checks import check_callbacks, check_continued, check_trainer_settings
from lightning_nas.training.module import Module

ALWAYS_THERE = {
    "ArchitectureLogger": "is there already; its settings are architecture_logger",
    "Interruption": "is there already",
    "LastCheckpoint": "is there already; for more checkpoints add a ModelCheckpoint",
    "RunSettings": "is there already",
}
"""Callbacks of every run on the command line, which are not asked for once more."""

WITHOUT_STEPS = {
    "ModelCheckpoint": "saves after steps of an optimizer, and a search of trials has none; last.ckpt and trials.jsonl "
    "are there without it"
}
"""What is said on the command line of callbacks of a search of trials."""


class Trainer(pl.Trainer):
    """Lightning's trainer, and one more thing to do with a search: derive."""

    def derive(
        self,
        model: OneShotMethod,
        datamodule: DataModule,
        ckpt_path: str,
        n_random: int = 20,
        folder: str | None = None,
        max_params: float | None = None,
        max_flops: float | None = None,
        max_multiply_adds: float | None = None,
    ) -> None:
        """Writes architecture.json, its drawing and the comparison with random ones from the checkpoint of a search.

        Args:
            model: the search that the checkpoint holds.
            datamodule: the data that it was trained on.
            ckpt_path: the checkpoint of the search.
            n_random: random architectures to compare with under the same shared weights; 0: none.
            folder: where to write; default: a new run folder.
            max_params: the most parameters that the final network may have, such as 2e6, with the width and depth of
                the search; default: any number.
            max_flops: the most FLOPs that an example may take, a multiply-add being two; default: any number.
            max_multiply_adds: the most multiply-adds that an example may take; default: any number.
        """
        datamodule.prepare_data()
        restore(model, datamodule, ckpt_path)
        model.to(self.strategy.root_device)
        most = {"n_params": max_params, "flops": max_flops, "multiply_adds": max_multiply_adds}
        limits = [Objective(metric, "min", m, wanted=False) for metric, m in most.items() if m is not None]
        outcome = model.conclude(datamodule, RunFolder(folder or self.default_root_dir), n_random, limits)
        print(outcome.describe())
        for callback in self.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ArchitectureLogger):
                print(f"  {callback.next_command(outcome, datamodule)}")


class CommandLine(LightningAdapter):
    """One of the commands over all modules and data modules that are imported.

    Args:
        args: the command and its arguments.
        continued: the settings in the checkpoint, with which these are compared; empty: there is none.
    """

    run: RunFolder | None = None
    has_new_root = False
    """Whether the folder of all runs was not there before."""

    def __init__(self, args: Sequence[str], continued: Mapping[str, Any]) -> None:
        quiet()
        first = RUN_FOLDER not in os.environ
        self.continued = continued
        try:
            super().__init__(args, Trainer)
        except SettingError as error:
            raise self._located(error) from error
        except ModuleNotFoundError as error:
            if error.name is not None:  # an import failed; else Lightning says which package a callback needs
                raise
            raise SettingError(f"trainer: {' '.join(str(error).split())}") from error
        finally:
            if self.run is not None:
                self.run.discard_empty()  # where the trainer was refused
                if self.has_new_root:
                    RunFolder(self.run.path.parent).discard_empty()
            if first:
                os.environ.pop(RUN_FOLDER, None)

    def check_settings(self, specs: Mapping[str, Mapping[str, Any]]) -> None:
        if "model" in self.continued:
            check_continued(self.continued["model"], specs["model"], "model")
        # another set can be tested on, and batches of another size change no figure
        if "data" in self.continued and self.command != "test":
            also = () if self.command == "fit" else ("batch_size",)
            module = find_class(specs["model"]["class_path"], Module)  # type: ignore[type-abstract]
            only = None if module is None else module.frozen.get("data")
            check_continued(self.continued["data"], specs["data"], "data", also, only)

    def _located(self, error: SettingError) -> SettingError:
        """An error of a running model or of its data, whose settings have an owner on the command line."""
        head = error.field.partition(".")[0]
        for owner, built in (("model", getattr(self, "model", None)), ("data", getattr(self, "datamodule", None))):
            if built is not None and head in inspect.signature(type(built)).parameters:
                return error.within(owner)
        return error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ArchitectureLogger, "architecture_logger")

    def refuse(self, message: str) -> NoReturn:
        line = one_line(message)
        field = line.partition(": ")[0]
        kind = kind_of(field)
        if kind is not None and "import path" in line:
            own = ", and a network has its import path, my_package.Net" if kind.field == "space" else ""
            there = f"there are {', '.join(kind.names())}"
            raise SettingError(f"{field}: no such class; {there}; --import brings in a package of yours{own}")
        foreign = re.search(r"expected path but (\S+) .*subclass of DataModule", line)
        if foreign:
            raise SettingError(
                f"{field}: {foreign[1]} is no lightning_nas.DataModule, whose settings a checkpoint has; make it a "
                "subclass, or take it from Python, where any is fitted: trainer.fit(search, datamodule=...)"
            )
        needed = re.search(r"(\w+)':\s+the following arguments are required: (.+)", message)
        if needed:
            raise SettingError(f"{field}: {needed[1]} needs {needed[2]}")
        unknown = re.search(r"Expected a dot import path string: (.+)", message)
        if unknown:
            raise SettingError(f"{field}: there is no class {unknown[1]}; a class of your own has its import path")
        owner = re.findall(r"Problem with given class_path '([\w.]+)'", message)
        if owner and "is not accepted" in line:
            name = owner[-1].rpartition(".")[2]
            known = {cls.__name__: cls for kind in KINDS for cls in subclasses(kind.base)}
            accepted = ", ".join(inspect.signature(known[name]).parameters)
            line += f"; {name} has {accepted}"
        raise SettingError(line)

    def trainer_settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        self._check_command()
        asked = settings["callbacks"] or []
        asked = asked if isinstance(asked, list) else [asked]  # one alone is not a list
        if self.command == "fit":
            check_trainer_settings(settings, self.model.refused_settings)
            check_callbacks(asked, self.model.refused_callbacks | ALWAYS_THERE)
            if not self.model.has_network:
                check_callbacks(asked, WITHOUT_STEPS)
        given: dict[str, Any] = {} if self.model.has_network else {"accelerator": "cpu", "enable_model_summary": False}
        ours: list[Callback] = []
        if self.command == "fit" and self.model.has_network and settings["enable_model_summary"] is not False:
            ours += [] if any(isinstance(callback, ModelSummary) for callback in asked) else [Summary()]
        if settings["fast_dev_run"]:
            given["callbacks"] = [*asked, *ours]
            return given if settings["logger"] is not None else given | {"logger": False}
        root = Path(settings["default_root_dir"] or "runs")
        self.has_new_root = not root.exists()
        run = self.run = RunFolder.new(root, self.model.run_name)
        given["default_root_dir"] = str(run.path)
        if settings["logger"] is None:
            given["logger"] = [CSVLogger(str(run.path), name="", version=""), wandb_logger(run.path, self.model)]
        if self.command != "fit":
            return given
        if settings["enable_checkpointing"] is not False:
            ours += [
                LastCheckpoint(
                    run.checkpoints,
                    filename=CHECKPOINT.removesuffix(".ckpt"),
                    save_on_train_epoch_end=True,
                    enable_version_counter=False,
                ),
                RunSettings(self.settings_to_keep()),
                Interruption(run.checkpoints),
            ]
        return given | {"callbacks": [*asked, *ours]}

    def settings_to_keep(self) -> dict[str, Any]:
        """What a run continues with besides model and data: the settings that are not at their defaults."""
        kept = self.settings_given()
        kept.get("trainer", {}).pop("default_root_dir", None)  # where a run writes is no part of it
        return {name: kept[name] for name in ("trainer", "architecture_logger") if kept.get(name)}

    def _check_command(self) -> None:
        """Refuses what cannot be done with the model."""
        if self.command == "test" and self.model.job == "search":
            raise SettingError("test: a search has no test figures; derive its architecture, retrain it and test that")
        if self.command == "validate" and not self.model.has_network:
            raise SettingError("validate: a search of many trials has no network to validate")
        if self.command == "derive" and not self.model.has_network:
            raise SettingError("derive: a search of many trials has its best in its folder, architecture.json")
        if self.command == "derive" and not self.model.derivable:
            raise SettingError("derive: the checkpoint is of a retraining; only a search has something to derive")


def quiet() -> None:
    """Leaves out messages of the libraries that ask nothing of a user."""
    ours = (
        "isinstance.treespec, LeafSpec",
        "The dirpath has changed",
        "Experiment logs directory",
        "with no optimizer",
        "have no `validation_step`",
        "Using ModelCheckpoint with manual optimization",  # a batch of a search ends with its step done
        r"Detected call of `lr_scheduler\.step\(\)` before",  # alphas wait while weights alone are trained
        "You're using the WeightAveraging callback with a model that overrides",  # not to shard layers
    )
    for message in ours:
        warnings.filterwarnings("ignore", message=f".*{message}")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "💡" not in record.getMessage())


def wandb_logger(folder: Path, module: Module) -> WandbLogger:
    """A W&B run in the run's folder; offline where there is no account, and never a question."""
    if "WANDB_MODE" not in os.environ and not has_wandb_account():
        os.environ["WANDB_MODE"] = "offline"
    os.environ.setdefault("WANDB_SILENT", "true")
    return WandbLogger(name=folder.name, save_dir=str(folder), project="lightning_nas", job_type=module.job)


def has_wandb_account() -> bool:
    """Whether W&B would find a key without asking."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False
