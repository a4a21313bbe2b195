"""Reading checkpoints, which come from a user: tensors and plain values only, and no class that is not imported."""

from typing import Any

import torch

from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError
from lightning_nas.specs import Configurable, class_paths, find_class
from lightning_nas.training.module import NetworkModule

WITHOUT_TRAINING = ("accelerator", "precision")
"""The trainer's settings that a checkpoint brings to other commands than ``fit``."""


def checkpoint_settings(path: str, fit: bool = True) -> dict[str, Any]:
    """The settings in a checkpoint, as a configuration has them: the module's, the data's, and the run's others.

    Args:
        path: the path of the checkpoint.
        fit: whether its run continues; else of the trainer's settings just those that matter without training.

    Raises:
        SettingError: if the file is not a checkpoint of this package, or names a class that is not imported.
    """
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        ours = checkpoint["lightning_nas"]
        settings = {"model": {"class_path": ours["class_path"], "init_args": dict(checkpoint["hyper_parameters"])}}
        settings |= {"data": ours["data"]} if "data" in ours else {}
        settings |= ours.get("settings", {})
    except FileNotFoundError:
        raise SettingError(f"ckpt_path: there is no file {path}") from None
    except Exception as error:  # whatever a damaged or foreign file raises
        reason = str(error).partition("\n")[0]
        raise SettingError(f"ckpt_path: {path} is not a checkpoint that can be read ({reason})") from error
    if not fit and "trainer" in settings:
        settings["trainer"] = {n: value for n, value in settings["trainer"].items() if n in WITHOUT_TRAINING}
    for needed in class_paths({name: settings[name] for name in ("model", "data") if name in settings}):
        if find_class(needed, Configurable) is None:
            package = str(needed).partition(".")[0][:80]
            raise SettingError(
                f"ckpt_path: {path} needs {needed}, which is not imported; name it by --import {package}"
            )
    return settings


def restore(module: NetworkModule, data: DataModule, path: str) -> None:
    """Builds the module's network for the data, if it has none, and loads a checkpoint that has the same settings."""
    if not hasattr(module, "network"):
        module.build_network(data.inputs)
    checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
