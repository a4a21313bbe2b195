"""CIFAR-10 (Krizhevsky 2009), read by way of torchvision."""

import json
import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_nas.data.images import ImageData, Transform, random_crop, random_flip
from lightning_nas.errors import SettingError

N_TRAIN = 50_000


class CIFAR10(ImageData):
    """60,000 colour images of 32×32 pixels in ten classes; 10,000 of them are the test part.

    Training images are padded by 4, cropped and flipped.

    Args:
        folder: the folder that holds ``cifar-10-batches-py/``; None: the one that the environment variable
            ``LIGHTNING_NAS_DATA`` names, else ``data``.
        download: whether the archive is fetched if the folder does not hold it.
        verify: whether the files are compared with the published checksums; switch it off for a re-encoded copy, of
            which nothing is downloaded.
        cutout: the side in pixels of the square that is cut out of each training image (DARTS: 16); 0: nothing is.
        batch_size: the number of images in a batch on each device.
        num_workers: the number of processes that prepare batches; 0: the main process prepares them.
        split: a file that divides the training images, numbered in the published order; None: they are divided at
            random. It is either NAS-Bench-201's ``cifar-split.txt``, JSON ``{"train": ["int", ["0", ...]], "valid":
            ...}`` (Dong and Yang 2020), whose ``train`` is the weights part; or an ``.npz`` with the single array
            ``train_mask_packed``, the ``np.packbits`` of a mask that is 1 for images of the weights part.
        architecture_share: the share of the training images on which architectures are judged (DARTS: half), where
            ``split`` is None.
        split_seed: the seed of the random division into the weights part and the architecture part, likewise.
    """

    adjustable = ImageData.adjustable | {"folder", "download", "verify"}

    mean = (0.49139968, 0.48215827, 0.44653124)  # as released with DARTS
    std = (0.24703233, 0.24348505, 0.26158768)

    def __init__(
        self,
        folder: str | None = None,
        download: bool = True,
        verify: bool = True,
        cutout: int = 0,
        batch_size: int = 64,
        num_workers: int = 2,
        split: str | None = None,
        architecture_share: float = 0.5,
        split_seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, architecture_share, split_seed, cutout)
        self.folder = Path(folder or os.environ.get("LIGHTNING_NAS_DATA", "data"))
        self.download = download
        self.verify = verify
        self.split = split
        self.inputs = {"channels": 3, "image_size": 32, "num_classes": 10}

    def prepare_data(self) -> None:
        from torchvision.datasets import CIFAR10 as Archive
        from torchvision.datasets.utils import check_integrity

        if self.split is not None:
            _read_split(self.split, N_TRAIN)  # a wrong file is refused before anything is downloaded
        place = self.folder / Archive.base_folder
        if not self.verify:
            if not place.is_dir():
                raise SettingError(
                    f"folder: no {Archive.base_folder}/ in {self.folder.absolute()}. Put the batches of CIFAR-10 "
                    "there, in the layout of the published archive; nothing is downloaded where verify is false"
                )
            return
        checksums = dict([*Archive.train_list, *Archive.test_list])
        there = [name for name in checksums if (place / name).exists()]
        others = [name for name in there if not check_integrity(str(place / name), checksums[name])]
        if others:
            raise SettingError(
                f"folder: in {place.absolute()} the checksums of {', '.join(others)} are not the published ones. "
                "If they were encoded again, set verify to false; if they are damaged, delete them and try again"
            )
        if len(there) == len(checksums):
            return
        try:
            Archive(str(self.folder), download=self.download)
        except (OSError, RuntimeError) as error:
            raise SettingError(
                f"folder: CIFAR-10 is not in {self.folder.absolute()} and could not be downloaded ({error}). "
                f"Put the published archive {Archive.filename} (MD5 {Archive.tgz_md5}) there and unpack it to "
                f"{Archive.base_folder}/; for files that were encoded again also set verify to false"
            ) from error

    def load(self, test: bool) -> tuple[Tensor, Tensor]:
        from torchvision.datasets import CIFAR10 as Archive

        names = [name for name, _ in (Archive.test_list if test else Archive.train_list)]
        batches = [_read(self.folder / Archive.base_folder / name) for name in names]
        return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])

    def transform(self, augment: bool) -> Transform | None:
        from torchvision.transforms import v2

        return v2.Compose([partial(random_crop, size=32, padding=4), random_flip]) if augment else None

    def division(self, count: int) -> tuple[Tensor, Tensor]:
        if self.split is None:
            return super().division(count)
        self.warn_of_division(f"the file {self.split} divides the training images, set split to null for another part")
        return _read_split(self.split, count)

    def enlarging(self, part: str) -> str:
        if self.split is None:
            return super().enlarging(part)
        return f"give the {part} part more images in the file {self.split} (split)"


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays only from the published batches, which are pickles, so that a forged file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        arrays = {"_reconstruct", "_frombuffer", "ndarray", "dtype"}
        if (module.partition(".")[0] == "numpy" and name in arrays) or (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of images")


def _read(path: Path) -> tuple[Tensor, Tensor]:
    try:
        with open(path, "rb") as file:
            batch = _ArraysOnly(file, encoding="latin1").load()
        images = torch.from_numpy(batch["data"].astype(np.uint8, casting="safe").reshape(-1, 3, 32, 32))
        labels = torch.tensor(batch["labels"], dtype=torch.long)
        if labels.shape != (len(images),) or not ((labels >= 0) & (labels < 10)).all():
            raise ValueError("there has to be a label from 0 to 9 for each image")
        return images, labels
    except Exception as error:  # whatever a damaged or foreign file raises
        raise SettingError(f"folder: {path} is not a batch of CIFAR-10 ({error})") from error


def _read_split(path: str, count: int) -> tuple[Tensor, Tensor]:
    """Returns the positions of the weights part and of the architecture part, each in order."""
    try:
        read = _packed_mask if path.endswith(".npz") else _published_split
        parts = [torch.tensor(sorted(part), dtype=torch.long) for part in read(Path(path), count)]
        both = torch.cat(parts)
        if not all(map(len, parts)):
            raise ValueError("each part needs an image")
        if both.min() < 0 or both.max() >= count:
            raise ValueError(f"images are numbered from 0 to {count - 1}")
        if len(both.unique()) < len(both):
            raise ValueError("an image may be in one part only, and there once")
    except Exception as error:  # whatever a damaged or foreign file raises
        raise SettingError(
            f"split: {path} does not divide the {count} training images ({error}). Expected is NAS-Bench-201's "
            "cifar-split.txt, or an .npz with the one array train_mask_packed"
        ) from error
    return parts[0], parts[1]


def _published_split(path: Path, count: int) -> list[list[int]]:
    content = json.loads(path.read_text())
    parts = []
    for name in ("train", "valid"):
        kind, numbers = content[name]
        if kind != "int" or not all(isinstance(number, str) for number in numbers):
            raise ValueError(f'{name} has to be ["int", ["0", ...]]')
        parts.append([int(number) for number in numbers])
    return parts


def _packed_mask(path: Path, count: int) -> list[list[int]]:
    with np.load(path, allow_pickle=False) as archive:
        if archive.files != ["train_mask_packed"]:
            raise ValueError(f"it has the arrays {', '.join(archive.files)}")
        packed = archive["train_mask_packed"]
    if packed.dtype != np.uint8 or packed.shape != (-(-count // 8),):
        raise ValueError(f"train_mask_packed has to be {-(-count // 8)} bytes")
    mask = np.unpackbits(packed, count=count)
    return [np.flatnonzero(mask == bit).tolist() for bit in (1, 0)]
