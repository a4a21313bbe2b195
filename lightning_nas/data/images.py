"""Images in memory: sets, streams with augmentation, and the data module that all image data share."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_nas.data.base import DataModule, Shuffled, Stream
from lightning_nas.errors import SettingError
from lightning_nas.seeding import derive_seed

Transform = Callable[[Tensor], Tensor]
Batch = tuple[Tensor, Tensor]
PARTS = ("weights", "architecture", "train", "test")


class ImageSet(Dataset):
    """Images ``(N, C, H, W)`` as bytes, labels ``(N,)``.

    Args:
        mean, std: of each channel, on the scale 0 to 1; batches are normalised by them.
        augment: applied to one image of bytes; None: none.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, mean: Sequence[float], std: Sequence[float], augment: Transform | None
    ) -> None:
        self.images, self.labels, self.augment = images, labels, augment
        self.mean = torch.tensor(mean).view(1, -1, 1, 1)
        self.std = torch.tensor(std).view(1, -1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, positions: Sequence[int] | Tensor) -> Batch:
        """A normalised batch: ``(n, C, H, W)`` float, ``(n,)``."""
        images = self.images[positions]
        if self.augment is not None:
            images = torch.stack([self.augment(image) for image in images])
        return (images.float() / 255 - self.mean) / self.std, self.labels[positions]


class ImageStream:
    """Augmented batches of a set; what is random in a batch depends on the seed and the batch's number alone."""

    def __init__(self, images: ImageSet, order: Shuffled) -> None:
        self.images, self.order = images, order

    def __len__(self) -> int:
        return len(self.order)

    def get(self, index: int) -> Batch:
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(derive_seed(self.order.seed, "augment", index, self.order.rank))
            return self.images.__getitems__(self.order.get(index))


class ImageData(DataModule):
    """Image classification from data that fits in memory. A subclass says how to :meth:`load` it.

    Args:
        batch_size: per device.
        num_workers: processes that prepare batches; 0: the main process.
        architecture_share: the part of the training images that the architecture is judged on; the rest trains weights.
        split_seed: of that division. It is apart from a run's seed, so that runs are comparable.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __init__(self, batch_size: int, num_workers: int, architecture_share: float, split_seed: int) -> None:
        super().__init__(batch_size, num_workers)
        if not 0 < architecture_share < 1:
            raise SettingError(f"data.architecture_share: between 0 and 1, got {architecture_share}")
        self.architecture_share = architecture_share
        self.split_seed = split_seed
        self._sets: dict[tuple[str, bool], ImageSet] = {}

    def load(self, test: bool) -> tuple[Tensor, Tensor]:
        """Images ``(N, C, H, W)`` as bytes and labels ``(N,)`` of the training or the test data."""
        raise NotImplementedError

    def augmentation(self) -> Transform | None:
        """The transform of training images, or None."""
        return None

    def _set(self, part: str, augment: bool) -> ImageSet:
        if part not in PARTS:
            raise ValueError(f"there is no part {part!r}; there are {', '.join(PARTS)}")
        if (part, augment) not in self._sets:
            images, labels = self.load(test=part == "test")
            if part in ("weights", "architecture"):
                generator = torch.Generator().manual_seed(derive_seed(self.split_seed, "split"))
                order = torch.randperm(len(labels), generator=generator)
                n_architecture = round(len(labels) * self.architecture_share)
                keep = order[:n_architecture] if part == "architecture" else order[n_architecture:]
                images, labels = images[keep], labels[keep]
            transform = self.augmentation() if augment else None
            self._sets[part, augment] = ImageSet(images, labels, self.mean, self.std, transform)
        return self._sets[part, augment]

    def stream(self, part: str, seed: int) -> Stream:
        images = self._set(part, augment=True)
        return ImageStream(images, Shuffled(len(images), self.batch_size, derive_seed(seed, part), *self._ranks))

    def evaluation(self, part: str) -> DataLoader:
        images = self._set(part, augment=False)
        return DataLoader(images, self.batch_size, collate_fn=_as_is, num_workers=self.num_workers)

    def plain_batches(self) -> DataLoader:
        images = self._set("weights", augment=True)
        return DataLoader(
            images,
            self.batch_size,
            shuffle=True,
            collate_fn=_as_is,
            num_workers=self.num_workers,
            drop_last=True,
        )


def _as_is(batch: Any) -> Any:
    return batch
