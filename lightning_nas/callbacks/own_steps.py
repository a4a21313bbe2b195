"""The steps and data of a user's Lightning project, used in passing: nothing of their training notices."""

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader
from torchmetrics import Metric, MetricCollection

from lightning_nas.errors import SettingError
from lightning_nas.operations.normalization import batch_norms
from lightning_nas.seeding import derive_seed


def loss_method(module: LightningModule) -> Callable[..., Any]:
    """The method that computes a loss and takes no step: ``training_step``, or ``validation_step`` where the module
    takes its steps by itself (manual optimisation)."""
    return module.training_step if module.automatic_optimization else module.validation_step


def run_step(trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> Any:
    """What the module's :func:`loss_method` returns for a batch; nothing is logged, and the module stays as it is.

    Args:
        trainer: the trainer of the user.
        module: the module of the user, in the mode in which it is to run.
        batch: a batch as a loader delivers it.
        batch_idx: the number of the batch, for a step that asks for it.
    """
    batch = trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)  # as the trainer's loops do
    batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
    step = loss_method(module)
    numbers: tuple[int, ...] = (batch_idx,) if is_param_in_hook_signature(step, "batch_idx", min_args=2) else ()
    if is_param_in_hook_signature(step, "dataloader_idx", explicit=True):
        numbers = (batch_idx, 0)
    with unnoticed(trainer, module), trainer.precision_plugin.train_step_context():
        return step(batch, *numbers)


def loss_of(returned: Any, step: str) -> Tensor:
    """The loss in what a step returns, a tensor or a dictionary.

    Args:
        returned: what the step returned.
        step: the name of the step, for the error.

    Raises:
        SettingError: if there is none.
    """
    loss = returned.get("loss") if isinstance(returned, dict) else returned
    if not isinstance(loss, Tensor):
        raise SettingError(f"{step}: has to return its loss, a tensor or a dictionary with 'loss', got {returned!r}")
    return loss


@contextlib.contextmanager
def set_aside(module: LightningModule) -> Iterator[None]:
    """Inside, whatever the module and its metrics keep, but for weights, buffers and parts, is a copy without a graph,
    which is dropped in the end."""
    ours = (LightningModule, Metric, MetricCollection)
    kept = [(vars(part), dict(vars(part))) for part in module.modules() if isinstance(part, ours)]
    try:
        for attributes, values in kept:
            attributes.update({name: _copied(value) for name, value in values.items() if name not in _OF_MODULES})
        yield
    finally:
        for attributes, values in kept:
            attributes.clear()
            attributes.update(values)


@contextlib.contextmanager
def unnoticed(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Inside, nothing is logged, and the module keeps nothing. Random numbers are not used up."""
    loggers, device = trainer.loggers, module.device
    with set_aside(module), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for part in module.modules():
            if isinstance(part, LightningModule):
                vars(part)["log"] = _no_log  # ``log_dict`` calls it, too
        trainer.loggers = [DummyLogger() for _ in loggers]
        try:
            yield
        finally:
            trainer.loggers = loggers


_OF_MODULES = frozenset(vars(nn.Module()))
"""What every module has: its weights, buffers, parts and hooks."""


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return value.copy() if type(value) in (list, dict, set) else value


def _no_log(*args: Any, **kwargs: Any) -> None:
    pass


def trained_norms(module: nn.Module) -> nn.ModuleList:
    """The BatchNorms that move their running averages in the mode that the module is in; a frozen one does not."""
    return nn.ModuleList([norm for norm in batch_norms(module) if norm.training])


# -- batches ---------------------------------------------------------------------------------------------------------


def training_batches(trainer: Trainer, n: int, seed: int) -> list[Any]:
    """The first batches of the user's training data, always the same.

    Args:
        trainer: the trainer, which is fitting.
        n: the largest number of batches.
        seed: the seed of what is random in loading them.
    """
    combined = trainer.fit_loop._combined_loader  # the loaders as the trainer has prepared them for this rank
    assert combined is not None
    loaders = CombinedLoader(tree_map(_of_its_own, combined.iterables), combined._mode)
    n = int(min(n, trainer.num_training_batches))
    return [batch for batch, _, _ in itertools.islice(_seeded(loaders, seed), n)]


def held_out_batches(trainer: Trainer, start: int, seed: int) -> Iterator[Any]:
    """The batches of the user's validation data, again and again; of several loaders those of the first.

    Args:
        trainer: the trainer, which is fitting.
        start: the number of the first batch that is wanted.
        seed: the seed of what is random in loading them.
    """
    if trainer.val_dataloaders is None:  # the trainer would load them before its first validation
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
        trainer.training = True
    prepared = trainer.fit_loop.epoch_loop.val_loop._combined_loader
    assert prepared is not None
    loader, n = prepared.flattened[0], trainer.num_val_batches[0]
    first = start // int(n) if 0 < n < float("inf") else 0
    number = first * int(n) if first else 0
    for each in itertools.count(first):
        before = number
        batches = _seeded(_of_its_own(loader), derive_seed(seed, each))
        for batch in itertools.islice(batches, int(n) if n != float("inf") else None):
            if number >= start:
                yield batch
            number += 1
        if number == before:
            raise SettingError("data: the validation loader delivers no batches, on which alphas would be trained")


def _of_its_own(loader: Any) -> Any:
    """A loader that can be read while the trainer reads the same one, whose workers may persist."""
    if not isinstance(loader, DataLoader):
        return loader
    own = copy.copy(loader)
    own._iterator = None
    return own


def _seeded(batches: Iterable[Any], seed: int) -> Iterator[Any]:
    """Batches whose order and augmentation follow from a seed as far as PyTorch draws them."""
    iterator = None
    for number in itertools.count():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, number))
            try:
                iterator = iter(batches) if iterator is None else iterator
                batch = next(iterator)
            except StopIteration:
                return
        yield batch


# -- validation ------------------------------------------------------------------------------------------------------


def validated(trainer: Trainer) -> dict[str, float]:
    """What the user's module logs when it is validated now, by name: their data, their steps, their hooks.

    No callback is called, and neither loggers nor the trainer's own metrics hear of it.

    Args:
        trainer: the trainer, which is fitting and between two epochs, or after the last one.
    """
    connector, module = trainer._logger_connector, trainer.lightning_module
    names = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics", "_first_loop_iter")
    before = {name: getattr(connector, name) for name in names}
    loggers, callbacks = trainer.loggers, trainer.callbacks  # type: ignore[attr-defined]
    try:
        connector.reset_metrics()
        trainer.callbacks = []  # type: ignore[attr-defined]
        trainer.loggers = [DummyLogger() for _ in loggers]
        trainer.validating = True
        with torch.random.fork_rng(devices=[module.device] if module.device.type == "cuda" else []):
            torch.manual_seed(0)  # the same for all that are compared
            trainer.fit_loop.epoch_loop.val_loop.run()
        return {name: float(value) for name, value in trainer.callback_metrics.items()}
    finally:
        trainer.training = True
        trainer.callbacks = callbacks  # type: ignore[attr-defined]
        trainer.loggers = loggers
        for name, value in before.items():
            setattr(connector, name, value)
