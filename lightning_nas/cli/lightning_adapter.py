"""All that depends on the inside of ``LightningCLI``, in one place.

What is overridden here has no public name in Lightning. It was checked with the version in ``CHECKED``; another one may
call these methods otherwise, and a test says so.
"""

import contextlib
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pydoc import locate
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.enums import LightningEnum
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError
from lightning_nas.specs import class_path
from lightning_nas.training.module import Module

CHECKED = "2.6.6"
"""The version of Lightning whose private names these are."""

NOT_OPTIONS = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "weights_only"}
"""Arguments of the trainer's methods that the command line gives by itself."""


class LightningAdapter(LightningCLI):
    """A ``LightningCLI`` of one command that builds model and data from specs.

    Args:
        args: the command and its arguments.
        trainer_class: the trainer, with a method of the command's name.
    """

    model: Module

    def __init__(self, args: Sequence[str], trainer_class: type[pl.Trainer]) -> None:
        self.command = args[0]
        super().__init__(
            Module,
            DataModule,
            save_config_kwargs={"overwrite": True},
            trainer_class=trainer_class,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=list(args),
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # our modules record their own settings, from Python too
            parser_kwargs={"prog": "python -m lightning_nas"},
        )

    # -- what a subclass says ----------------------------------------------------------------------------------------

    @abstractmethod
    def refuse(self, message: str) -> NoReturn:
        """Raises the error for a message of the parser."""

    @abstractmethod
    def check_settings(self, specs: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuses model and data, given as specs, that cannot be used."""

    @abstractmethod
    def trainer_settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What the trainer gets instead of what is set, given what is set."""

    # -- Lightning's private names -----------------------------------------------------------------------------------

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one command that was asked: building the parser of every command takes several times as long."""
        return {self.command: NOT_OPTIONS}

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        super().setup_parser(*args, **kwargs)
        for parser in (self.parser, *self._subcommand_parsers.values()):
            parser.error = self._error  # type: ignore[method-assign]  # the instances: nested parsers copy the class

    def settings_given(self) -> dict[str, Any]:
        """The command's settings that are not at their defaults, as a configuration file has them."""
        settings = self.config[self.command].clone()
        for name in ("model", "data", "config"):  # which have a form of their own in checkpoints
            settings.pop(name, None)
        text = self._parser(self.command).dump(settings, skip_default=True, skip_validation=True)
        return yaml.safe_load(text) or {}

    def _error(self, message: str, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse(message)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """No ``--seed_everything``: all randomness of a run comes from ``model.seed``."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = _plain(parser.parse_args(args))

    def _parse_ckpt_path(self) -> None:
        """Not Lightning's: a checkpoint's settings already stand between the configuration and the flags."""

    def _set_seed(self) -> None:
        """Nothing global is seeded."""

    def instantiate_classes(self) -> None:
        """Model and data are built from their specs, so that errors about them begin with ``model`` and ``data``."""
        config = self.config.clone()
        specs = {name: as_spec(config[self.command].pop(name)) for name in ("model", "data")}
        with _wrong_settings():
            self.config_init = self.parser.instantiate_classes(config)
        self.check_settings(specs)
        self.datamodule = DataModule.build(specs["data"], "data")
        self.model = Module.build(specs["model"], "model")
        self.check_settings({"model": self.model.spec, "data": self.datamodule.spec})  # now paths are what they mean
        self.trainer = self.instantiate_trainer()
        if self.command == "fit":
            self.model.check(self.trainer, self.datamodule, self.config[self.command].get("ckpt_path"))

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        settings = self._get(self.config_init, "trainer")
        ours = self.trainer_settings(dict(settings))
        with _wrong_settings():
            return super().instantiate_trainer(**kwargs, **ours)


@contextlib.contextmanager
def _wrong_settings() -> Iterator[None]:
    """What the trainer and its callbacks and loggers say of their arguments, in one line: a missing package too."""
    try:
        yield
    except SettingError:
        raise
    except (ImportError, MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        named = re.search(r"Problem with given class_path '[\w.]*?(\w+)': (.+?)(?: - Expected| Given value|$)", text)
        raise SettingError(f"trainer: {f'{named[1]}: {named[2]}' if named else text[:400]}") from error


def _plain(value: Any) -> Any:
    """Strings in the place of constants and devices that are defaults in Lightning, and that YAML does not know."""
    if isinstance(value, Namespace):
        vars(value).update({name: _plain(item) for name, item in vars(value).items()})
        return value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, torch.device):
        return str(value)
    return value.value if isinstance(value, LightningEnum) else value


def as_spec(value: Any) -> Any:
    """What the parser has for an object, as plain values, each class by the path that specs use."""
    if isinstance(value, Namespace):
        value = value.as_dict()
    if isinstance(value, dict):
        spec = {key: as_spec(item) for key, item in value.items()}
        cls = locate(spec["class_path"]) if isinstance(spec.get("class_path"), str) else None
        return spec if not isinstance(cls, type) else spec | {"class_path": class_path(cls)}
    return [as_spec(item) for item in value] if isinstance(value, (list, tuple)) else value
