"""The blocks of ShuffleNetV2 (Ma et al. 2018) with other kernels, as the released code of SPOS has them."""

import torch
from torch import Tensor, nn

from lightning_nas.operations.convolutions import drop_path
from lightning_nas.operations.elastic import ElasticConv2d
from lightning_nas.operations.normalization import BatchNorm


class ShuffleBlock(nn.Module):
    """Two branches side by side: ``(N, C_in, H, W)`` to ``(N, C_out, ⌈H/stride⌉, ⌈W/stride⌉)``.

    A block that keeps the shape gives every second channel to its main branch and passes the others on. A block that
    ``projects`` gives all channels to both branches; the one beside has a depthwise convolution of the same kernel and
    a 1×1 convolution.

    Args:
        channels_in: the number of channels that it reads.
        channels_out: the number of channels that it puts out.
        middle: the largest number of channels inside the main branch.
        kernel: the side of the depthwise kernel, odd.
        stride: the stride of the first depthwise convolution of each branch.
        projects: whether the block changes the shape.
        affine: whether the BatchNorms learn scale and shift.
        xception: whether the main branch is three pairs of a depthwise and a 1×1 convolution, as Xception's, instead of
            1×1, depthwise, 1×1.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        middle: int,
        kernel: int,
        stride: int,
        projects: bool,
        affine: bool,
        xception: bool = False,
    ) -> None:
        super().__init__()

        def depthwise(channels: int, stride: int = 1) -> list[nn.Module]:
            padding = kernel // 2
            convolution = ElasticConv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)
            return [convolution, BatchNorm(channels, affine=affine)]

        def pointwise(before: int, after: int) -> list[nn.Module]:
            convolution = ElasticConv2d(before, after, 1, bias=False)
            return [convolution, BatchNorm(after, affine=affine), nn.ReLU(inplace=True)]

        read = channels_in if projects else channels_in // 2
        made = channels_out - read
        self.beside = nn.Sequential(*depthwise(read, stride), *pointwise(read, read)) if projects else None
        if xception:
            layers = [
                *depthwise(read, stride),
                *pointwise(read, middle),
                *depthwise(middle),
                *pointwise(middle, middle),
            ]
            layers += [*depthwise(middle), *pointwise(middle, made)]
        else:
            layers = [*pointwise(read, middle), *depthwise(middle, stride), *pointwise(middle, made)]
        self.main = nn.Sequential(*layers)

    def forward(self, x: Tensor, middle: int, probability: float) -> Tensor:
        """Runs the block.

        Args:
            x: the batch of states, ``(N, C_in, H, W)``.
            middle: how many channels there are inside the main branch; of its weights the first ones are used.
            probability: the probability to drop the main branch of a sample, where the other channels are passed on.
        """
        if self.beside is not None:
            return torch.cat([self.beside(x), self._run_main(x, middle)], 1)
        return torch.cat([x[:, ::2], drop_path(self._run_main(x[:, 1::2], middle), probability)], 1)

    def _run_main(self, x: Tensor, middle: int) -> Tensor:
        *_, last = (module for module in self.main if isinstance(module, ElasticConv2d))
        for module in self.main:
            inside = isinstance(module, ElasticConv2d) and module.groups == 1 and module is not last
            x = module(x, middle) if inside else module(x)
        return x
