"""Reading checkpoints, which come from a user: tensors and plain values only, and no class that is not imported."""

from typing import Any

import torch

import lightning_nas.evaluators.from_scratch
import lightning_nas.evaluators.shared_weights
import lightning_nas.methods
import lightning_nas.retrain  # noqa: F401  # what is imported can be rebuilt
from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError
from lightning_nas.methods import OneShotMethod
from lightning_nas.module import NetworkModule
from lightning_nas.specs import Configurable, class_path, subclasses


def checkpoint_settings(path: str) -> dict[str, Any]:
    """The module's and the data's settings in a checkpoint, as a configuration has them.

    Raises:
        SettingError: if the file is no checkpoint of this package, or names a class that is not imported.
    """
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        ours = checkpoint["lightning_nas"]
        settings = {"model": {"class_path": ours["class_path"], "init_args": dict(checkpoint["hyper_parameters"])}}
        settings |= {"data": ours["data"]} if "data" in ours else {}
    except FileNotFoundError:
        raise SettingError(f"ckpt_path: there is no file {path}") from None
    except Exception as error:  # whatever a damaged or foreign file raises
        reason = str(error).partition("\n")[0]
        raise SettingError(f"ckpt_path: {path} is no checkpoint that can be read ({reason})") from error
    known = {class_path(cls) for cls in subclasses(Configurable)}
    foreign = [found for found in _class_paths(settings) if found not in known]
    if foreign:
        raise SettingError(f"ckpt_path: {path} needs {foreign[0]}, which is not imported")
    return settings


def _class_paths(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["class_path"]] if "class_path" in value else []
        return own + [path for item in value.values() for path in _class_paths(item)]
    return [path for item in value for path in _class_paths(item)] if isinstance(value, list) else []


def load_search(path: str) -> tuple[OneShotMethod, DataModule]:
    """A search with its network, in evaluation mode, and its data, ready to be asked for batches.

    Raises:
        SettingError: if the file is no checkpoint of a search that knows its data.
    """
    settings = checkpoint_settings(path)
    if "data" not in settings:
        raise SettingError(f"ckpt_path: {path} does not say on which data it was trained")
    module, data = NetworkModule.build(settings["model"]), DataModule.build(settings["data"])
    if not isinstance(module, OneShotMethod):
        raise SettingError(f"ckpt_path: {path} is of a {type(module).__name__}, no search")
    data.prepare_data()
    restore(module, data, path)
    return module.eval(), data


def restore(module: NetworkModule, data: DataModule, path: str) -> None:
    """Builds the module's network for the data, if it has none, and loads the weights."""
    if not hasattr(module, "network"):
        module.build_network(data.inputs)
    module.load_state_dict(torch.load(path, weights_only=True, map_location="cpu")["state_dict"])
