"""Data modules own *sets* (the weights half, the architecture half, test); a method owns the *schedule*.

A stream is an endless sequence of batches of one set, each batch a pure function of its number. A schedule says which
batches of which streams a step gets. Both can be accessed at random, so a search resumes at any step with the same
batches, and every rank takes its own share.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader, Dataset

from lightning_nas.errors import SettingError
from lightning_nas.seeding import derive_seed
from lightning_nas.specs import Configurable

VALIDATION = ("val", "valid", "validation")
"""Names of the images or the text to validate on that are read."""

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": (*VALIDATION, "dev", "development", "eval", "evaluation"),
    "test": ("test", "tests", "testing"),
}
"""What folders and files of each split are called by those who make them. Which of them are read a module says; one
that is not read is never passed over in silence."""


def find_split(split: str, accepted: Sequence[str], names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of the names in a folder those that are read for a split, and those that only look like it (``Train``, ``dev``).

    Args:
        split: ``train``, ``val`` or ``test``.
        accepted: the names that are read.
        names: the names of folders or of text files.
    """
    present = sorted(names)
    alike = [name for name in present if name.lower().removesuffix(".txt") in SPLIT_NAMES[split]]
    return [name for name in accepted if name in present], [name for name in alike if name not in accepted]


class Stream(Protocol):
    """Delivers the batches of one set, which is shuffled again for every pass."""

    def __len__(self) -> int:
        """Returns the number of batches in one pass."""

    def get(self, index: int) -> Any:
        """Returns batch number ``index`` since the start of training, the same at every call."""


Plan = Callable[[int, int], Mapping[str, int]]
"""Maps ``(epoch, step)`` to the number of the batch that each named stream delivers in this step."""


class Schedule:
    """Delivers what a method trains on: for every step a dictionary of batches by stream name.

    Lightning asks for the iterator before it has restored the epoch, so the position is read at the first ``next``.

    Args:
        streams: the streams of batches by their names.
        length: the number of steps in one epoch.
        position: a function that returns ``(epoch, step)`` of the next step.
        plan: the function that says which batches a step gets; None: every stream delivers one in every step.
        num_workers: the number of processes that prepare batches; 0: this process prepares them.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        length: int,
        position: Callable[[], tuple[int, int]],
        plan: Plan | None = None,
        num_workers: int = 0,
    ) -> None:
        self._batches = _Batches(streams, length, plan)
        self._length = length
        self._position = position
        self._num_workers = num_workers

    def __len__(self) -> int:
        return self._length

    def get(self, epoch: int, step: int) -> dict[str, Any]:
        """Returns the batches of one step by stream name."""
        return self._batches[epoch, step]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, first = self._position()
        steps = [(epoch, step) for step in range(first, self._length)]
        if not steps:
            return
        yield from DataLoader(
            self._batches,
            batch_size=None,
            sampler=steps,
            num_workers=self._num_workers,
            pin_memory=torch.cuda.is_available(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns what must not change between interruption and resuming; the trainer restores the position."""
        return {"length": self._length, "streams": {name: len(s) for name, s in self._batches.streams.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state != self.state_dict():
            raise SettingError(
                f"the checkpoint was made with another schedule ({state}) than this one ({self.state_dict()}); "
                "resume with the same data, batch size and number of devices"
            )


class _Batches(Dataset):
    """Gives the workers of a ``DataLoader`` random access to the steps of a schedule."""

    def __init__(self, streams: Mapping[str, Stream], length: int, plan: Plan | None) -> None:
        self.streams = dict(streams)
        self.length = length
        self.plan = plan

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, step = key
        side_by_side = dict.fromkeys(self.streams, epoch * self.length + step)
        numbers = side_by_side if self.plan is None else self.plan(epoch, step)
        return {name: self.streams[name].get(number) for name, number in numbers.items()}


class Shuffled:
    """Orders a stream: says which of ``size`` examples are in batch ``index`` of this rank.

    Every pass is a new permutation. Batches are full: the few examples that remain at the end of a pass are left out.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1 or size < batch_size * world_size:
            raise SettingError(
                f"batch_size: at least 1, and a full batch for each of {world_size} devices has to be among the "
                f"{size} examples of the set, got {batch_size}"
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self._pass, self._order = -1, torch.empty(0, dtype=torch.long)

    def __len__(self) -> int:
        return self.size // (self.batch_size * self.world_size)

    def get(self, index: int) -> torch.Tensor:
        """Returns the positions of the batch's examples, ``(batch_size,)``."""
        number, batch = divmod(index, len(self))
        if number != self._pass:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "pass", number))
            self._pass, self._order = number, torch.randperm(self.size, generator=generator)
        first = (batch * self.world_size + self.rank) * self.batch_size
        return self._order[first : first + self.batch_size]


class DrawnStream:
    """Delivers training batches of a set; what is random in one depends on the seed and the batch's number alone.

    Args:
        examples: the set, whose ``drawn(numbers, seed)`` makes a batch of the examples with these numbers.
        order: which examples are in which batch.
    """

    def __init__(self, examples: Any, order: Shuffled) -> None:
        self.examples, self.order = examples, order

    def __len__(self) -> int:
        return len(self.order)

    def get(self, index: int) -> Any:
        """Returns batch number ``index`` since the start of training."""
        seed = derive_seed(self.order.seed, "augment", index, self.order.rank)
        return self.examples.drawn(self.order.get(index), seed)


def as_is(batch: Any) -> Any:
    """A ``collate_fn`` for sets that make batches themselves."""
    return batch


def spread(count: int, size: int) -> torch.Tensor:
    """The positions of ``size`` examples spread evenly over ``count``, since those of a class may follow each other."""
    return torch.arange(size) * count // size


def divided(count: int, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Divides ``count`` training examples at random: the positions of the weights part, and of the architecture part.

    Args:
        count: the number of examples.
        share: the share of the architecture part.
        seed: the seed of the division.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "split"))
    order = torch.randperm(count, generator=generator)
    n_architecture = round(count * share)
    return order[n_architecture:], order[:n_architecture]


def evaluation_size(count: int, batch_size: int) -> int:
    """The number of examples in a batch of an evaluation. One that is left over alone has no statistics of a batch, so
    a smaller size is taken where it helps."""
    return next((size for size in range(batch_size, 1, -1) if count % size != 1), batch_size)


class Scheduled(ABC):
    """What a trainer's module inherits from that says itself which batches of our data modules it trains on."""

    @abstractmethod
    def schedule(self, data: "DataModule") -> Any:
        """What is trained on: what a trainer gets for training batches."""
        raise NotImplementedError

    @property
    def reads(self) -> dict[str, Any]:
        """What evaluations have to deliver beyond one view of each example with its label, as their arguments."""
        return {}


class DataModule(Configurable, LightningDataModule, ABC):
    """A data set in three parts: ``weights`` and ``architecture`` share the training data, and only testing touches
    ``test``.

    It serves any ``LightningModule``. A :class:`Scheduled` one, such as our methods, says what it trains on. Any other
    trains on shuffled batches of the weights part, in an order that comes from PyTorch's global seed, and validates on
    the architecture part. A module whose attribute ``validation_part`` is None trains on both parts and is not
    validated; one that names a part there is validated on it. All test on the test part, and predict on it.

    Attributes:
        inputs: the figures of the data that a network needs (such as ``channels``, ``image_size``, ``num_classes``).
    """

    inputs: dict[str, int]

    modality: ClassVar[str | None] = None
    """What the batches are, ``images`` or ``text``; None: something else, which is not checked against the network."""

    adjustable = frozenset({"num_workers"})

    labelled: bool = True
    """Whether its examples have labels, which most tasks read."""

    rebuilds: ClassVar[bool] = True
    """Whether its spec, as a checkpoint has it, makes the same data again."""

    is_empty: ClassVar[bool] = False
    """Whether this module holds no data at all, for searches that need none."""

    def __init__(self, batch_size: int, num_workers: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise SettingError(f"batch_size: at least 1, got {batch_size}")
        if num_workers < 0:
            raise SettingError(f"num_workers: 0 or more, got {num_workers}")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.save_hyperparameters(self.spec["init_args"], logger=False)

    @property
    def has_test(self) -> bool:
        """Whether there is a test part, as far as a glance at the files tells; where there is none, testing is refused
        and no next step should propose it."""
        return True

    @property
    def holds_out(self) -> bool:
        """Whether the user has handed over the architecture part by itself, so that ``train`` does not have it, and a
        training on ``train`` validates on it."""
        return False

    def sizes(self) -> dict[str, int]:
        """How many examples the parts have, by name. A run continues on data with the same sizes alone: otherwise
        architectures would be judged on what weights were trained on. Empty: not checked."""
        return {}

    @abstractmethod
    def stream(self, part: str, seed: int, views: int = 1, labelled: bool = True) -> Stream:
        """Returns training batches for this rank.

        Args:
            part: ``weights``, ``architecture`` or ``train`` (both together).
            seed: the seed of the order of the examples and of their augmentation.
            views: the number of independently augmented views of each example. With several, images are ``(N, views,
                C, H, W)``, of which the first view is what a stream of one view gives.
            labelled: whether a batch has labels; without, it is the examples alone.

        Raises:
            SettingError: if the data have no such views, or no labels.
        """
        raise NotImplementedError

    @abstractmethod
    def evaluation(self, part: str, n_batches: int | None = None, views: int = 1, labelled: bool = True) -> DataLoader:
        """Delivers each example of a part once and in order: one view without augmentation, or several augmented ones,
        the same in every pass.

        Args:
            part: ``weights``, ``architecture``, ``train`` or ``test``.
            n_batches: the number of batches, spread over the part; None: all.
            views: the number of views of each example, as in :meth:`stream`.
            labelled: whether a batch has labels, likewise.
        """
        raise NotImplementedError

    def refuse_views(self, views: int, labelled: bool) -> None:
        """Refuses, for data that have no others, all but one view of each example with its label.

        Raises:
            SettingError: naming what was asked for.
        """
        if views != 1 or not labelled:
            asked = f"{views} views" if labelled else f"{views} views without labels"
            raise SettingError(f"data: {type(self).__name__} gives one view of each example, with labels, not {asked}")

    example_name: ClassVar[str] = "examples"
    """What messages call its examples."""

    def remedy(self, part: str) -> str:
        """What else helps a part that is too small for a batch, as messages say it."""
        return ""

    def check_batch(self, part: str, count: int) -> None:
        """Refuses a part in which there is no full batch for each device, of which a loader would just deliver nothing.

        Raises:
            SettingError: saying what batch size would do.
        """
        devices = self._ranks[1]
        if self.batch_size * devices > count:
            where = f" on each of {devices} devices" if devices > 1 else ""
            smaller = f"set batch_size to at most {count // devices}" if count >= devices else "use fewer devices"
            raise SettingError(
                f"batch_size: {self.batch_size}{where} is more than the {count} {self.example_name} of the {part} "
                f"part, which then has no full batch; {smaller}{self.remedy(part)}"
            )

    @property
    def _module(self) -> Any:
        return None if self.trainer is None else self.trainer.lightning_module

    @property
    def _reads(self) -> dict[str, Any]:
        """What the module reads beyond the usual; a foreign one reads what there is."""
        if isinstance(self._module, Scheduled):
            return self._module.reads
        return {} if self.labelled else {"labelled": False}

    @property
    def _validation_part(self) -> str | None:
        module = self._module
        validates = not isinstance(module, LightningModule) or is_overridden("validation_step", module)
        return getattr(module, "validation_part", "architecture" if validates else None)

    @property
    def _ranks(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def train_dataloader(self) -> Any:
        if isinstance(self._module, Scheduled):
            return self._module.schedule(self)
        return self.plain_batches("train" if self._validation_part is None else "weights")

    @abstractmethod
    def plain_batches(self, part: str = "weights") -> DataLoader:
        """Returns shuffled training batches for a module that has no schedule.

        Args:
            part: ``weights``, or ``train`` for both parts together.
        """
        raise NotImplementedError

    def val_dataloader(self) -> Any:
        part = self._validation_part
        return [] if part is None else self.evaluation(part, **self._reads)

    def test_dataloader(self) -> DataLoader:
        return self.evaluation("test", **self._reads)

    def predict_dataloader(self) -> DataLoader:
        """The test part in order, as evaluations deliver it; images come without their labels."""
        return self.evaluation("test")
