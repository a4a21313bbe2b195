"""The shell around cells: stem, a stack of cells with two reductions, pooling and a linear classifier."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations import FactorizedReduce, ReLUConvBN
from lightning_nas.spaces.base import Gates, Network, Resolved, Space

Form = Literal["search", "final"]
"""``search``: BatchNorm without scale and shift, pools normalised. ``final``: the network to train and report."""

Stem = Literal["cifar", "imagenet"]


class Cell(nn.Module):
    """What the shell expects of a cell.

    A cell reads the outputs of the two cells before it and returns ``(N, out_channels, H, W)``; a reduction cell halves
    the resolution.
    """

    out_channels: int

    def forward(self, s0: Tensor, s1: Tensor, gates: Resolved, drop_path: float) -> Tensor:
        raise NotImplementedError


class CellNetwork(Network):
    """Stem, cells, global average pool, linear (Liu et al. 2019, released code; Zoph et al. 2018 for the idea).

    Reduction cells stand at a third and at two thirds of the depth and double the channels.

    Args:
        space: whose choices are built. With one kind of cell, ``normal``, there are no reductions.
        inputs: ``channels``, ``image_size`` (pixels) and ``num_classes`` of the data.
        build_cell: ``(kind, channels of the cell before the last, of the last, own, after_reduction)`` to a cell.
        channels: width C of the first cells.
        cells: their number L.
        stem: ``cifar`` keeps the resolution, ``imagenet`` divides it by 8.
        auxiliary: a second classifier after the cell at two thirds of the depth, used in training only.

    Raises:
        ValueError: if a setting does not fit another one or the data; it names the field.
    """

    def __init__(
        self,
        space: Space,
        inputs: dict[str, int],
        build_cell: Callable[[str, int, int, int, bool], Cell],
        channels: int,
        cells: int,
        stem: Stem,
        auxiliary: bool,
        kinds: tuple[str, ...],
    ) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise SettingError(f"network.channels: an even number, since it is divided by two; got {channels}")
        if stem not in get_args(Stem):
            raise SettingError(f"network.stem: {' or '.join(get_args(Stem))}, got {stem!r}")
        if cells < 1:
            raise SettingError(f"network.cells: at least 1, got {cells}")
        for field in ("channels", "image_size", "num_classes"):
            if field not in inputs:
                raise SettingError(f"inputs.{field}: missing; a network of images needs it")
        self.space = space
        self.inputs = dict(inputs)
        reductions = {cells // 3, 2 * cells // 3} if "reduce" in kinds else set()
        self.auxiliary_after = 2 * cells // 3
        self.stem: nn.Module
        if stem == "cifar":
            width = 3 * channels
            self.stem = nn.Sequential(
                nn.Conv2d(inputs["channels"], width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
            )
        else:
            width = channels
            self.stem = ImageNetStem(inputs["channels"], channels)
        before_last, last, after_reduction = width, width, stem == "imagenet"
        resolution = -(-inputs["image_size"] // (8 if stem == "imagenet" else 1))  # every halving rounds up
        self.cells = nn.ModuleList()
        own, size_at_auxiliary, width_at_auxiliary = channels, 0, 0
        for k in range(cells):
            reduce = k in reductions
            own, resolution = (2 * own, (resolution + 1) // 2) if reduce else (own, resolution)
            cell = build_cell("reduce" if reduce else "normal", before_last, last, own, after_reduction)
            self.cells.append(cell)
            before_last, last, after_reduction = last, cell.out_channels, reduce
            if k == self.auxiliary_after:
                size_at_auxiliary, width_at_auxiliary = resolution, last
        self.auxiliary: nn.Module | None = None
        if auxiliary:
            pool_stride, least = (3, 8) if stem == "cifar" else (2, 7)
            if size_at_auxiliary < least:
                raise SettingError(
                    f"network.auxiliary: the auxiliary head reads feature maps of at least {least}×{least}, here "
                    f"they are {size_at_auxiliary}×{size_at_auxiliary}; set it to false or take larger images"
                )
            self.auxiliary = AuxiliaryHead(width_at_auxiliary, inputs["num_classes"], pool_stride)
        self.classifier = nn.Linear(last, inputs["num_classes"])
        self.to(memory_format=torch.channels_last)  # depthwise convolutions are much faster so

    def forward(self, x: Tensor, gates: Gates | None = None, drop_path: float = 0.0) -> Tensor | tuple[Tensor, Tensor]:
        """Class logits ``(N, num_classes)`` of images ``(N, channels, H, W)``.

        Args:
            x: images.
            gates: how each choice is taken; None where the space has one architecture.
            drop_path: probability to drop an operation's output for a sample, in training.

        Returns:
            logits; in training with an auxiliary head also the head's logits.
        """
        resolved = self.space.resolve(gates)
        drop_path = drop_path if self.training else 0.0
        x = x.contiguous(memory_format=torch.channels_last)
        if isinstance(self.stem, ImageNetStem):
            s0, s1 = self.stem(x)
        else:
            s0 = s1 = self.stem(x)
        auxiliary = None
        for k, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, resolved, drop_path)
            if k == self.auxiliary_after and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(s1)
        logits = self.classifier(s1.mean((2, 3)))
        return logits if auxiliary is None else (logits, auxiliary)

    def example(self, batch_size: int = 1) -> Tensor:
        """Images of zeros, ``(batch_size, channels, H, W)``, of the size that the network was built for."""
        size = self.inputs["image_size"]
        return torch.zeros(batch_size, self.inputs["channels"], size, size, device=self.classifier.weight.device)


def preprocess(channels_in: int, channels_out: int, after_reduction: bool, affine: bool) -> nn.Module:
    """Brings a cell's input to the cell's width, and to its resolution where the cell before was a reduction."""
    return (FactorizedReduce if after_reduction else ReLUConvBN)(channels_in, channels_out, affine)


class ImageNetStem(nn.Module):
    """Three 3×3 convolutions of stride 2; the last two results, at a quarter and an eighth, are the cells' inputs."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(channels_in, channels // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.second = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s0 = self.first(x)
        return s0, self.second(s0)


class AuxiliaryHead(nn.Module):
    """ReLU, 5×5 average pool, 1×1 to 128, 2×2 to 768, linear.

    Differs from the released code: maps larger than its 8×8 (ImageNet: 7×7) are averaged at the end, and the ImageNet
    head keeps its second BatchNorm.
    """

    def __init__(self, channels: int, num_classes: int, pool_stride: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, pool_stride),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))
