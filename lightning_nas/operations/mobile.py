"""Inverted residual convolutions: MBConv (Sandler et al. 2018), as ProxylessNAS's released code has them."""

from torch import nn

from lightning_nas.operations.convolutions import Body
from lightning_nas.operations.normalization import BatchNorm

EPS = 1e-3
"""What BatchNorm adds to the variance in ProxylessNAS's networks."""


class ConvReLU6(nn.Sequential):
    """k×k convolution, BatchNorm, ReLU6: ``(N, C_in, H, W)`` to ``(N, C_out, ⌈H/stride⌉, ⌈W/stride⌉)``."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
            BatchNorm(channels_out, eps=EPS),
            nn.ReLU6(inplace=True),
        )


class MBConv(Body):
    """1×1 to a wide middle, depthwise k×k, 1×1 to the result, each with BatchNorm, the first two with ReLU6:
    ``(N, C_in, H, W)`` to ``(N, C_out, ⌈H/stride⌉, ⌈W/stride⌉)``. There is no shortcut around it.

    Args:
        channels_in: the number of channels that it reads.
        channels_out: the number of channels that it puts out.
        kernel: the side of the depthwise kernel, odd.
        expansion: how many times as wide as the input the middle is. At 1 there is no first convolution.
        stride: the stride of the depthwise convolution.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, expansion: int, stride: int) -> None:
        middle = channels_in * expansion
        super().__init__(
            *([ConvReLU6(channels_in, middle, 1)] if expansion > 1 else []),
            ConvReLU6(middle, middle, kernel, stride, groups=middle),
            nn.Conv2d(middle, channels_out, 1, bias=False),
            BatchNorm(channels_out, eps=EPS),
        )
