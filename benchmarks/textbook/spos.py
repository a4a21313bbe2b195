"""The supernet of SPOS (Guo et al., ECCV 2020, section 3.3), of which a path takes one block in each layer."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNELS = (3, 5, 7, 3)
"""Of the four blocks; the last is Xception's."""


def depthwise(channels: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    return [convolution, nn.BatchNorm2d(channels, affine=False)]


def pointwise(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after, affine=False), nn.ReLU()]


class Block(nn.Module):
    """A shuffle block whose middle is half of what it puts out."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, xception: bool, projects: bool) -> None:
        super().__init__()
        read, middle = before if projects else before // 2, after // 2
        if projects:
            self.projection = nn.Sequential(*depthwise(read, kernel, stride), *pointwise(read, read))
        if xception:
            layers = [*depthwise(read, kernel, stride), *pointwise(read, middle)]
            layers += [*depthwise(middle, kernel, 1), *pointwise(middle, middle), *depthwise(middle, kernel, 1)]
        else:
            layers = [*pointwise(read, middle), *depthwise(middle, kernel, stride)]
        self.main = nn.Sequential(*layers, *pointwise(middle, after - read))

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "projection"):
            return torch.cat([self.projection(x), self.main(x)], 1)
        n, channels, height, width = x.shape
        passed, given = x.reshape(n, channels // 2, 2, height, width).unbind(2)
        return torch.cat([passed, self.main(given)], 1)


class Supernet(nn.Module):
    """Stem, layers of four blocks, a 1×1 convolution, pool, dropout, and a linear layer."""

    def __init__(
        self,
        first: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        strides: Sequence[int],
        last: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1, bias=False), nn.BatchNorm2d(first, affine=False), nn.ReLU()
        )
        self.layers = nn.ModuleList()
        before = first
        for width, depth, stride in zip(widths, blocks, strides, strict=True):
            for k in range(depth):
                self.layers.append(
                    nn.ModuleList(
                        Block(before, width, kernel, 1 if k else stride, number == 3, projects=k == 0)
                        for number, kernel in enumerate(KERNELS)
                    )
                )
                before = width
        self.top = nn.Sequential(*pointwise(before, last))
        self.classifier = nn.Linear(last, 10, bias=False)

    def forward(self, x: Tensor, path: Sequence[int]) -> Tensor:
        x = self.stem(x)
        for blocks, block in zip(self.layers, path, strict=True):
            x = blocks[block](x)
        return self.classifier(F.dropout(self.top(x).mean((2, 3)), self.dropout, self.training))
