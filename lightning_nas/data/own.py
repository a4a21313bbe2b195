"""A user's own data: any set of examples with a number each, as PyTorch has them."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any
from zlib import crc32

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    Subset,
)

from lightning_nas.data.base import DataModule, DrawnStream, Shuffled, Stream, as_is, divided, evaluation_size, spread
from lightning_nas.data.examples import Examples, describe, examples_of, named
from lightning_nas.errors import SettingError, within
from lightning_nas.seeding import derive_seed

PARTS = ("weights", "architecture", "train", "test")

AnyData = DataModule | LightningDataModule | DataLoader[Any] | Dataset[Any] | tuple[Any, Any]
"""What a trainer's ``fit`` takes, loaders or sets to train and to validate on as a pair."""


class OwnData(DataModule):
    """Sets of your own, from ``torch.utils.data``, handed over in Python: of files, of numbers, of whatever your task
    reads.

    Examples are read when they are needed and by their number, and nothing of them is kept. A ``DataLoader`` stands for
    its set, batch size, workers, ``collate_fn`` and ``worker_init_fn``; the order of the examples is the search's own,
    shuffled in training, and evaluated from first to last. Where a trainer is handed loaders, or another
    ``LightningDataModule``, one of these is made of them, and the loader to validate on is the ``architecture`` set.

    A batch is a function of its number: what a set draws from the generators of PyTorch, NumPy or Python (a random
    ``transform``) is drawn again as it was where a run continues, with any number of workers. Of a set whose examples
    depend on more than that (a generator of its own, a cache that fills, the time) batches are not the same again, and
    so a run that continues is not the same, bit for bit, as one without a pause.

    Args:
        train: the set to train on, or a loader of it; None: there is none, and just ``test`` is read.
        architecture: the set on which architectures are judged and which validates, or a loader of it. Then a
            retraining on all images trains on ``train`` alone. None: a share of ``train``, and a retraining on all
            images has it too.
        test: the set that testing alone reads, or a loader, which then is read as it is; None: there is none.
        batch_size: the number of examples in a batch on each device; None: that of the loader, or 64.
        num_workers: the number of processes that prepare batches; 0: the main process prepares them; None: as many as
            the loader has, or 0.
        collate_fn: the function that makes a batch of a list of examples; None: that of each loader, or PyTorch's.
        architecture_share: the share of ``train`` on which architectures are judged, where there is no set for it.
        split_seed: the seed of this division.
        inputs: what the network must know of the data; None: told from the first example as far as it can be, the
            number of classes from the set's ``classes`` or ``targets``.
    """

    adjustable = DataModule.adjustable | {"train", "test", "collate_fn"}  # of the sets their sizes are compared
    rebuilds = False

    def __init__(
        self,
        train: Any = None,
        architecture: Any = None,
        test: Any = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        architecture_share: float = 0.5,
        split_seed: int = 0,
        inputs: dict[str, int] | None = None,
    ) -> None:
        if not 0 < architecture_share < 1:
            raise SettingError(f"architecture_share: between 0 and 1, got {architecture_share}")
        given = {"train": train, "architecture": architecture, "test": test}
        loader = next((each for each in given.values() if isinstance(each, DataLoader)), None)
        batch_size = batch_size or getattr(loader, "batch_size", None) or 64
        num_workers = getattr(loader, "num_workers", 0) if num_workers is None else num_workers
        names = {name: named(value) for name, value in given.items()}  # a checkpoint holds plain values
        self._init_args |= names | {
            "batch_size": batch_size,
            "num_workers": num_workers,
            "collate_fn": named(collate_fn),
        }
        super().__init__(batch_size, num_workers)
        self.architecture_share, self.split_seed = architecture_share, split_seed
        self._given_inputs = inputs
        self._test_loader = test if isinstance(test, DataLoader) else None
        self.sets = {
            name: examples_of(value, name, collate_fn)
            for name, value in given.items()
            if value is not None and value is not self._test_loader
        }
        if architecture is not None and train is None:
            raise SettingError("train: there has to be a set to train on where there is one for architectures")

    # -- what there is -----------------------------------------------------------------------------------------------

    @property
    def has_test(self) -> bool:
        return self._test_loader is not None or "test" in self.sets

    @property
    def holds_out(self) -> bool:
        return "architecture" in self.sets

    def sizes(self) -> dict[str, int]:
        parts = [part for part in ("weights", "architecture") if "train" in self.sets]
        sizes = {f"{part} examples": len(self._positions[part]) for part in parts}
        subsets = {name: each.dataset for name, each in self.sets.items() if isinstance(each.dataset, Subset)}
        sizes |= {f"{name} positions": crc32(repr(list(each.indices)).encode()) for name, each in subsets.items()}
        return sizes

    @cached_property
    def _positions(self) -> dict[str, Tensor]:
        count = len(self._set("train"))
        everything = torch.arange(count)
        if "architecture" in self.sets:
            return {
                "weights": everything,
                "architecture": torch.arange(len(self.sets["architecture"])),
                "train": everything,
            }
        weights, architecture = divided(count, self.architecture_share, self.split_seed)
        return {"weights": weights, "architecture": architecture, "train": everything}

    def _set(self, name: str) -> Examples:
        if name not in self.sets:
            raise SettingError(f"{name}: there is no such set; hand over a Dataset or a DataLoader, OwnData({name}=…)")
        return self.sets[name]

    def _examples(self, part: str, views: int = 1, labelled: bool = True) -> Examples:
        if part not in PARTS:
            raise ValueError(f"there is no part {part!r}; there are {', '.join(PARTS)}")
        if part == "test":
            return self._set("test").part(None, views, labelled)
        positions = self._positions[part]
        if not len(positions):
            raise SettingError(
                f"architecture_share: {self.architecture_share} gives none of the {len(self._set('train'))} examples "
                f"to the {part} part; choose another, or hand over a larger set"
            )
        return self._set(self._set_of(part)).part(positions, views, labelled)

    def _set_of(self, part: str) -> str:
        """The name of the set that a part of the training data is in."""
        return "architecture" if part == "architecture" and self.holds_out else "train"

    # -- what is told from an example --------------------------------------------------------------------------------

    @cached_property
    def _glance(self) -> Any:
        """A batch of one example; None where they have no numbers."""
        loader = self._test_loader
        if self.sets:
            name, examples = next(iter(self.sets.items()))
        elif loader is not None and hasattr(loader.dataset, "__getitem__"):
            name, examples = "test", Examples(loader.dataset, loader.collate_fn)
        else:
            return None
        try:
            return examples.drawn([0], 0)
        except SettingError:
            raise
        except Exception as error:  # whatever a user's set or collate_fn raises
            reason = " ".join(str(error).split())[:200]
            raise SettingError(
                f"{name}: of its first example no batch can be made ({type(error).__name__}: {reason}); have its "
                "transform give tensors, or hand over a collate_fn that makes batches"
            ) from error

    @property
    def labelled(self) -> bool:  # type: ignore[override]
        return not isinstance(self._glance, Tensor)

    @cached_property
    def inputs(self) -> dict[str, int]:  # type: ignore[override]
        """What the network must know of the data, as far as it is given or can be told."""
        return dict(self._told[0] if self._given_inputs is None else self._given_inputs)

    def check_told(self, names: Iterable[str]) -> None:
        """Refuses to have something built for figures that are neither given nor told.

        Raises:
            SettingError: naming the first of them, why it is not told, and what to hand over.
        """
        if not self.sets and self._test_loader is None:
            self._set("train")
        for name in names:
            if name not in self.inputs:
                raise SettingError(
                    f"inputs: {name} is not known, {self._told[1]}; hand them over, to the module or to OwnData, e.g. "
                    "inputs={'channels': 3, 'image_size': 32, 'num_classes': 10}"
                )

    @cached_property
    def _told(self) -> tuple[dict[str, int], str]:
        """What an example and its set tell, and why no more."""
        batch = self._glance
        images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        if not isinstance(images, Tensor) or images.ndim != 4:
            return {}, f"and cannot be told from {describe(batch)}"
        _, channels, height, width = images.shape
        dataset = next((each.dataset for each in self.sets.values()), getattr(self._test_loader, "dataset", None))
        classes = count_classes(dataset)
        told = {"channels": channels} | ({} if classes is None else {"num_classes": classes})
        if height != width:
            return told, f"and images of {height}×{width} have no one size"
        return told | {"image_size": height}, f"and {type(dataset).__name__} has no classes or targets that tell it"

    # -- what it delivers --------------------------------------------------------------------------------------------

    def stream(self, part: str, seed: int, views: int = 1, labelled: bool = True) -> Stream:
        examples, devices = self._examples(part, views, labelled), self._ranks[1]
        count, batch_size = len(examples), self.batch_size
        if self._set_of(part) == "architecture":  # a set to validate on may be small
            batch_size = min(batch_size, max(count // devices, 1))
        if batch_size == self.batch_size:
            self.check_batch(part, count)
        if views > 1:
            self._check_views(examples, self._set_of(part))
        return DrawnStream(examples, Shuffled(count, batch_size, derive_seed(seed, part), *self._ranks))

    def remedy(self, part: str) -> str:
        return ", OwnData(…, batch_size=…)"

    def _check_views(self, examples: Examples, field: str) -> None:
        few = list(range(min(8, len(examples))))
        batch = examples.drawn(few, 0)
        views = batch[0] if examples.labelled else batch
        if (views == views[:, :1]).all():
            raise SettingError(
                f"{field}: {type(examples.dataset).__name__} would give {examples.views} views of an example that are "
                "all the same; let its transform draw at random"
            )

    def evaluation(self, part: str, n_batches: int | None = None, views: int = 1, labelled: bool = True) -> DataLoader:
        if part == "test" and self._test_loader is not None:
            if views == 1 and labelled and n_batches is None:
                return self._test_loader
            self.sets["test"] = examples_of(self._test_loader, "test", None)
        examples = self._examples(part, views, labelled)
        if n_batches is not None:
            size = min(len(examples), n_batches * self.batch_size)
            examples.positions = examples.positions[spread(len(examples), size)]
        size = evaluation_size(len(examples), self.batch_size)
        return DataLoader(examples, batch_size=size, collate_fn=as_is, num_workers=self.num_workers)

    def plain_batches(self, part: str = "weights") -> DataLoader:
        examples = self._examples(part)
        self.check_batch(part, len(examples))
        return DataLoader(
            Subset(examples.dataset, examples.positions.tolist()),
            batch_size=self.batch_size,
            shuffle=True,
            collate_fn=examples.collate,
            num_workers=self.num_workers,
            drop_last=True,
            worker_init_fn=None if examples.begin is None else examples.begin.function,
        )


class _Received:
    """Makes a batch of examples, and does to it what a user's data module does on its way to the device.

    There it would be given the batches of several streams together, and where architectures are ranked, none.
    """

    def __init__(self, collate: Callable[[list[Any]], Any], module: LightningDataModule) -> None:
        self.collate, self.module = collate, module

    def __call__(self, examples: list[Any]) -> Any:
        batch = self.module.on_before_batch_transfer(self.collate(examples), 0)
        return self.module.on_after_batch_transfer(batch, 0)


def as_data(data: AnyData) -> DataModule:
    """What streams and evaluates a user's data: a data module of this package as it is, and an :class:`OwnData` around
    anything else that a trainer's ``fit`` takes.

    Args:
        data: a data module of this package, any other ``LightningDataModule``, a ``Dataset`` or ``DataLoader`` to train
            on, or a pair of these, of which the second validates.

    Raises:
        SettingError: saying what is accepted.
    """
    if isinstance(data, DataModule):
        return data
    if isinstance(data, LightningDataModule):
        if data.trainer is None:  # else its trainer has set it up
            data.prepare_data()
            data.setup("fit")
        return of_module(data)
    return OwnData(*data) if isinstance(data, tuple) and len(data) == 2 else OwnData(data)


def of_module(module: LightningDataModule, inputs: dict[str, int] | None = None) -> "OwnData":
    """The sets behind the loaders of a data module that is set up.

    Args:
        module: the user's data module.
        inputs: what the network must know of the data; None: told from the first example.

    Raises:
        SettingError: naming what of the data module cannot be used, and what to do instead.
    """
    name = type(module).__name__
    if not is_overridden("train_dataloader", module):
        raise SettingError(f"data: {name} has no train_dataloader, and there is nothing else to train on")
    if is_overridden("transfer_batch_to_device", module):
        raise SettingError(
            f"data: {name}.transfer_batch_to_device would be given the batches of several streams together; leave it "
            "out, since whatever has a method to(device) is moved"
        )
    with within("data"):
        validation = only(module.val_dataloader()) if is_overridden("val_dataloader", module) else None
        own = OwnData(only(module.train_dataloader()), validation, inputs=inputs)
    if any(is_overridden(hook, module) for hook in ("on_before_batch_transfer", "on_after_batch_transfer")):
        for examples in own.sets.values():
            examples.collate = _Received(examples.collate, module)
    return own


def only(loaders: Any) -> Any:
    """The one loader of a list of one, as Lightning takes them, and None for an empty list; all else as it is."""
    if isinstance(loaders, list) and len(loaders) < 2:
        return loaders[0] if loaders else None
    return loaders


def count_classes(dataset: Any) -> int | None:
    """How many classes a set has, from its ``classes`` or its labels where these are at hand; None: it does not say."""
    if isinstance(dataset, Subset):
        return count_classes(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        counts = [count_classes(each) for each in dataset.datasets]
        return None if None in counts else max(counts)  # type: ignore[type-var]
    classes = getattr(dataset, "classes", None)
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        return len(classes)
    tensors: Any = getattr(dataset, "tensors", ())  # a TensorDataset's
    labels = getattr(dataset, "targets", tensors[1] if len(tensors) == 2 else None)
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):  # labels of any kind
        return None
    whole = labels.ndim == 1 and len(labels) and not labels.is_floating_point() and labels.dtype != torch.bool
    return int(labels.max()) + 1 if whole else None
