"""A depthwise and the 1×1 convolution after it as one differentiable step, and the phases of a dilated one.

On a CPU the same numbers as the two convolutions one after the other, in less memory and time: what lies between them
is computed again in the backward pass rather than kept, and a gradient that nobody reads costs nothing and keeps
nothing. On a GPU the two convolutions themselves, since a search is held up there by the number of kernels that start,
and under ``torch.func``, which knows how to transform them.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_nas.operations.layout import laid_out, layout_of, transformed

_NARROW = 3
"""Columns of a kernel up to which oneDNN has a fast gradient for depthwise weights; beyond it takes 5 to 15 times as
long."""


def depthwise_pointwise(x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int = 1) -> Tensor:
    """Every channel by its own k×k kernel, padded by k // 2, then a 1×1 convolution.

    Args:
        x: ``(N, C, H, W)``.
        depthwise: ``(C, 1, k, k)`` with an odd k.
        pointwise: ``(C_out, C, 1, 1)``.
        stride: the stride of the depthwise convolution.

    Returns:
        ``(N, C_out, ⌈H / stride⌉, ⌈W / stride⌉)``.
    """
    device = x.device.type
    # on a GPU a step takes as long as its kernels are many, and computing again needs more of them
    if device != "cpu" or transformed():
        return F.conv2d(_depthwise(x, depthwise, stride), pointwise)
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):  # which cannot see inside
        dtype = torch.get_autocast_dtype(device)
        x, depthwise, pointwise = x.to(dtype), depthwise.to(dtype), pointwise.to(dtype)
    return _DepthwisePointwise.apply(x, depthwise, pointwise, stride)


class _DepthwisePointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int) -> Tensor:
        _, depthwise_learns, pointwise_learns, _ = ctx.needs_input_grad
        ctx.stride, ctx.shape = stride, x.shape
        ctx.save_for_backward(x if depthwise_learns or pointwise_learns else None, depthwise, pointwise)
        return F.conv2d(_depthwise(x, depthwise, stride), pointwise)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, depthwise, pointwise = ctx.saved_tensors
        x_learns, depthwise_learns, pointwise_learns, _ = ctx.needs_input_grad
        gradient = laid_out(gradient)
        n, _, height, width = gradient.shape
        of_x = of_depthwise = of_pointwise = None
        # only the shape of what lies between counts for its own gradient
        between = _like(gradient, (n, len(depthwise), height, width))
        if pointwise_learns:
            between = _depthwise(x, depthwise, ctx.stride)
        of_between, of_pointwise = _gradients(gradient, between, pointwise, 1, (True, pointwise_learns))
        if depthwise_learns:
            of_depthwise = _depthwise_gradient(of_between, x, depthwise, ctx.stride)
        if x_learns:
            read = _like(gradient, ctx.shape) if x is None else x
            of_x, _ = _gradients(of_between, read, depthwise, ctx.stride, (True, False))
        return of_x, of_depthwise, of_pointwise, None


def _depthwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, len(weight))


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Of a convolution's input and weight, those that are wanted."""
    padding, groups = [size // 2 for size in weight.shape[2:]], x.shape[1] // weight.shape[1]
    found = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], groups, [*wanted, False]
    )
    return found[0], found[1]


def _depthwise_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Of a depthwise weight. A wide kernel is taken apart: its middle, and each of its outer columns."""
    channels, _, size, _ = weight.shape

    def of_columns(x: Tensor, columns: int) -> Tensor:
        return _gradients(gradient, x, weight.new_empty(channels, 1, size, columns), stride, (False, True))[1]

    reach = size // 2
    if size <= _NARROW or stride > 1 or x.shape[3] <= reach:
        return of_columns(x, size)
    beside = range(_NARROW // 2 + 1, reach + 1)
    left = [of_columns(F.pad(x, (k, -k)), 1) for k in reversed(beside)]
    right = [of_columns(F.pad(x, (-k, k)), 1) for k in beside]
    return torch.cat([*left, of_columns(x, _NARROW), *right], 3)


def _like(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout_of(x.device))


# -- dilation ----------------------------------------------------------------------------------------------------------


class Phases(NamedTuple):
    """A state of even height and width taken apart by even and odd rows and columns into images of their own.

    A convolution of dilation 2 reads every second row and column: on phases it is one without dilation.

    Attributes:
        x: ``(4 N, C, H / 2, W / 2)``.
    """

    x: Tensor


def phases(x: Tensor) -> Phases | None:
    """``(N, C, H, W)`` taken apart; None where a size is odd."""
    n, channels, height, width = x.shape
    if height % 2 or width % 2:
        return None
    pixels = x.permute(0, 2, 3, 1).reshape(n, height // 2, 2, width // 2, 2, channels).permute(0, 2, 4, 1, 3, 5)
    return Phases(pixels.reshape(4 * n, height // 2, width // 2, channels).permute(0, 3, 1, 2))


def from_phases(parts: Phases) -> Tensor:
    """The inverse of :func:`phases`."""
    n, channels, height, width = parts.x.shape
    pixels = parts.x.permute(0, 2, 3, 1).reshape(n // 4, 2, 2, height, width, channels).permute(0, 3, 1, 4, 2, 5)
    return pixels.reshape(n // 4, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
