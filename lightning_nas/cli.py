"""The commands that train, on ``LightningCLI``: fit, validate, test, derive."""

import inspect
import itertools
import logging
import netrc
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, WandbLogger

import lightning_nas.methods
import lightning_nas.retrain  # noqa: F401  # what is imported here has a short class name on the command line
from lightning_nas.callbacks import ArchitectureLogger, Interruption
from lightning_nas.checkpoints import restore
from lightning_nas.controllers import Controller
from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError, one_line
from lightning_nas.evaluators import Evaluator, FromScratch, SharedWeights, Table  # noqa: F401
from lightning_nas.executors import Executor
from lightning_nas.lr_schedules import LRSchedule
from lightning_nas.methods import Method, OneShotMethod, TrialSearch
from lightning_nas.module import Module, NetworkModule
from lightning_nas.spaces import Space
from lightning_nas.specs import class_path, concrete, subclasses
from lightning_nas.strategies import Strategy
from lightning_nas.tasks import Task

RUN_FOLDER = "LIGHTNING_NAS_RUN_FOLDER"  # handed from the first process of a run to those that it starts


class Trainer(pl.Trainer):
    """Lightning's trainer, and one more thing to do with a search: derive."""

    def derive(
        self,
        model: OneShotMethod,
        datamodule: DataModule,
        ckpt_path: str,
        n_random: int = 20,
        folder: str | None = None,
    ) -> None:
        """Writes architecture.json, its drawing and the comparison with random ones from the checkpoint of a search.

        Args:
            model: the search.
            datamodule: the data that it was trained on.
            ckpt_path: the checkpoint.
            n_random: random architectures to compare with under the same shared weights; 0: none.
            folder: where to write; default: a new run folder.
        """
        from lightning_nas.analysis.outcome import conclude

        datamodule.prepare_data()
        restore(model, datamodule, ckpt_path)
        model.to(self.strategy.root_device)
        print(conclude(model, datamodule, Path(folder or self.default_root_dir), n_random).describe())


class CommandLine(LightningCLI):
    """One of the commands over all modules and data modules that are imported.

    Args:
        args: the command and its arguments.
    """

    BASES = {  # noqa: RUF012
        "model": Module,
        "data": DataModule,
        "space": Space,
        "task": Task,
        "controller": Controller,
        "lr_schedule": LRSchedule,
        "strategy": Strategy,
        "evaluator": Evaluator,
        "executor": Executor,
    }

    def __init__(self, args: Sequence[str]) -> None:
        self.command = args[0]
        quiet()
        first = RUN_FOLDER not in os.environ
        try:
            self._start(args)
        finally:
            if first:
                os.environ.pop(RUN_FOLDER, None)

    def _start(self, args: Sequence[str]) -> None:
        super().__init__(
            Module,
            DataModule,
            save_config_kwargs={"overwrite": True},
            trainer_class=Trainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=list(args),
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # our modules record their own settings, from Python too
            parser_kwargs={"prog": "python -m lightning_nas"},
        )

    # -- the parser --------------------------------------------------------------------------------------------------

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one command that was asked: building the parser of every command takes several times as long."""
        return {
            self.command: {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "weights_only"}
        }

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        super().setup_parser(*args, **kwargs)
        for parser in (self.parser, *self._subcommand_parsers.values()):
            parser.error = self._refuse  # type: ignore[method-assign]  # the instances: nested parsers copy the class

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """No ``--seed_everything``: all randomness of a run comes from ``model.seed``."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ArchitectureLogger, "architecture_logger")

    def _refuse(self, message: str, *args: Any, **kwargs: Any) -> NoReturn:
        line = one_line(message)
        field = line.partition(": ")[0]
        base = self.BASES.get(field.rpartition(".")[2])
        if base is not None and "import path" in line:
            raise SettingError(f"{field}: no such class; there are {', '.join(offered(base))}")
        owner = re.findall(r"Problem with given class_path '([\w.]+)'", message)
        if owner and "is not accepted" in line:
            known = {class_path(cls): cls for base in self.BASES.values() for cls in subclasses(base)}
            accepted = ", ".join(inspect.signature(known[owner[-1]]).parameters)
            line += f"; {owner[-1].rpartition('.')[2]} has {accepted}"
        raise SettingError(line)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Not Lightning's: a checkpoint's settings already stand between the configuration and the flags."""

    def _set_seed(self) -> None:
        """Nothing global is seeded."""

    # -- the trainer -------------------------------------------------------------------------------------------------

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        settings = self._get(self.config_init, "trainer")
        if self.command == "test" and isinstance(self.model, Method):
            raise SettingError("test: a search has no test figures; derive its architecture, retrain it and test that")
        if self.command == "validate" and not isinstance(self.model, NetworkModule):
            raise SettingError("validate: a search of many trials has no network to validate")
        if self.command == "derive" and not isinstance(self.model, OneShotMethod):
            raise SettingError("derive: the checkpoint is of a retraining; only a search has something to derive")
        if not self.model.automatic_optimization and settings["gradient_clip_val"] is not None:
            raise SettingError("trainer.gradient_clip_val: a search clips by itself; set model.gradient_clip")
        if settings["fast_dev_run"]:
            return super().instantiate_trainer(**kwargs)
        folder = run_folder(Path(settings["default_root_dir"] or "runs"), run_name(self.model))
        kwargs["default_root_dir"] = str(folder)
        if settings["logger"] is None:
            kwargs["logger"] = [CSVLogger(str(folder), name="", version=""), wandb_logger(folder, self.model)]
        if isinstance(self.model, TrialSearch):
            kwargs["enable_model_summary"] = False  # it has no layers
        if self.command == "fit" and settings["enable_checkpointing"] is not False:
            checkpoints = folder / "checkpoints"
            each_epoch = ModelCheckpoint(
                checkpoints, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
            )
            kwargs["callbacks"] = [*(settings["callbacks"] or []), each_epoch, Interruption(checkpoints)]
        return super().instantiate_trainer(**kwargs)


def offered(base: type) -> list[str]:
    """The names of the classes that a user can choose for a field of this type."""
    return sorted({cls.__name__ for cls in concrete(base)})


def run_name(module: Module) -> str:
    """What the folder of a run is called, but for its number."""
    return (module.name if isinstance(module, Method) else type(module).__name__).lower()


def run_folder(root: Path, name: str) -> Path:
    """Makes the first free of ``root/name-1``, ``root/name-2``, …; all processes of one run get the same."""
    if RUN_FOLDER in os.environ:
        return Path(os.environ[RUN_FOLDER])
    root.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = root / f"{name}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        break
    os.environ[RUN_FOLDER] = str(folder)
    return folder


def quiet() -> None:
    """Leaves out messages of the libraries that ask nothing of a user."""
    ours = (
        "isinstance.treespec, LeafSpec",
        "The dirpath has changed",
        "Experiment logs directory",
        "with no optimizer",
        "have no `validation_step`",
    )
    for message in ours:
        warnings.filterwarnings("ignore", message=f".*{message}")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "💡" not in record.getMessage())


def wandb_logger(folder: Path, module: Module) -> WandbLogger:
    """A W&B run in the run's folder; offline where there is no account, and never a question."""
    if "WANDB_MODE" not in os.environ and not has_wandb_account():
        os.environ["WANDB_MODE"] = "offline"
    os.environ.setdefault("WANDB_SILENT", "true")
    job = "search" if isinstance(module, Method) else "retrain"
    return WandbLogger(name=folder.name, save_dir=str(folder), project="lightning_nas", job_type=job)


def has_wandb_account() -> bool:
    """Whether W&B would find a key without asking."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False
