"""A retrained architecture beside a torchvision ResNet of as many parameters, on the same images for as many epochs.

    python -m benchmarks.resnet --data CIFAR10 --epochs 10

Both are trained by the same recipe: SGD with momentum .9, weight decay 3e-4, gradients clipped to norm 5, the learning
rate annealed by a cosine, crop and flip; for each network the best of the given learning rates on a validation part
that is held out of the training images, and then tested.
"""

import argparse
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from benchmarks.training import HEADER, count, quiet_trainer, trained
from lightning_nas import SGD, Cosine
from lightning_nas import data as data_modules
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.spaces.base import DropPath, Network
from lightning_nas.tasks import ImageClassification
from lightning_nas.training.retrain import Retrain


class NarrowResNet(Network):
    """torchvision's ResNet of basic blocks, with a stem for small images and any width in the place of 64."""

    def __init__(self, inputs: dict[str, int], width: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.inputs = inputs

        class Narrow(ResNet):
            def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
                if planes == 64:
                    self.inplanes = width
                return super()._make_layer(block, planes * width // 64, *args, **kwargs)

        self.resnet = Narrow(BasicBlock, list(blocks), num_classes=inputs["num_classes"])
        self.resnet.conv1 = nn.Conv2d(inputs["channels"], width, 3, padding=1, bias=False)
        self.resnet.bn1 = nn.BatchNorm2d(width)
        self.resnet.maxpool = nn.Identity()
        self.resnet.fc = nn.Linear(8 * width, inputs["num_classes"])

    def forward(self, x: Tensor, gates: None = None, drop_path: DropPath = 0.0) -> Tensor:
        return self.resnet(x)

    def example(self, batch_size: int = 1) -> Tensor:
        size = self.inputs["image_size"]
        return torch.zeros(batch_size, self.inputs["channels"], size, size)


class RetrainResNet(Retrain):
    """The same training of a ResNet instead."""

    def __init__(self, width: int, blocks: tuple[int, ...], **settings: Any) -> None:
        super().__init__("darts_v2", ImageClassification(), **settings)
        self.width, self.blocks = width, blocks

    def build_network(self, inputs: dict[str, int]) -> None:
        super().build_network(inputs)
        torch.manual_seed(self.seed)
        self.network = NarrowResNet(inputs, self.width, self.blocks)


def closest_width(n_params: int, inputs: dict[str, int], blocks: tuple[int, ...]) -> int:
    """The width at which a ResNet has most nearly so many parameters."""
    return min(range(2, 128), key=lambda width: abs(count(NarrowResNet(inputs, width, blocks)) - n_params))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="darts_v2")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--blocks", type=int, nargs=4, default=(1, 1, 1, 1), help="of the ResNet's four stages")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batches", type=float, default=1.0, help="share of each epoch's batches that are used")
    parser.add_argument("--lrs", type=float, nargs="+", default=(0.025, 0.1))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=96)
    parser.add_argument("--data", default="CIFAR10")
    parser.add_argument("--folder", default=None)
    parser.add_argument("--accelerator", default="cpu")
    arguments = parser.parse_args()

    settings: dict[str, Any] = {"batch_size": arguments.batch_size}
    if arguments.data == "CIFAR10":
        settings |= {"folder": arguments.folder, "verify": False, "architecture_share": 0.1}
    inputs = getattr(data_modules, arguments.data)(**settings).inputs
    found = load_architecture(arguments.architecture)
    child = found.space.restrict(found.architecture)
    size = {"channels": arguments.channels, "cells": arguments.cells}
    n_params = count(child.network(inputs, form="final", **size))
    blocks = tuple(arguments.blocks)
    width = closest_width(n_params, inputs, blocks)
    print(f"{arguments.epochs} epochs of {arguments.batches:.0%} of the batches of {arguments.batch_size}")
    print(HEADER, flush=True)
    for seed in range(arguments.seeds):
        for lr in arguments.lrs:
            given = {
                "seed": seed,
                "optimizer": SGD(lr, 0.9, weight_decay=3e-4, schedule=Cosine()),
                "drop_path": 0.0,
                "train_on": "weights",
            }
            modules = {
                arguments.architecture: Retrain(arguments.architecture, ImageClassification(), size, **given),
                f"ResNet {blocks}, width {width}": RetrainResNet(width, blocks, **given),
            }
            for name, module in modules.items():
                trainer = quiet_trainer(
                    arguments.accelerator,
                    max_epochs=arguments.epochs,
                    gradient_clip_val=5,
                    limit_train_batches=arguments.batches,
                    check_val_every_n_epoch=arguments.epochs,
                )
                data = getattr(data_modules, arguments.data)(**settings)
                print(trained(name, module, data, trainer, "accuracy", digits=4), flush=True)


if __name__ == "__main__":
    main()
