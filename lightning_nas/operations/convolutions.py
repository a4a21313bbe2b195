"""The convolutions of the DARTS family (Liu et al. 2019, released code).

No convolution has a bias. ``affine`` says whether the BatchNorms learn scale and shift: not during a search.
Bodies that begin with a ReLU in the papers leave it out here: a state's ReLU is computed once for all its readers
(:class:`~lightning_nas.operations.table.View`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Depthwise(nn.Sequential):
    """Depthwise k×k, 1×1, BatchNorm: ``(N, C, H, W)`` to ``(N, C, H/stride, W/stride)``."""

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool, dilation: int = 1) -> None:
        padding = dilation * (kernel - 1) // 2
        super().__init__(
            nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class Separable(nn.Sequential):
    """``sep_conv_k`` without its first ReLU: :class:`Depthwise` twice, the second with stride 1."""

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__(Depthwise(channels, kernel, stride, affine), nn.ReLU(), Depthwise(channels, kernel, 1, affine))


class Conv1x7(nn.Sequential):
    """``conv_7x1_1x7`` without its ReLU: 1×7, 7×1, BatchNorm."""

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
            nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class HalfResolution(nn.Module):
    """FactorizedReduce without its ReLU: two 1×1 convolutions of stride 2, the second on the input shifted by one
    pixel down and right, side by side, BatchNorm: ``(N, C_in, H, W)`` to ``(N, C_out, ⌈H/2⌉, ⌈W/2⌉)``."""

    def __init__(self, channels_in: int, channels_out: int, affine: bool) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels_in, channels_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(channels_in, channels_out - channels_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        shifted = F.pad(x, (-1, x.shape[3] % 2, -1, x.shape[2] % 2))  # an odd size is padded by one
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], 1))


class FactorizedReduce(nn.Sequential):
    """ReLU, then :class:`HalfResolution`."""

    def __init__(self, channels_in: int, channels_out: int, affine: bool) -> None:
        super().__init__(nn.ReLU(), HalfResolution(channels_in, channels_out, affine))


class ReLUConvBN(nn.Sequential):
    """ReLU, 1×1 convolution, BatchNorm: how a cell brings its inputs to its own width."""

    def __init__(self, channels_in: int, channels_out: int, affine: bool) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out, affine=affine),
        )


def drop_path(x: Tensor, probability: float) -> Tensor:
    """Zeroes whole samples with this probability and rescales the others, so that the expectation stays.

    Args:
        x: ``(N, ...)``.
        probability: of a sample to be dropped, below 1; 0 returns ``x`` itself.
    """
    if probability == 0:
        return x
    keep = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(1 - probability)
    return x * keep.div_(1 - probability)
