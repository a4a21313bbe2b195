"""Images per second of the loader, against what steps consume."""

import time

import torch
from torch import Tensor

from lightning_nas.data import CIFAR10, Schedule


class RandomImages(CIFAR10):
    """CIFAR-10's augmentation on random images."""

    def load(self, test: bool) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(int(test))
        images = torch.randint(256, (10_000, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return images, torch.randint(10, (10_000,), generator=generator)


def images_per_second(batch_size: int, num_workers: int, cutout: int = 0, seconds: float = 3.0) -> float:
    """Of both parts side by side, as a search reads them, after the workers have started."""
    data = RandomImages(batch_size=batch_size, num_workers=num_workers, cutout=cutout)
    streams = {part: data.stream(part, 0) for part in ("weights", "architecture")}
    batches = iter(Schedule(streams, 1_000_000, lambda: (0, 0), num_workers=num_workers))
    for _ in range(4):
        next(batches)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        count += sum(len(labels) for _, labels in next(batches).values())
    return count / (time.perf_counter() - begun)
