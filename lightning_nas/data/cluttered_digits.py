"""Handwritten digits somewhere among pieces of other digits: made images that need no download."""

from functools import cached_property

import torch
from torch import Tensor

from lightning_nas.data.digits import source_digits
from lightning_nas.data.images import ImageData
from lightning_nas.errors import SettingError
from lightning_nas.seeding import derive_seed

DIGIT, PIECE = 8, 4  # sides in pixels
N_TEST = 2000


class ClutteredDigits(ImageData):
    """Grey images in ten classes: one of scikit-learn's digits at a random place among 4×4 pieces of other digits.

    Harder than :class:`Digits`, so that architectures differ more (after the cluttered MNIST of Mnih et al. 2014). The
    background is black; where the digit and pieces overlap, the brighter pixel counts. The same settings always make
    the same images. Weights part, architecture part and test part are made from different digits: the training digits
    of :class:`Digits` are divided at random before images are made, and the 2,000 test images, always the same for an
    ``image_size`` and a number of ``pieces``, are made from its 360 test digits. Training images are not augmented.

    Args:
        n_images: the number of training images that are made.
        image_size: the side of the images in pixels, 8 or more.
        pieces: the number of pieces of other digits in an image.
        batch_size: the number of images in a batch on each device.
        num_workers: the number of processes that prepare batches; 0: the main process prepares them.
        architecture_share: the share of the training images on which architectures are judged, and of the digits they
            are made from.
        split_seed: the seed of the random division of digits between the weights part and the architecture part, and
            of the training images that are made from them.
    """

    adjustable = ImageData.adjustable - {"cutout"}

    def __init__(
        self,
        n_images: int = 16000,
        image_size: int = 14,
        pieces: int = 4,
        batch_size: int = 64,
        num_workers: int = 0,
        architecture_share: float = 0.5,
        split_seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, architecture_share, split_seed)
        if not 0.01 <= architecture_share <= 0.99:
            raise SettingError(f"architecture_share: between 0.01 and 0.99, got {architecture_share}")
        if n_images < 100:
            raise SettingError(f"n_images: at least 100, got {n_images}")
        if image_size < DIGIT:
            raise SettingError(f"image_size: at least {DIGIT}, got {image_size}")
        if pieces < 0:
            raise SettingError(f"pieces: 0 or more, got {pieces}")
        self.n_images = n_images
        self.pieces = pieces
        self.inputs = {"channels": 1, "image_size": image_size, "num_classes": 10}

    @cached_property
    def mean(self) -> list[float]:  # type: ignore[override]  # measured once the images are made
        return [torch.as_tensor(self._training[0]).double().mean().item() / 255]

    @cached_property
    def std(self) -> list[float]:  # type: ignore[override]
        return [torch.as_tensor(self._training[0]).double().std().item() / 255]

    def load(self, test: bool) -> tuple[Tensor, Tensor]:
        digits, labels = source_digits(test)
        if test:
            return self._make(digits, labels, N_TEST, derive_seed("cluttered digits", "test"))
        made = []
        for part, sources, positions in zip(
            ("weights", "architecture"), super().division(len(digits)), self.division(self.n_images), strict=True
        ):
            seed = derive_seed(self.split_seed, "cluttered digits", part)
            made.append(self._make(digits[sources], labels[sources], len(positions), seed))
        images, labels = map(torch.cat, zip(*made, strict=True))
        return images, labels

    def division(self, count: int) -> tuple[Tensor, Tensor]:
        """The first images are the weights part, the last the architecture part, since :meth:`load` makes them so.

        They show different digits; a random division of the images would not keep them apart.
        """
        n_weights = count - round(count * self.architecture_share)
        return torch.arange(n_weights), torch.arange(n_weights, count)

    def _make(self, digits: Tensor, labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Makes ``count`` images of the digits ``(N, 1, 8, 8)``, which take turns."""
        generator = torch.Generator().manual_seed(seed)
        size, n_digits = self.inputs["image_size"], len(digits)
        digits = digits.squeeze(1)
        shown = torch.arange(count) % n_digits
        images = torch.zeros(count, size, size, dtype=torch.uint8)
        for _ in range(self.pieces):
            others = (shown + torch.randint(1, n_digits, (count,), generator=generator)) % n_digits
            pieces = digits[others][random_squares(count, DIGIT, PIECE, generator)]
            place = random_squares(count, size, PIECE, generator)
            images[place] = torch.maximum(images[place], pieces)
        place = random_squares(count, size, DIGIT, generator)
        images[place] = torch.maximum(images[place], digits[shown])
        return images[:, None], labels[shown]


def random_squares(count: int, size: int, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Indexes a square of ``side`` pixels at a random place in each of ``count`` images ``(count, size, size)``."""
    rows, columns = torch.randint(size - side + 1, (2, count, 1), generator=generator) + torch.arange(side)
    return torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
