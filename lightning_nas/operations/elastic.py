"""Layers of which fewer channels can run: the weights of all widths are leading slices of the widest."""

import torch.nn.functional as F
from torch import Tensor, nn


class ElasticConv2d(nn.Conv2d):
    """``nn.Conv2d`` without a bias, ordinary or depthwise, of which the first channels alone can run."""

    def forward(self, x: Tensor, channels_out: int | None = None) -> Tensor:
        """Convolves as many channels as ``x`` has.

        Args:
            x: the batch of states, ``(N, C, H, W)``.
            channels_out: how many channels are put out; None: all, of a depthwise convolution as many as it reads.
        """
        depthwise = self.groups > 1
        read, made = x.shape[1], x.shape[1] if depthwise else channels_out or self.out_channels
        weight = self.weight
        if made < self.out_channels or read < self.in_channels:
            weight = weight[:made, : 1 if depthwise else read]
        groups = read if depthwise else 1
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, groups)
