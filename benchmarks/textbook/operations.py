"""The candidate operations of convolutional cells, one module each, that shares nothing with any other."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class ReLUConvBN(nn.Sequential):
    def __init__(self, channels_in: int, channels: int, affine: bool) -> None:
        super().__init__(
            nn.ReLU(), nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels, affine=affine)
        )


class SepConv(nn.Sequential):
    def __init__(self, channels: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, 1, kernel // 2, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class DilConv(nn.Sequential):
    def __init__(self, channels: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, kernel - 1, dilation=2, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class FactorizedReduce(nn.Module):
    """Half the resolution: two convolutions of stride 2, on every second pixel and on the pixels between them."""

    def __init__(self, channels_in: int, channels: int, affine: bool, relu: bool = True) -> None:
        super().__init__()
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.even = nn.Conv2d(channels_in, channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(channels_in, channels - channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        odd = (self.pad(x) if x.shape[2] % 2 else x)[:, :, 1:, 1:]
        return self.norm(torch.cat([self.even(x), self.odd(odd)], 1))


def max_pool(stride: int) -> nn.Module:
    return nn.MaxPool2d(3, stride, padding=1)


def avg_pool(stride: int) -> nn.Module:
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


OPERATIONS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "none": lambda channels, stride, affine: Zero(stride),
    "max_pool_3x3": lambda channels, stride, affine: max_pool(stride),
    "avg_pool_3x3": lambda channels, stride, affine: avg_pool(stride),
    "skip_connect": lambda channels, stride, affine: (
        nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)
    ),
    "sep_conv_3x3": lambda channels, stride, affine: SepConv(channels, 3, stride, affine),
    "sep_conv_5x5": lambda channels, stride, affine: SepConv(channels, 5, stride, affine),
    "dil_conv_3x3": lambda channels, stride, affine: DilConv(channels, 3, stride, affine),
    "dil_conv_5x5": lambda channels, stride, affine: DilConv(channels, 5, stride, affine),
}
"""From channels, stride and whether BatchNorms learn scale and shift to the operation, in the paper's order."""


def drop_path(x: Tensor, probability: float) -> Tensor:
    """Zeroes whole samples and rescales the others."""
    mask = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(1 - probability)
    return x / (1 - probability) * mask


class AuxiliaryHead(nn.Sequential):
    """A classifier of maps of 8×8 in the middle of a network."""

    def __init__(self, channels_in: int, classes: int, bias: bool = True) -> None:
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(5, 3, count_include_pad=False),
            nn.Conv2d(channels_in, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(768, classes, bias=bias),
        )
