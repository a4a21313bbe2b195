"""CIFAR-10 (Krizhevsky 2009) through torchvision."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_nas.data.images import ImageData, Transform
from lightning_nas.errors import SettingError


class CIFAR10(ImageData):
    """60,000 colour images of 32×32 pixels in ten classes; 10,000 of them are the test part.

    Training images are padded by 4, cropped and flipped.

    Args:
        folder: holds ``cifar-10-batches-py/``; None: the environment variable ``LIGHTNING_NAS_DATA``, else ``data``.
        download: fetch the archive if the folder does not hold it.
        verify: compare the files with the published checksums; switch off for a copy that was encoded anew.
        batch_size: per device.
        num_workers: processes that prepare batches; 0: the main process.
        architecture_share: the part of the training images that the architecture is judged on (DARTS: half).
        split_seed: of the division into weights and architecture part.
    """

    mean = (0.49139968, 0.48215827, 0.44653124)  # as released with DARTS
    std = (0.24703233, 0.24348505, 0.26158768)

    def __init__(
        self,
        folder: str | None = None,
        download: bool = True,
        verify: bool = True,
        batch_size: int = 64,
        num_workers: int = 2,
        architecture_share: float = 0.5,
        split_seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, architecture_share, split_seed)
        self.folder = Path(folder or os.environ.get("LIGHTNING_NAS_DATA", "data"))
        self.download = download
        self.verify = verify
        self.inputs = {"channels": 3, "image_size": 32, "num_classes": 10}

    def prepare_data(self) -> None:
        from torchvision.datasets import CIFAR10 as Archive

        if not self.verify:
            if not (self.folder / Archive.base_folder).is_dir():
                raise SettingError(
                    f"data.folder: no {Archive.base_folder}/ in {self.folder.absolute()}. Put the batches of CIFAR-10 "
                    "there, in the layout of the published archive"
                )
            return
        try:
            Archive(str(self.folder), download=self.download)
        except (OSError, RuntimeError) as error:
            raise SettingError(
                f"data.folder: CIFAR-10 is not in {self.folder.absolute()} and could not be downloaded ({error}). "
                f"Put the published archive {Archive.filename} (MD5 {Archive.tgz_md5}) there and unpack it to "
                f"{Archive.base_folder}/; for files that were encoded anew also set data.verify to false"
            ) from error

    def load(self, test: bool) -> tuple[Tensor, Tensor]:
        from torchvision.datasets import CIFAR10 as Archive

        names = [name for name, _ in (Archive.test_list if test else Archive.train_list)]
        batches = [_read(self.folder / Archive.base_folder / name) for name in names]
        return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])

    def augmentation(self) -> Transform:
        from torchvision.transforms import v2

        return v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])


class _ArraysOnly(pickle.Unpickler):
    """The published batches are pickles; of those only arrays are read, so that a forged file cannot run code."""

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
        raise SettingError(f"data.folder: {path} is no batch of CIFAR-10 ({error})") from error
