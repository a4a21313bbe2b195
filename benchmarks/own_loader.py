"""Images per second of a user's set of image files through the streams, beside a plain loader of the same set.

``python -m benchmarks.own_loader``; in turns in one process, each with as many workers. The set is torchvision's
``ImageFolder``, with a random crop and flip.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import write_jpeg
from torchvision.transforms import v2

from lightning_nas.data import OwnData, Schedule

BATCH_SIZE = 32
ROUNDS = 5


def write_images(folder: Path, count: int = 600, side: int = 96) -> None:
    """JPEG files of smooth random images, in ten folders."""
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        small = torch.rand(1, 3, 8, 8, generator=generator)
        image = torch.nn.functional.interpolate(small, size=side, mode="bilinear")[0]
        path = folder / str(number % 10) / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        write_jpeg((image * 255).byte(), str(path))


def files(folder: Path) -> ImageFolder:
    """A user's set of them."""
    steps = [v2.RandomResizedCrop(64), v2.RandomHorizontalFlip(), v2.PILToTensor(), v2.ToDtype(torch.float, scale=True)]
    return ImageFolder(str(folder), v2.Compose(steps))


def plain(dataset: Any, workers: int) -> Iterator[int]:
    """The numbers of images in the batches of a plain loader, pass after pass."""
    while True:
        for images, _ in DataLoader(dataset, BATCH_SIZE, shuffle=True, drop_last=True, num_workers=workers):
            yield len(images)


def streamed(dataset: Any, workers: int) -> Iterator[int]:
    """The same of both parts side by side, as a search reads them."""
    data = OwnData(dataset, batch_size=BATCH_SIZE // 2, num_workers=workers)
    streams = {part: data.stream(part, 0) for part in ("weights", "architecture")}
    length, epoch = len(streams["weights"]), 0
    while True:
        for batches in Schedule(streams, length, lambda epoch=epoch: (epoch, 0), num_workers=workers):
            yield sum(len(images) for images, _ in batches.values())
        epoch += 1


def images_per_second(batches: Iterator[int], count: int) -> float:
    """The speed at which so many images come, workers' starts included."""
    begun, came = time.perf_counter(), 0
    while came < count:
        came += next(batches)
    return came / (time.perf_counter() - begun)


def main() -> None:
    torch.set_num_threads(1)
    print("| workers | plain `DataLoader` | streams of `OwnData` | ratio (least, most) |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        dataset = files(Path(folder))
        for workers in (0, 2):
            sides = [plain(dataset, workers), streamed(dataset, workers)]
            rounds = [[images_per_second(side, 2 * len(dataset)) for side in sides] for _ in range(ROUNDS)]
            ratios = [ours / theirs for theirs, ours in rounds]
            a, b = (statistics.median(side) for side in zip(*rounds, strict=True))
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"
            print(f"| {workers} | {a:,.0f} | {b:,.0f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
