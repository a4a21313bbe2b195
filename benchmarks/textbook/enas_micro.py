"""The shared network of ENAS's micro search (Pham et al., ICML 2018, section 2.3)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.textbook.operations import (
    AuxiliaryHead,
    FactorizedReduce,
    ReLUConvBN,
    SepConv,
    avg_pool,
    drop_path,
    max_pool,
)


class Node(NamedTuple):
    """Two states and the operation on each, by their numbers."""

    first: int
    second: int
    first_operation: int
    second_operation: int


class SharedOperations(nn.ModuleList):
    """The five candidates on one state: two separable convolutions, two pools, identity."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            [
                SepConv(channels, 3, 1, affine=True),
                SepConv(channels, 5, 1, affine=True),
                avg_pool(1),
                max_pool(1),
                nn.Identity(),
            ]
        )


class SharedCell(nn.Module):
    """All candidates of all nodes on all states before them, of which a path takes two a node.

    What no node reads is combined by a 1×1 convolution with its own weight for each state.
    """

    def __init__(self, nodes: int, before_last: int, last: int, channels: int, halve_before_last: bool) -> None:
        super().__init__()
        if halve_before_last:
            self.calibrate0: nn.Module = FactorizedReduce(before_last, channels, affine=True)
        elif before_last != channels:
            self.calibrate0 = ReLUConvBN(before_last, channels, affine=True)
        else:
            self.calibrate0 = nn.Identity()
        self.calibrate1 = nn.Identity() if last == channels else ReLUConvBN(last, channels, affine=True)
        self.nodes = nn.ModuleList(
            nn.ModuleList(nn.ModuleList(SharedOperations(channels) for _ in range(node + 2)) for _ in range(2))
            for node in range(nodes)
        )
        self.combine = nn.ParameterList(
            nn.Parameter(torch.randn(channels, channels, 1, 1) / channels) for _ in range(nodes + 2)
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, s0: Tensor, s1: Tensor, cell: Sequence[Node], drop_probability: float) -> Tensor:
        states = [self.calibrate0(s0), self.calibrate1(s1)]
        read = set()
        for slots, node in zip(self.nodes, cell, strict=True):
            terms = []
            choices = ((node.first, node.first_operation), (node.second, node.second_operation))
            for slot, (source, operation) in zip(slots, choices, strict=True):
                term = slot[source][operation](states[source])
                if self.training and drop_probability > 0 and not isinstance(slot[source][operation], nn.Identity):
                    term = drop_path(term, drop_probability)
                terms.append(term)
                read.add(source)
            states.append(terms[0] + terms[1])
        loose = [k for k in range(len(states)) if k not in read]
        weight = torch.cat([self.combine[k] for k in loose], 1)
        return self.norm(F.conv2d(F.relu(torch.cat([states[k] for k in loose], 1)), weight))


class SharedNetwork(nn.Module):
    """Stem, cells, and a reduction before the cell after each third: FactorizedReduce without a ReLU."""

    def __init__(
        self,
        channels: int,
        layers: int,
        nodes: int = 5,
        auxiliary: bool = True,
        dropout: float = 0.1,
        channels_in: int = 3,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        width = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(channels_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.reductions = (layers // 3, 2 * (layers // 3) + 1)
        self.halvings = nn.ModuleDict()
        self.cells = nn.ModuleList()
        before_last = last = width
        for k in range(layers + 2):
            halve = k in self.reductions
            if halve:
                channels *= 2
                self.halvings[str(k)] = FactorizedReduce(last, channels, affine=True, relu=False)
                before_last, last = last, channels
            self.cells.append(SharedCell(nodes, before_last, last, channels, halve))
            before_last, last = last, channels
            if auxiliary and k == self.reductions[1] + 1:
                self.auxiliary = AuxiliaryHead(channels, classes, bias=False)
        self.classifier = nn.Linear(channels, classes, bias=False)

    def forward(
        self, images: Tensor, normal: Sequence[Node], reduce: Sequence[Node], drop_probability: float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of the network and, in training, of the auxiliary head.

        ``drop_probability`` is that of the last cell; it grows with the depth.
        """
        s0 = s1 = self.stem(images)
        auxiliary = None
        for k, cell in enumerate(self.cells):
            if k in self.reductions:
                s0, s1 = s1, self.halvings[str(k)](s1)
            path = reduce if k in self.reductions else normal
            s0, s1 = s1, cell(s0, s1, path, drop_probability * (k + 1) / len(self.cells))
            if self.training and k == self.reductions[1] + 1 and hasattr(self, "auxiliary"):
                auxiliary = self.auxiliary(s1)
        pooled = F.dropout(F.relu(s1).mean((2, 3)), self.dropout, self.training)
        return self.classifier(pooled), auxiliary
