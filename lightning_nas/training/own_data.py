"""A trainer that was handed a user's own data: its loops draw from the streams that are made of them."""

from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.data_connector import _DataLoaderSource
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader, Dataset

from lightning_nas.data import DataModule, OwnData, Schedule
from lightning_nas.errors import SettingError

HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
"""What a data module may do to each batch on its way to the device."""


class Source(_DataLoaderSource):
    """Where a loop has its loader from: a function, as long as the trainer is not handed other data.

    Lightning's own asks the trainer's data module, which stays the user's: its other hooks, state and attributes are
    there as in any run.
    """

    def __init__(self, source: _DataLoaderSource, request: Any) -> None:
        super().__init__(source.instance, source.name)
        self.handed, self.request = source.instance, request

    def dataloader(self) -> Any:
        return self.request() if self.instance is self.handed else super().dataloader()

    def is_defined(self) -> bool:
        return self.instance is self.handed or super().is_defined()


def adopted(trainer: Trainer, inputs: dict[str, int] | None) -> OwnData | None:
    """The streams of what a trainer was handed, from which its loops draw from now on; None where it is data of this
    package already, or the batches that the module asked for.

    Args:
        trainer: the trainer, whose data module has been set up.
        inputs: what the module's network is built for; None: told from the data.

    Raises:
        SettingError: if no streams can be made of it, saying what to hand over.
    """
    loops: Any = trainer
    if isinstance(loops.datamodule, DataModule):
        return None
    if trainer.state.fn == TrainerFn.FITTING:
        return _adopted_to_fit(trainer, inputs)
    if trainer.state.fn in (TrainerFn.VALIDATING, TrainerFn.TESTING):
        loop = loops.validate_loop if trainer.state.fn == TrainerFn.VALIDATING else loops.test_loop
        handed = _handed(loop._data_source)
        if not isinstance(handed, (DataLoader, Dataset)):
            return None  # whatever can be iterated is tested on as it is
        data = OwnData(test=handed, inputs=inputs)
        data.trainer = trainer
        loop._data_source = Source(loop._data_source, data.test_dataloader)
        return data
    return None


def _adopted_to_fit(trainer: Trainer, inputs: dict[str, int] | None) -> OwnData | None:
    loop: Any = trainer.fit_loop
    validation: Any = loop.epoch_loop.val_loop
    train = _handed(loop._data_source)
    if train is None or isinstance(train, Schedule):
        return None
    _check_hooks(trainer.datamodule)  # type: ignore[attr-defined]
    data = OwnData(train, _handed(validation._data_source) or None, inputs=inputs)
    data.trainer = trainer
    loop._data_source = Source(loop._data_source, data.train_dataloader)
    validation._data_source = Source(validation._data_source, data.val_dataloader)
    return data


def _handed(source: Any) -> Any:
    """What the trainer was handed for a loop; None where there is nothing, or where the module itself is asked."""
    plain = _DataLoaderSource(source.instance, source.name)
    if isinstance(plain.instance, LightningModule) and not _is_own(plain.instance, plain.name):
        return None
    return plain.dataloader() if plain.is_defined() else None


def _is_own(module: LightningModule, name: str) -> bool:
    """Whether a user's module has loaders of its own."""
    return is_overridden(name, module) and not getattr(type(module), name).__module__.startswith("lightning_nas.")


def _check_hooks(datamodule: LightningDataModule | None) -> None:
    for name in HOOKS:
        if datamodule is not None and is_overridden(name, datamodule):
            raise SettingError(
                f"data: {type(datamodule).__name__}.{name} would be given the batches of several streams together; do "
                "the same in the set's transform or in the loader's collate_fn"
            )
