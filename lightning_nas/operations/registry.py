"""The table of operations.

An operation is a *view* of the state it reads, followed by a *body*. The view (ReLU, the phases for dilated
convolutions, or pooling with the BatchNorm that follows it in a search) is the same tensor for every edge that leaves a
state, so a cell computes it once; the body belongs to the edge and multiplies its result by the edge's weight.
"""

import dataclasses
from collections import ChainMap
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from lightning_nas.operations.convolutions import Conv1x7, ConvBN, Dilated, HalfResolution, Separable
from lightning_nas.operations.depthwise import Phases, phases
from lightning_nas.operations.normalization import BatchNorm


@dataclasses.dataclass(frozen=True)
class View:
    """A function of a state that all its readers share.

    Attributes:
        build: ``(channels, stride, affine)`` to a module. A view never has parameters.
    """

    name: str
    build: Callable[[int, int, bool], nn.Module]


@dataclasses.dataclass(frozen=True)
class Operation:
    """A candidate operation.

    Attributes:
        view: what it reads, by stride 1 and 2.
        body: ``(channels, stride, affine)`` to a module that takes what the view returns and ``weight``, by which it
            multiplies the result; or None where the view is already the result.
    """

    view: Callable[[int], View]
    body: Callable[[int, int, bool], nn.Module | None]


def _pool(name: str, build: Callable[[int], nn.Module]) -> Operation:
    def view(channels: int, stride: int, affine: bool) -> nn.Module:
        # In a search (no affine) BatchNorm follows, so that pools and convolutions compete at the same scale.
        return build(stride) if affine else nn.Sequential(build(stride), BatchNorm(channels, affine=False))

    shared = View(name, view)
    return Operation(lambda stride: shared, lambda channels, stride, affine: None)


_STATE = View("state", lambda channels, stride, affine: nn.Identity())
_RELU = View("relu", lambda channels, stride, affine: nn.ReLU())
_RELU_PHASES = View("relu_phases", lambda channels, stride, affine: ReLUPhases(stride))


class ReLUPhases(nn.Module):
    """ReLU, and what a convolution of dilation 2 reads of it: at stride 1 its phases (the ReLU itself where a size is
    odd, and on a GPU), at stride 2 every second row and column."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor | Phases:
        if self.stride == 2:
            return self.relu(x[:, :, ::2, ::2])
        parts = phases(x) if x.device.type == "cpu" else None  # a GPU has kernels for dilated convolutions
        return self.relu(x) if parts is None else Phases(self.relu(parts.x))


def _convolution(body: Callable[[int, int, bool], nn.Module]) -> Operation:
    return Operation(lambda stride: _RELU, body)


def _dilated(kernel: int) -> Operation:
    return Operation(
        lambda stride: _RELU_PHASES, lambda channels, stride, affine: Dilated(channels, kernel, stride, affine)
    )


OPERATIONS: dict[str, Operation | None] = {
    "none": None,
    "max_pool_3x3": _pool("max_pool_3x3", lambda stride: nn.MaxPool2d(3, stride, 1)),
    "avg_pool_3x3": _pool("avg_pool_3x3", lambda stride: nn.AvgPool2d(3, stride, 1, count_include_pad=False)),
    "skip_connect": Operation(
        lambda stride: _STATE if stride == 1 else _RELU,
        lambda channels, stride, affine: None if stride == 1 else HalfResolution({"state": channels}, channels, affine),
    ),
    "sep_conv_3x3": _convolution(lambda channels, stride, affine: Separable(channels, 3, stride, affine)),
    "sep_conv_5x5": _convolution(lambda channels, stride, affine: Separable(channels, 5, stride, affine)),
    "sep_conv_7x7": _convolution(lambda channels, stride, affine: Separable(channels, 7, stride, affine)),
    "dil_conv_3x3": _dilated(3),
    "dil_conv_5x5": _dilated(5),
    "nor_conv_1x1": _convolution(lambda channels, stride, affine: ConvBN(channels, 1, stride, affine)),
    "nor_conv_3x3": _convolution(lambda channels, stride, affine: ConvBN(channels, 3, stride, affine)),
    "conv_7x1_1x7": _convolution(lambda channels, stride, affine: Conv1x7(channels, stride, affine)),
}
"""Operations by name. ``none`` is the absent one: it has no view and no body.

:func:`~lightning_nas.operations.own.register_operation` adds a user's.
"""

NORMALIZED_POOLS: Mapping[str, Operation | None] = ChainMap(
    {
        name: dataclasses.replace(pool, body=lambda channels, stride, affine: BatchNorm(channels) if affine else None)
        for name, pool in OPERATIONS.items()
        if pool is not None and "pool" in name
    },
    OPERATIONS,  # itself, since operations of a user's own are still to come
)
"""The same where a pool on an edge is followed by a BatchNorm in the final network too, with scale and shift."""

DARTS_OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The eight candidates of the DARTS paper, in its order."""
