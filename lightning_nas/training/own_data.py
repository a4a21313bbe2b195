"""A trainer that was handed a user's own data: its loops draw from the streams that are made of them."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.data_connector import _DataHookSelector, _DataLoaderSource
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_nas.data import DataModule, OwnData, Schedule
from lightning_nas.data.examples import describe
from lightning_nas.data.own import of_module, only
from lightning_nas.errors import SettingError, within
from lightning_nas.operations.normalization import evaluating


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
    if trainer.state.fn == TrainerFn.FITTING:
        data = _to_fit(trainer, inputs)
        drawn = {loops.fit_loop: "train_dataloader", loops.fit_loop.epoch_loop.val_loop: "val_dataloader"}
    else:
        evaluating: dict[Any, Any] = {TrainerFn.VALIDATING: loops.validate_loop, TrainerFn.TESTING: loops.test_loop}
        loop = evaluating.get(trainer.state.fn)
        handed = None if loop is None else _handed(loop._data_source)
        # whatever else can be iterated is tested on as it is
        data = OwnData(test=handed, inputs=inputs) if isinstance(handed, (DataLoader, Dataset)) else None
        drawn = {loop: "test_dataloader"}
    if data is None:
        return None
    data.trainer = trainer
    for loop, name in drawn.items():
        loop._data_source = Source(loop._data_source, getattr(data, name))
    return data


def handed(trainer: Trainer) -> tuple[Any, ...]:
    """What a trainer was handed to fit: a data module, or loaders or sets to train and to validate on."""
    loops: Any = trainer
    sources = (loops.fit_loop._data_source, loops.fit_loop.epoch_loop.val_loop._data_source)
    return tuple(source.instance for source in sources if source.instance is not None)


def _to_fit(trainer: Trainer, inputs: dict[str, int] | None) -> OwnData | None:
    loops: Any = trainer
    source = loops.fit_loop._data_source
    if isinstance(source.instance, LightningDataModule):
        if isinstance(source.instance, DataModule) or isinstance(source.dataloader(), Schedule):
            return None
        connector = loops._data_connector  # the user's hooks are called by the streams, for each batch of its own
        connector._datahook_selector = _DataHookSelector(trainer.lightning_module, None)
        return of_module(source.instance, inputs)
    train = _handed(source)
    if train is None or isinstance(train, Schedule):
        return None
    with within("data"):
        return OwnData(train, _handed(loops.fit_loop.epoch_loop.val_loop._data_source), inputs=inputs)


def _handed(source: Any) -> Any:
    """What the trainer was handed for a loop; None where there is nothing, or where a module of ours is asked."""
    plain = _DataLoaderSource(source.instance, source.name)
    ours = isinstance(plain.instance, LightningModule) and _is_ours(getattr(type(plain.instance), plain.name))
    if ours or isinstance(plain.instance, DataModule) or not plain.is_defined():
        return None
    return only(plain.dataloader())


def _is_ours(method: Any) -> bool:
    return str(method.__module__).startswith("lightning_nas.")


def try_batches(module: Any, data: OwnData) -> None:
    """Refuses data whose batches the task or the network cannot read, before the first step.

    Args:
        module: the search or the retraining, with its network.
        data: its data, of which the batches of the first step are drawn.

    Raises:
        SettingError: with what failed, and what a batch has to be.
    """
    precision = module.trainer.precision_plugin
    what = "batches"
    try:
        for part, batch in module.schedule(data).get(0, 0).items():
            what = f"a batch of the {part} part, {describe(batch)},"
            _check_size(batch, module.network.inputs)
            moved = move_data_to_device(precision.convert_input(batch), module.device)
            with torch.random.fork_rng(), torch.no_grad(), evaluating(module), precision.forward_context():
                module.loss(module.as_one(), moved, part)
    except (SettingError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a user's set, collate_fn or task raises
        reason = " ".join(str(error).split())[:200]
        task = type(module.task).__name__
        wanted = f"; it reads {module.task.batch}, as inputs say" if module.task.batch else ""
        raise SettingError(
            f"data: {what} cannot be read by {task} and the network ({type(error).__name__}: {reason}){wanted}; have "
            "the set or its collate_fn give that, or hand over a task that reads such batches"
        ) from error


def _check_size(batch: Any, inputs: dict[str, int]) -> None:
    """Refuses images of another size than the network is built for, for which its costs would be told."""
    images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    size = inputs.get("image_size")
    if size is not None and isinstance(images, Tensor) and images.ndim == 4 and images.shape[2:] != (size, size):
        height, width = images.shape[2:]
        raise SettingError(
            f"inputs: image_size {size}, and images are {height}×{width}; have the set crop or pad them to a "
            "square, and give its side"
        )
