"""Batches of a user's set of examples, each a function of its number."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
    get_worker_info,
)

from lightning_nas.errors import SettingError
from lightning_nas.seeding import derive_seed


class Examples(Dataset):
    """Batches of a user's set, each a function of the numbers of its examples and of a seed.

    Args:
        dataset: the user's set, which is asked for one example at a time.
        collate: the function that makes a batch of examples.
        begin: the function that is called once in each process that prepares batches, with its number; None: none is.
        positions: the positions in the user's set of the examples that are in this one; None: all are.
        views: the number of times that each example is asked for, each with random numbers of its own.
        labelled: whether a batch has the labels too; without, it is the examples alone.
    """

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[list[Any]], Any],
        begin: "OncePerWorker | None" = None,
        positions: Tensor | None = None,
        views: int = 1,
        labelled: bool = True,
    ) -> None:
        self.dataset, self.collate, self.begin = dataset, collate, begin
        self.positions = torch.arange(len(dataset)) if positions is None else positions
        self.views, self.labelled = views, labelled

    def __len__(self) -> int:
        return len(self.positions)

    def part(self, positions: Tensor | None, views: int = 1, labelled: bool = True) -> "Examples":
        """Some of the examples, read in another way."""
        return Examples(self.dataset, self.collate, self.begin, positions, views, labelled)

    def __getitems__(self, numbers: Sequence[int]) -> Any:
        """A batch for evaluation, the same in every pass."""
        return self.drawn(numbers, derive_seed("evaluated", int(numbers[0])))

    def drawn(self, numbers: Sequence[int] | Tensor, seed: int) -> Any:
        """The batch of these examples, with everything drawn from PyTorch's, NumPy's and Python's own generators drawn
        from a seed. These are left as they were."""
        import numpy as np

        if self.begin is not None:
            self.begin()
        positions = self.positions[torch.as_tensor(numbers)].tolist()
        with isolate_rng(include_cuda=False):
            torch.random.default_generator.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002  (the generator that users' transforms draw from)
            random.seed(seed)
            batches = [self.collate(self._examples(positions)) for _ in range(self.views)]
        if self.views == 1 and self.labelled:
            return batches[0]
        return self._views(batches)

    def _examples(self, positions: list[int]) -> list[Any]:
        together = getattr(self.dataset, "__getitems__", None)  # which PyTorch's loader prefers, too
        return together(positions) if together else [self.dataset[position] for position in positions]

    def _views(self, batches: list[Any]) -> Any:
        first = batches[0]
        pair = isinstance(first, (tuple, list)) and len(first) == 2
        if not pair and not (isinstance(first, Tensor) and not self.labelled):
            asked = f"{self.views} views" if self.views > 1 else "examples without labels"
            raise SettingError(f"train: the task reads {asked}, of examples (x, y) or x, got {describe(first)}")
        inputs = [batch[0] if pair else batch for batch in batches]
        stacked = inputs[0] if self.views == 1 else torch.stack(inputs, dim=1)
        return (stacked, first[1]) if self.labelled else stacked


class OncePerWorker:
    """Calls a loader's ``worker_init_fn`` in each process that prepares batches, before its first one."""

    def __init__(self, function: Callable[[int], None]) -> None:
        self.function, self.done = function, False

    def __call__(self) -> None:
        worker = get_worker_info()
        if worker is not None and not self.done:
            self.done = True
            self.function(worker.id)


def examples_of(given: Any, field: str, collate: Callable[[list[Any]], Any] | None) -> Examples:
    """The examples of a set or of a loader.

    Args:
        given: the ``Dataset`` or ``DataLoader``.
        field: what it is called in an error.
        collate: the function that makes a batch of examples; None: the loader's, or PyTorch's.

    Raises:
        SettingError: if its examples cannot be taken by their numbers, saying what to hand over.
    """
    loader = given if isinstance(given, DataLoader) else None
    dataset = given if loader is None else loader.dataset
    hand_over = "hand over a Dataset with a length, or a DataLoader of one"
    if isinstance(given, str):
        raise SettingError(
            f"{field}: a checkpoint has just the name of your set, {given}; hand the data themselves over, in Python"
        )
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise SettingError(f"{field}: examples are taken by their numbers, got {named(dataset)}; {hand_over}")
    if isinstance(dataset, (list, tuple, dict, str)):  # such as several loaders
        raise SettingError(f"{field}: one set or one loader, got {named(dataset)}; {hand_over}")
    if not len(dataset):
        raise SettingError(f"{field}: at least one example, got an empty {named(dataset)}")
    if loader is None:
        return Examples(dataset, collate or default_collate)
    _check_sampling(loader, field)
    begin = None if loader.worker_init_fn is None else OncePerWorker(loader.worker_init_fn)
    return Examples(dataset, collate or loader.collate_fn, begin)


def _check_sampling(loader: DataLoader, field: str) -> None:
    """Refuses a loader that says itself which examples are in a batch, which here the search does."""
    if loader.batch_size is None:
        what = "batch_sampler" if loader.batch_sampler is not None else "batch_size=None"
        raise SettingError(f"{field}: a loader with {what}; hand over one with a batch_size, or its dataset")
    sampler = loader.sampler
    plain = isinstance(sampler, (SequentialSampler, RandomSampler, DistributedSampler))
    again = isinstance(sampler, RandomSampler) and (
        sampler.replacement or sampler.num_samples != len(sampler.data_source)
    )
    if not plain or again or type(loader.batch_sampler) is not BatchSampler:
        name = type(sampler).__name__ if not plain or again else type(loader.batch_sampler).__name__
        raise SettingError(
            f"{field}: the order of the examples is the search's own, got a loader with {name}; hand over one with "
            "shuffle=True, or the dataset: a Subset of it for some of the examples"
        )


def named(value: Any) -> str | None:
    """What a checkpoint and messages call a set or a function."""
    if value is None:
        return None
    value = value.dataset if isinstance(value, DataLoader) else value
    return getattr(value, "__qualname__", type(value).__name__)


def describe(batch: Any) -> str:
    """What messages call a batch: its parts, their shapes and types."""
    if isinstance(batch, Tensor):
        return f"a tensor {tuple(batch.shape)} of {str(batch.dtype).removeprefix('torch.')}"
    if isinstance(batch, Mapping):
        return f"a dictionary of {', '.join(map(str, batch))}"
    if isinstance(batch, (tuple, list)):
        return f"({', '.join(map(describe, batch))})"
    return f"a {type(batch).__name__}"
