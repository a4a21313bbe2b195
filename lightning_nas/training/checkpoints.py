"""Reading checkpoints, which come from a user: tensors and plain values only, and no class that is not imported."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError
from lightning_nas.operations import OPERATIONS
from lightning_nas.spaces.base import Network, Space
from lightning_nas.spaces.image_networks import ImageNetwork
from lightning_nas.specs import Configurable, class_paths, find_class

WITHOUT_TRAINING = ("accelerator", "precision")
"""The trainer's settings that a checkpoint brings to other commands than ``fit``."""


class HoldsNetwork(Protocol):
    """A module around one network, as those of a search and of a retraining are."""

    space: Space
    network: Network

    @property
    def job(self) -> str:
        """``search`` or ``retrain``."""

    def build_network(self, inputs: dict[str, int]) -> None:
        """Builds the network for data of this kind."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Becomes what the module was in the stage of the checkpoint."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Takes over weights by their names."""


def checkpoint_settings(path: str, fit: bool = True, field: str = "ckpt_path") -> dict[str, Any]:
    """The settings in a checkpoint, as a configuration has them: the module's, the data's, and the run's others.

    Args:
        path: the path of the checkpoint.
        fit: whether its run continues; else of the trainer's settings just those that matter without training.
        field: what the path is called in an error.

    Raises:
        SettingError: if the file is not a checkpoint of this package, or names a class or an operation that is not
            imported.
    """
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        ours = checkpoint["lightning_nas"]
        settings = {"model": {"class_path": ours["class_path"], "init_args": dict(checkpoint["hyper_parameters"])}}
        settings |= {"data": ours["data"]} if "data" in ours else {}
        settings |= ours.get("settings", {})
    except FileNotFoundError:
        raise SettingError(f"{field}: there is no file {path}") from None
    except Exception as error:  # whatever a damaged or foreign file raises
        reason = str(error).partition("\n")[0]
        raise SettingError(f"{field}: {path} is not a checkpoint that can be read ({reason})") from error
    if not fit and "trainer" in settings:
        settings["trainer"] = {n: value for n, value in settings["trainer"].items() if n in WITHOUT_TRAINING}
    for needed in class_paths({name: settings[name] for name in ("model", "data") if name in settings}):
        if find_class(needed, Configurable) is None:
            package = str(needed).partition(".")[0][:80]
            raise SettingError(f"{field}: {path} needs {needed}, which is not imported; name it by --import {package}")
    for operation, package in ours.get("operations", {}).items():
        if operation not in OPERATIONS:
            needed = f"the operation {operation}, which is not registered"
            raise SettingError(f"{field}: {path} needs {needed}; name it by --import {package}")
    return settings


def trained_module(path: str, field: str) -> HoldsNetwork:
    """The module of a checkpoint, with its network and the weights that it has there, whatever data are at hand.

    Args:
        path: the path of the checkpoint of a search in one network or of a retraining.
        field: what the path is called in an error.

    Raises:
        SettingError: if the file is no such checkpoint.
    """
    module: Any = Configurable.build(checkpoint_settings(path, field=field)["model"], field)
    if not isinstance(getattr(module, "network", None), nn.Module):
        raise SettingError(f"{field}: {path} is of a {type(module).__name__}, which holds no trained network")
    load_weights(module, path)
    return module


def trained_network(path: str, field: str) -> Network:
    """The network of a retraining, with the weights that its checkpoint has.

    Args:
        path: the path of the checkpoint of a retraining.
        field: what the path is called in an error.

    Raises:
        SettingError: if the file is no such checkpoint.
    """
    module = trained_module(path, field)
    if module.job != "retrain":
        raise SettingError(f"{field}: the checkpoint of a retraining, got that of a search, {path}")
    return module.network


def load_network(path: str | Path, num_classes: int | None = None) -> Network:
    """A network as a retraining has left it, to be used or trained on in any other program.

    Where the retraining averaged its weights, by a callback such as Lightning's ``EMAWeightAveraging``, they are the
    averaged ones, as in its validation. Like a new module the network is on the CPU and in training mode.

    Args:
        path: the path of the checkpoint, such as ``runs/retrain-1/checkpoints/last.ckpt``. Nothing but tensors and
            plain values is read from it.
        num_classes: the number of outputs of a new classifier, which takes the place of the trained one; 0: none, so
            that outputs are pooled features. None: the trained classifier stays. Networks of images only.

    Raises:
        SettingError: if the file is not the checkpoint of a retraining, or the network has no classifier.
    """
    network = trained_network(str(path), "path")
    if num_classes is not None:
        if not isinstance(network, ImageNetwork):
            raise SettingError(f"num_classes: of networks of images only, and {path} is of another one; leave it out")
        network.reset_classifier(num_classes)
    return network


def load_weights(module: HoldsNetwork, path: str) -> None:
    """Loads the weights of a checkpoint into a module that has the same settings and its network."""
    checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])


def restore(module: HoldsNetwork, data: DataModule, path: str) -> None:
    """Builds the module's network for the data, if it has none, and loads the weights."""
    if not hasattr(module, "network"):
        module.build_network(data.inputs)
    load_weights(module, path)
