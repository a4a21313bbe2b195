"""Images in a user's folder, one folder for each class, or without classes."""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_nas.data.base import VALIDATION, find_split
from lightning_nas.data.images import ImageData, Transform, random_crop, random_flip
from lightning_nas.errors import SettingError
from lightning_nas.files import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
LARGEST_MEDIAN = 224  # pixels: what networks for photographs take
SMALL = 64  # pixels: up to here whole images are shifted, above parts of any size are taken
LAYOUT = f"Expected are train/CLASS/, and if there are such val/CLASS/ and test/CLASS/, with {', '.join(EXTENSIONS)}"
FOLDERS = {"train": ("train",), "val": VALIDATION, "test": ("test",)}
SCAN_VERSION = 2  # of what a scan finds in the same files; 2: photographs are upright


class ImageFolder(ImageData):
    """Images in ``folder/{train,val,test}/CLASS/``, decoded when they are needed.

    With ``val/`` the weights part is ``train/`` and the architecture part ``val/``; without, ``train/`` is divided.
    ``val/`` may be called ``valid/`` or ``validation/``. Classes are the folders of ``train/``, two at least. Only
    testing needs ``test/``. A folder that looks like one of the three and is not read (``Train/``, ``dev/``,
    ``testing/``) is an error where it could be the missing one, else a warning. So are files outside of the classes'
    folders and files with other endings than images have.

    Channels (1 if all training images are grey, else 3), mean and deviation are read from the images of ``train/`` and
    ``val/``. For this all files are decoded once; the result is kept in ``~/.cache/lightning_nas/`` (or
    ``$XDG_CACHE_HOME``) for as long as the files stay as they are. Files that cannot be decoded are named in a warning
    and left out. Photographs are turned upright, as the camera noted (EXIF).

    With ``labelled=False`` the images have no classes: all below ``train/`` are read, and all below ``val/`` and
    ``test/``, for tasks that want no labels.

    Evaluation scales the shorter side to ``image_size`` and crops the centre. Training images of up to 64 pixels are
    scaled likewise, padded by an eighth and cropped at random; of larger ones random parts are taken, of 8 to 100 % of
    the area and 3:4 to 4:3 (Szegedy et al. 2015, section 6). Half of them are mirrored.

    Args:
        folder: holds ``train/``, and if there are such ``val/`` and ``test/``.
        image_size: pixels; None: that of the training images where all are square and of one size, else the median of
            their shorter sides, at most 224.
        flip: mirror training images at random; switch off where left and right matter, as in letters.
        cutout: the side in pixels of the square that is cut out of each training image; 0: none.
        batch_size: the number of images in a batch on each device.
        num_workers: processes that decode images and prepare batches; 0: the main process.
        architecture_share: the part of the training images that the architecture is judged on, where there is no
            ``val/``.
        split_seed: the seed by which the training images are divided, likewise.
        labelled: whether the folders of ``train/`` are classes; if not, the images may lie in any folders or in none.
    """

    adjustable = ImageData.adjustable | {"folder", "flip"}

    def __init__(
        self,
        folder: str,
        image_size: int | None = None,
        flip: bool = True,
        cutout: int = 0,
        batch_size: int = 64,
        num_workers: int = 2,
        architecture_share: float = 0.5,
        split_seed: int = 0,
        labelled: bool = True,
    ) -> None:
        super().__init__(batch_size, num_workers, architecture_share, split_seed, cutout)
        self.labelled = labelled
        if image_size is not None and image_size < 1:
            raise SettingError(f"image_size: at least 1, got {image_size}")
        self.folder = Path(folder).expanduser().absolute()
        self.image_size = image_size
        self.flip = flip

    def prepare_data(self) -> None:
        self.load(test=False)  # which scans the files; other processes find the result in the cache

    @cached_property
    def inputs(self) -> dict[str, int]:  # type: ignore[override]
        size = self.image_size or self._scan.image_size
        found = {"channels": self._scan.channels, "image_size": size}
        return found | {"num_classes": len(self.classes)} if self.labelled else found

    @cached_property
    def mean(self) -> list[float]:  # type: ignore[override]
        return self._scan.mean

    @cached_property
    def std(self) -> list[float]:  # type: ignore[override]
        return self._scan.std

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes in the order of their labels."""
        classes = self._class_folders(self._folders["train"])
        if not classes:
            raise SettingError(f"folder: there are no classes in {self.folder / 'train'}. {LAYOUT}")
        if len(classes) == 1:
            raise SettingError(
                f"folder: there is one class only in {self.folder / 'train'}, {classes[0]!r}, and telling classes "
                f"apart takes two. Put the images of another beside it, each class in a folder of its own. {LAYOUT}"
            )
        return classes

    @property
    def has_test(self) -> bool:
        return (self.folder / "test").is_dir()

    @cached_property
    def _folders(self) -> dict[str, str]:
        """What the folders of ``train``, ``val`` and ``test`` are called, as far as there are such."""
        names = [path.name for path in self.folder.iterdir() if path.is_dir()] if self.folder.is_dir() else []
        folders = {}
        for split, accepted in FOLDERS.items():
            found, alike = find_split(split, accepted, names)
            others = ", ".join(f"{name}/" for name in alike)
            if len(found) > 1:
                raise SettingError(
                    f"folder: {self.folder} has {' and '.join(f'{name}/' for name in found)}, and one folder alone "
                    f"can be validated on; to use {found[0]}/ remove or rename "
                    f"{' and '.join(f'{name}/' for name in found[1:])}"
                )
            if not found and alike:
                raise SettingError(
                    f"folder: {self.folder} has no folder {split}/, and {others} is not read; rename it to {split}/, "
                    "or move it elsewhere"
                )
            if alike:
                rank_zero_warn(f"{others} in {self.folder} is not read, but {found[0]}/")
            if found:
                folders[split] = found[0]
        if "train" not in folders:
            raise SettingError(f"folder: there is no folder {self.folder / 'train'}. {LAYOUT}")
        return folders

    def _class_folders(self, split: str) -> list[str]:
        from torchvision.datasets.folder import find_classes

        try:
            found, _ = find_classes(self.folder / split)
        except FileNotFoundError:  # no such folder, or none in it
            return []
        return [name for name in found if not name.startswith(".")]  # such as .ipynb_checkpoints

    @cached_property
    def _files(self) -> dict[str, list[tuple[str, int]]]:
        """Path in the folder and label of every file that should be an image, by ``train``, ``val`` and ``test``.

        Where there are no classes all labels are 0, and nobody gets them.
        """
        files: dict[str, list[tuple[str, int]]] = {}
        outside: list[str] = []
        others: list[str] = []
        for split, called in self._folders.items():
            places = [called]
            if self.labelled:
                for name in self._class_folders(called):
                    if name not in self.classes:
                        raise SettingError(f"folder: {self.folder / called} has a class {name!r}, and train/ has not")
                outside += visible(called, next(os.walk(self.folder / called))[2])
                places = [os.path.join(called, name) for name in self.classes]
            files[split] = []
            for label, place in enumerate(places):
                for path in files_below(self.folder, place):
                    if path.lower().endswith(EXTENSIONS):
                        files[split].append((path, label))
                    else:
                        others.append(path)
        if outside:
            rank_zero_warn(
                f"{len(outside)} files in {self.folder} are in no class's folder and are left out: {some(outside)}"
            )
        if others:
            rank_zero_warn(
                f"{len(others)} files in {self.folder} end unlike images and are left out: {some(others)}. "
                f"What is read ends in {', '.join(EXTENSIONS)}"
            )
        self._check_classes(files["train"], "there are no images")
        return files

    def _check_classes(self, images: list[tuple[str, int]], message: str) -> None:
        if not self.labelled and not images:
            raise SettingError(f"folder: {message} in {self.folder / 'train'}; read are {', '.join(EXTENSIONS)}")
        filled = {label for _, label in images}
        for label, name in enumerate(self.classes if self.labelled else ()):
            if label not in filled:
                raise SettingError(f"folder: {message} in {self.folder / 'train' / name}. {LAYOUT}")

    @cached_property
    def _scan(self) -> "Scan":
        training = [path for split in ("train", "val") for path, _ in self._files.get(split, [])]
        scan = scan_once(self.folder, training, [path for path, _ in self._files.get("test", [])])
        if scan.broken:
            first = "".join(f"\n  {path}: {reason}" for path, reason in list(scan.broken.items())[:10])
            rank_zero_warn(f"{len(scan.broken)} files in {self.folder} cannot be decoded and are left out:{first}")
        return scan

    def _images(self, split: str) -> list[tuple[str, int]]:
        images = [(path, label) for path, label in self._files[split] if path not in self._scan.broken]
        message = "there are no images that can be read"
        if not images:
            raise SettingError(f"folder: {message} in {self.folder / self._folders[split]}. {LAYOUT}")
        if split == "train":
            self._check_classes(images, message)
        return images

    def load(self, test: bool) -> tuple["Files", Tensor]:
        if test and "test" not in self._files:
            raise SettingError(f"folder: there is nothing to test on, {self.folder} has no folder test/")
        splits = ["test"] if test else [split for split in ("train", "val") if split in self._files]
        images = [image for split in splits for image in self._images(split)]
        files = Files(self.folder, [path for path, _ in images], self.inputs["channels"])
        return files, torch.tensor([label for _, label in images])

    def division(self, count: int) -> tuple[Tensor, Tensor]:
        if "val" not in self._files:
            return super().division(count)
        self.warn_of_division(f"{self.folder / self._folders['val']} is what architectures are judged on")
        n_weights = len(self._images("train"))
        return torch.arange(n_weights), torch.arange(n_weights, count)

    def enlarging(self, part: str) -> str:
        if "val" not in self._files:
            return f"{super().enlarging(part)}, or add images"
        return f"move images to {self.folder / self._folders['train' if part == 'weights' else 'val']}"

    def class_name(self, label: int) -> str:
        return self.classes[label]

    def transform(self, augment: bool) -> Transform:
        from torchvision.transforms import v2

        size = self.inputs["image_size"]
        if not augment:
            return v2.Compose([partial(_each, v2.Compose([v2.Resize(size), v2.CenterCrop(size)])), torch.stack])
        if size <= SMALL:
            steps = [partial(_each, v2.Resize(size)), partial(random_crop, size=size, padding=size // 8)]
        else:
            steps = [partial(_each, v2.RandomResizedCrop(size)), torch.stack]
        return v2.Compose([*steps, random_flip] if self.flip else steps)


def files_below(folder: Path, place: str) -> Iterator[str]:
    """Paths in ``folder`` of all files below ``place`` in order, but for hidden files and what is in hidden folders."""
    found = []
    for below, folders, names in os.walk(folder / place, followlinks=True):
        folders[:] = visible("", folders)  # those of .ipynb_checkpoints would be there twice
        found.append((below.removeprefix(f"{folder}{os.sep}"), names))
    for below, names in sorted(found):
        yield from visible(below, names)


def visible(place: str, names: Iterable[str]) -> list[str]:
    """The paths in ``place`` of what is not hidden (such as .DS_Store), in order."""
    return [os.path.join(place, name) for name in sorted(names) if not name.startswith(".")]


def some(paths: list[str]) -> str:
    return ", ".join(paths[:5]) + (", ..." if len(paths) > 5 else "")


def _each(transform: Transform, images: Iterable[Tensor]) -> list[Tensor]:
    return [transform(image) for image in images]


class Files:
    """Images on disk, decoded on access.

    Args:
        folder: what the paths are relative to.
        paths: the paths of the image files.
        channels: 1 or 3; grey images are repeated and coloured ones turned grey.
    """

    def __init__(self, folder: Path, paths: list[str], channels: int) -> None:
        self.folder, self.paths, self.mode = folder, paths, "L" if channels == 1 else "RGB"

    def __getitem__(self, positions: Tensor) -> list[Tensor]:
        """Bytes ``(C, H, W)`` of each."""
        return [self._read(self.folder / self.paths[position]) for position in positions.tolist()]

    def _read(self, path: Path) -> Tensor:
        from torchvision.transforms.v2.functional import pil_to_tensor

        try:
            return pil_to_tensor(decode(path).convert(self.mode))
        except Exception as error:  # whatever a damaged file raises
            raise SettingError(f"folder: {path} could be read before, and now cannot ({error})") from error


def decode(path: Path) -> "Picture":
    """The image of a file, upright, grey (``L``) or coloured (``RGB``), of bytes and without transparency."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        image.load()  # what is wrong with the image itself is an error
        with contextlib.suppress(Exception):  # whatever damaged EXIF raises; a camera's notes are not the image
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):  # Pillow itself would cut off what is beyond 255
            return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        if image.mode in ("I", "F"):
            raise ValueError(f"pixels of mode {image.mode} have no known range")
        if image.mode == "P":
            return image.convert("RGBA").convert("RGB")  # by way of RGBA, for palettes with transparent colours
        return image.convert("L" if Image.getmodebase(image.mode) == "L" else "RGB")


# -- what the files are like -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scan:
    """What the images of a folder are like.

    Attributes:
        image_size: pixels: the side of the training images where all are square and of one size, else the median of
            their shorter sides, at most 224.
        channels: 1 if all training images are grey, else 3.
        mean, std: mean and deviation of each channel of the training images, on the scale 0 to 1. Every image weighs
            the same.
        broken: path to reason, for files that cannot be decoded.
    """

    image_size: int
    channels: int
    mean: list[float]
    std: list[float]
    broken: dict[str, str]


def scan_once(folder: Path, training: list[str], test: list[str]) -> Scan:
    """The scan of a folder from the cache, where the files are still the same, else again.

    A cache that cannot be read or written costs time and nothing else.
    """
    listing = [[path, *_state(folder / path)] for path in (*training, *test)]
    place = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = Path(place, "lightning_nas", f"{_digest(str(folder))}.json")
    try:
        content = json.loads(cache.read_bytes())
        if content["digest"] == _digest([SCAN_VERSION, listing, content["scan"]]):
            return Scan(**content["scan"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # none yet, or damaged
        pass
    scan = scan_files(folder, training, test)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        digest = _digest([SCAN_VERSION, listing, asdict(scan)])
        content = {"folder": str(folder), "digest": digest, "scan": asdict(scan)}
        write_whole(cache, json.dumps(content, indent=1).encode())
    except (OSError, SettingError):
        pass
    return scan


def _state(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError:  # such as a link to nothing; decoding it will tell why
        return 0, 0
    return state.st_size, state.st_mtime_ns


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def scan_files(folder: Path, training: list[str], test: list[str]) -> Scan:
    """Decodes every file once. Of the test images it is only asked whether they can be decoded.

    Raises:
        SettingError: if no training image can be decoded.
    """
    from tqdm import tqdm

    paths = [*training, *test]
    sizes: Counter[tuple[int, int]] = Counter()
    coloured = False
    moments, broken = np.zeros((3, 2)), {}
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        found = pool.imap(_examine, (folder / path for path in paths), chunksize=16)
        progress = tqdm(found, f"Scanning {folder}", len(paths), unit="image", delay=2, leave=False)
        for number, (path, image) in enumerate(zip(paths, progress, strict=True)):
            if isinstance(image, str):
                broken[path] = image
            elif number < len(training):
                size, own_moments = image
                sizes[size] += 1
                coloured |= len(own_moments) == 3
                moments += own_moments  # those of a grey image for each of three channels
    if not sizes:
        reason = "".join(f"; {path}: {reason}" for path, reason in list(broken.items())[:1])
        raise SettingError(f"folder: there are no images that can be read in {folder}{reason}. {LAYOUT}")
    ((width, height), _), *others = sizes.items()
    shorter = np.repeat([min(size) for size in sizes], list(sizes.values()))
    own = width if width == height and not others else min(LARGEST_MEDIAN, round(float(np.median(shorter))))
    channels = 3 if coloured else 1
    mean, square = moments[:channels].T / len(shorter)
    std = np.sqrt(np.maximum(square - mean**2, 1 / 255**2))  # at least a level, for what is the same everywhere
    return Scan(own, channels, mean.tolist(), std.tolist(), broken)


def _examine(path: Path) -> tuple[tuple[int, int], np.ndarray] | str:
    """Width and height, and of each channel the means of values and of squared values; or why it cannot be decoded."""
    try:
        image = decode(path)
        levels = np.arange(256) / 255
        counts = np.array(image.histogram()).reshape(-1, 256)
        return image.size, counts @ np.stack([levels, levels**2], axis=1) / (image.width * image.height)
    except Exception as error:  # whatever a damaged file raises
        return str(error) or type(error).__name__
