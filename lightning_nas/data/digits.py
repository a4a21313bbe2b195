"""Handwritten digits that come with scikit-learn: real data that need no download."""

from functools import partial

import torch
from torch import Tensor

from lightning_nas.data.images import ImageData, Transform, random_crop
from lightning_nas.errors import SettingError
from lightning_nas.seeding import derive_seed

N_TEST = 360  # a fifth


def source_digits(test: bool) -> tuple[Tensor, Tensor]:
    """Images ``(N, 1, 8, 8)`` as bytes and labels ``(N,)`` of the 1,437 training digits or of the 360 to test."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    generator = torch.Generator().manual_seed(derive_seed("digits", "test"))
    order = torch.randperm(len(labels), generator=generator)
    keep = order[:N_TEST] if test else order[N_TEST:]
    images = torch.from_numpy(pixels).view(-1, 1, 8, 8)[keep] * (255 / 16)
    return images.round().byte(), torch.from_numpy(labels)[keep]


class Digits(ImageData):
    """1,797 grey images of 8×8 pixels in ten classes (``sklearn.datasets.load_digits``; Alpaydin and Kaynak 1998).

    A fifth is the test part, always the same 360 images; the 1,437 others are divided into the weights part and the
    architecture part. Training images are shifted by up to one eighth of their size.

    Args:
        image_size: the side of the images in pixels; sizes other than 8 are interpolated.
        channels: the number of channels to which the grey channel is repeated.
        cutout: the side in pixels of the square that is cut out of each training image; 0: nothing is cut out.
        batch_size: the number of images in a batch on each device.
        num_workers: the number of processes that prepare batches; 0: the main process prepares them.
        architecture_share: the share of the training images on which architectures are judged.
        split_seed: the seed of the random division into the weights part and the architecture part.
    """

    def __init__(
        self,
        image_size: int = 8,
        channels: int = 1,
        cutout: int = 0,
        batch_size: int = 64,
        num_workers: int = 0,
        architecture_share: float = 0.5,
        split_seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, architecture_share, split_seed, cutout)
        if image_size < 8:
            raise SettingError(f"image_size: at least 8, got {image_size}")
        if channels < 1:
            raise SettingError(f"channels: at least 1, got {channels}")
        self.inputs = {"channels": channels, "image_size": image_size, "num_classes": 10}
        self.mean, self.std = [0.305] * channels, [0.376] * channels  # of all pixels of the training images

    def load(self, test: bool) -> tuple[Tensor, Tensor]:
        from torchvision.transforms.v2.functional import resize

        images, labels = source_digits(test)
        size, channels = self.inputs["image_size"], self.inputs["channels"]
        images = resize(images, [size, size], antialias=True)
        return images.expand(-1, channels, -1, -1).contiguous(), labels

    def transform(self, augment: bool) -> Transform | None:
        size = self.inputs["image_size"]
        return partial(random_crop, size=size, padding=size // 8) if augment else None
