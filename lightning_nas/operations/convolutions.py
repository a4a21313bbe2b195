"""The convolutions of the DARTS family (Liu et al. 2019, released code) and of NAS-Bench-201.

No convolution has a bias. ``affine`` says whether the BatchNorms learn scale and shift: not during a search.
Bodies that begin with a ReLU in the papers leave it out here: a state's ReLU is computed once for all its readers
(:class:`~lightning_nas.operations.registry.View`). They multiply their result by a weight, if one is given.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.operations.depthwise import Phases, depthwise_pointwise, from_phases
from lightning_nas.operations.layout import laid_out
from lightning_nas.operations.normalization import BatchNorm

_VECTOR = 8
"""Channels below which oneDNN's gradient for the weight of a 1×1 convolution of stride 2 writes past the end of its
memory and the process dies: channels last, on CPUs with AVX2 and without AVX-512 (torch 2.14.1, oneDNN 3.12)."""


class Pointwise(nn.Module):
    """A 1×1 convolution of states that lie side by side: ``(N, channels, H, W)`` to ``(N, channels_out, H/stride, …)``.

    Every state has its own part of the weight, under its name. So a reader of a cell whose output depends on the
    architecture has one weight for all architectures, of which the states that are there take their parts.

    Args:
        widths: channels of each state that can be there, by name.
    """

    def __init__(self, widths: Mapping[str, int], channels_out: int, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        bound = 1 / math.sqrt(sum(widths.values()))  # as ``nn.Conv2d`` has it
        self.parts = nn.ParameterDict(
            {
                name: nn.Parameter(torch.empty(channels_out, width, 1, 1).uniform_(-bound, bound))
                for name, width in widths.items()
            }
        )
        self.bias = nn.Parameter(torch.empty(channels_out).uniform_(-bound, bound)) if bias else None
        self.stride = stride

    def forward(self, x: Tensor, names: Sequence[str] | None = None) -> Tensor:
        """Convolves the states ``names`` (default: all), whose channels follow each other in ``x``."""
        parts = [self.parts[name] for name in (self.parts if names is None else names)]
        stride = self.stride
        if stride > 1 and x.shape[1] < _VECTOR:  # the same pixels, taken before
            x, stride = laid_out(x[:, :, ::stride, ::stride]), 1
        return F.conv2d(x, parts[0] if len(parts) == 1 else torch.cat(parts, 1), self.bias, stride)


class Body(nn.Sequential):
    """Modules with a BatchNorm at the end, which multiplies the result by a weight in the same pass."""

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        *modules, last = self
        for module in modules:
            x = module(x)
        return last(x, weight)


class Depthwise(Body):
    """Depthwise k×k, 1×1, BatchNorm: ``(N, C, H, W)`` to ``(N, C, H/stride, W/stride)``."""

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool, dilation: int = 1) -> None:
        padding = dilation * (kernel - 1) // 2
        super().__init__(
            nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            BatchNorm(channels, affine=affine),
        )
        self.stride = stride

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        return self[2](self.convolve(x, self.stride), weight)

    def convolve(self, x: Tensor, stride: int) -> Tensor:
        """Both convolutions, undilated."""
        depthwise, pointwise = (module.weight for module in self if isinstance(module, nn.Conv2d))
        return depthwise_pointwise(x, depthwise, pointwise, stride)


class Dilated(Depthwise):
    """:class:`Depthwise` of dilation 2.

    It reads a state's phases, at stride 2 every second row and column of it: there it is a convolution without
    dilation. A state that has no phases, since a size is odd, it reads as it is.
    """

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__(channels, kernel, stride, affine, dilation=2)

    def forward(self, x: Tensor | Phases, weight: Tensor | None = None) -> Tensor:
        depthwise, pointwise, norm = self
        if isinstance(x, Phases):
            out = from_phases(Phases(self.convolve(x.x, stride=1)))
        else:
            out = self.convolve(x, stride=1) if self.stride == 2 else pointwise(depthwise(x))
        return norm(out, weight)


class Separable(Body):
    """``sep_conv_k`` without its first ReLU: :class:`Depthwise` twice, the second with stride 1."""

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__(
            Depthwise(channels, kernel, stride, affine),
            nn.ReLU(inplace=True),
            Depthwise(channels, kernel, 1, affine),
        )


class Conv1x7(Body):
    """``conv_7x1_1x7`` without its ReLU: 1×7, 7×1, BatchNorm."""

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
            nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
            BatchNorm(channels, affine=affine),
        )


class HalfResolution(nn.Module):
    """FactorizedReduce without its ReLU: two 1×1 convolutions of stride 2, the second on the input shifted by one
    pixel down and right, side by side, BatchNorm: ``(N, C_in, H, W)`` to ``(N, C_out, ⌈H/2⌉, ⌈W/2⌉)``."""

    def __init__(self, widths: Mapping[str, int], channels_out: int, affine: bool) -> None:
        super().__init__()
        self.even = Pointwise(widths, channels_out // 2, stride=2)
        self.odd = Pointwise(widths, channels_out - channels_out // 2, stride=2)
        self.norm = BatchNorm(channels_out, affine=affine)

    def forward(self, x: Tensor, names: Sequence[str] | None = None, weight: Tensor | None = None) -> Tensor:
        shifted = F.pad(x, (-1, x.shape[3] % 2, -1, x.shape[2] % 2))  # an odd size is padded by one
        return self.norm(torch.cat([self.even(x, names), self.odd(shifted, names)], 1), weight)


class FactorizedReduce(nn.Module):
    """ReLU, then :class:`HalfResolution`."""

    def __init__(self, widths: Mapping[str, int], channels_out: int, affine: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.half_resolution = HalfResolution(widths, channels_out, affine)

    def forward(self, x: Tensor, names: Sequence[str] | None = None) -> Tensor:
        return self.half_resolution(self.relu(x), names)


class ReLUConvBN(nn.Module):
    """ReLU, 1×1 convolution, BatchNorm: how a cell brings its inputs to its own width."""

    def __init__(self, widths: Mapping[str, int], channels_out: int, affine: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.convolution = Pointwise(widths, channels_out)
        self.norm = BatchNorm(channels_out, affine=affine)

    def forward(self, x: Tensor, names: Sequence[str] | None = None) -> Tensor:
        return self.norm(self.convolution(self.relu(x), names))


class ConvBN(Body):
    """``nor_conv_k`` (NAS-Bench-201) without its ReLU: an ordinary k×k convolution, BatchNorm."""

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, kernel, stride, kernel // 2, bias=False),
            BatchNorm(channels, affine=affine),
        )


def drop_path(x: Tensor, probability: float) -> Tensor:
    """Zeroes whole samples with this probability and rescales the others, so that the expectation stays.

    Args:
        x: the batch of outputs, ``(N, ...)``.
        probability: the probability to drop a sample, below 1; 0 returns ``x`` itself.
    """
    if probability == 0:
        return x
    keep = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(1 - probability)
    return x * keep.div_(1 - probability)
