"""A search rebuilt from its checkpoint."""

from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError
from lightning_nas.methods.base import OneShotMethod
from lightning_nas.training.checkpoints import checkpoint_settings, restore
from lightning_nas.training.module import NetworkModule


def load_search(path: str) -> tuple[OneShotMethod, DataModule]:
    """A search with its network, in evaluation mode, and its data, ready to be asked for batches.

    Raises:
        SettingError: if the file is not a checkpoint of a search that knows its data.
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
