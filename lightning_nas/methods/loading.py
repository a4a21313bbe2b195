"""A search rebuilt from its checkpoint."""

from typing import Any

from lightning_nas.data import DataModule, as_data
from lightning_nas.errors import SettingError
from lightning_nas.methods.base import OneShotMethod
from lightning_nas.training.checkpoints import checkpoint_settings, restore
from lightning_nas.training.module import NetworkModule


def load_search(path: str, data: Any = None) -> tuple[OneShotMethod, DataModule]:
    """A search with its network, in evaluation mode, and its data, ready to be asked for batches.

    Args:
        path: the path of the search's checkpoint.
        data: the data, where the search was fitted on sets of your own; None: those that the checkpoint says.

    Raises:
        SettingError: if the file is not a checkpoint of a search that knows its data.
    """
    settings = checkpoint_settings(path)
    if data is None and "data" not in settings:
        raise SettingError(f"ckpt_path: {path} does not say on which data it was trained")
    module = NetworkModule.build(settings["model"])
    data = DataModule.build(settings["data"], "data") if data is None else as_data(data)
    if not isinstance(module, OneShotMethod):
        raise SettingError(f"ckpt_path: {path} is of a {type(module).__name__}, no search")
    data.prepare_data()
    restore(module, data, path)
    return module.eval(), data
