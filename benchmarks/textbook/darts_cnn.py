"""The convolutional networks of DARTS (Liu, Simonyan, Yang, ICLR 2019): the supernet and the final network."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.textbook.operations import OPERATIONS, AuxiliaryHead, FactorizedReduce, ReLUConvBN, drop_path

Genotype = dict[str, list[tuple[str, int, int]]]
"""For each kind of cell the edges that are kept: operation, source, node."""


class MixedOperation(nn.Module):
    """All operations on one edge, weighted."""

    only_strongest = False
    """Whether just the operation of the largest weight runs (GDAS)."""

    def __init__(self, channels: int, stride: int, operations: Sequence[str]) -> None:
        super().__init__()
        self.operations = nn.ModuleList()
        for name in operations:
            operation = OPERATIONS[name](channels, stride, False)
            if "pool" in name:
                operation = nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False))
            self.operations.append(operation)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        if self.only_strongest:
            strongest = int(weights.argmax())
            return weights[strongest] * self.operations[strongest](x)
        return sum(weight * operation(x) for weight, operation in zip(weights, self.operations, strict=True))


class Preprocessed(nn.Module):
    """What all cells begin with: the outputs of the two cells before, brought to the cell's width."""

    def __init__(self, before_last: int, last: int, channels: int, after_reduction: bool, affine: bool) -> None:
        super().__init__()
        first = FactorizedReduce if after_reduction else ReLUConvBN
        self.preprocess0 = first(before_last, channels, affine)
        self.preprocess1 = ReLUConvBN(last, channels, affine)


class SearchCell(Preprocessed):
    """A mixed operation on every edge."""

    def __init__(
        self,
        nodes: int,
        operations: Sequence[str],
        before_last: int,
        last: int,
        channels: int,
        reduction: bool,
        after_reduction: bool,
    ) -> None:
        super().__init__(before_last, last, channels, after_reduction, affine=False)
        self.nodes = nodes
        self.edges = nn.ModuleList(
            MixedOperation(channels, 2 if reduction and source < 2 else 1, operations)
            for node in range(nodes)
            for source in range(node + 2)
        )

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """Under the weights ``(edges, operations)``."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        first = 0
        for _ in range(self.nodes):
            states.append(sum(self.edges[first + j](state, weights[first + j]) for j, state in enumerate(states)))
            first += len(states) - 1
        return torch.cat(states[2:], 1)

    def path(self, s0: Tensor, s1: Tensor, options: Sequence[int], none: int) -> Tensor:
        """Under one operation for each edge. What is ``none`` is not run."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        first = 0
        for _ in range(self.nodes):
            taken = [options[first + j] for j in range(len(states))]
            states.append(
                sum(
                    self.edges[first + j].operations[option](state)
                    for j, (state, option) in enumerate(zip(states, taken, strict=True))
                    if option != none
                )
            )
            first += len(taken)
        return torch.cat(states[2:], 1)


class SearchNetwork(nn.Module):
    """Stem, cells, global average pool, linear, and the alphas."""

    def __init__(
        self,
        channels: int,
        cells: int,
        nodes: int = 4,
        operations: Sequence[str] = tuple(OPERATIONS),
        channels_in: int = 3,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.none = list(operations).index("none")
        width = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(channels_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        before_last, last, after_reduction = width, width, False
        self.cells = nn.ModuleList()
        self.kinds = []
        for k in range(cells):
            reduction = k in (cells // 3, 2 * cells // 3)
            channels *= 2 if reduction else 1
            self.kinds.append("reduce" if reduction else "normal")
            self.cells.append(SearchCell(nodes, operations, before_last, last, channels, reduction, after_reduction))
            before_last, last, after_reduction = last, nodes * channels, reduction
        self.classifier = nn.Linear(last, classes)
        edges = sum(range(2, nodes + 2))
        self.alphas = nn.ParameterDict(
            {kind: nn.Parameter(1e-3 * torch.randn(edges, len(operations))) for kind in ("normal", "reduce")}
        )

    def weights(self) -> list[nn.Parameter]:
        """All parameters but the alphas."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("alphas.")]

    def forward(
        self, images: Tensor, path: dict[str, list[int]] | None = None, weights: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Under the softmax of the alphas, one operation for each edge, or given weights."""
        s0 = s1 = self.stem(images)
        for kind, cell in zip(self.kinds, self.cells, strict=True):
            if path is None:
                s0, s1 = s1, cell(s0, s1, F.softmax(self.alphas[kind], dim=-1) if weights is None else weights[kind])
            else:
                s0, s1 = s1, cell.path(s0, s1, path[kind], self.none)
        return self.classifier(s1.mean((2, 3)))


class FinalCell(Preprocessed):
    """The operations of a genotype."""

    def __init__(
        self,
        edges: list[tuple[str, int, int]],
        before_last: int,
        last: int,
        channels: int,
        reduction: bool,
        after_reduction: bool,
    ) -> None:
        super().__init__(before_last, last, channels, after_reduction, affine=True)
        self.edges = sorted(edges, key=lambda edge: edge[2])
        self.nodes = max(node for _, _, node in edges) - 1
        self.operations = nn.ModuleList(
            OPERATIONS[name](channels, 2 if reduction and source < 2 else 1, True) for name, source, _ in self.edges
        )

    def forward(self, s0: Tensor, s1: Tensor, drop_probability: float) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for node in range(2, self.nodes + 2):
            terms = []
            for (_, source, target), operation in zip(self.edges, self.operations, strict=True):
                if target == node:
                    term = operation(states[source])
                    if self.training and drop_probability > 0 and not isinstance(operation, nn.Identity):
                        term = drop_path(term, drop_probability)
                    terms.append(term)
            states.append(sum(terms))
        return torch.cat(states[2:], 1)


class FinalNetwork(nn.Module):
    """The network of a genotype, with an auxiliary head after the cell at two thirds of the depth."""

    def __init__(
        self, genotype: Genotype, channels: int, cells: int, auxiliary: bool, channels_in: int = 3, classes: int = 10
    ) -> None:
        super().__init__()
        width = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(channels_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        before_last, last, after_reduction = width, width, False
        self.cells = nn.ModuleList()
        self.auxiliary_after = 2 * cells // 3
        for k in range(cells):
            reduction = k in (cells // 3, 2 * cells // 3)
            channels *= 2 if reduction else 1
            edges = genotype["reduce" if reduction else "normal"]
            self.cells.append(FinalCell(edges, before_last, last, channels, reduction, after_reduction))
            before_last, last, after_reduction = last, self.cells[-1].nodes * channels, reduction
            if auxiliary and k == self.auxiliary_after:
                self.auxiliary = AuxiliaryHead(last, classes)
        self.classifier = nn.Linear(last, classes)

    def forward(self, images: Tensor, drop_probability: float) -> tuple[Tensor, Tensor | None]:
        """Logits of the network and of the auxiliary head."""
        s0 = s1 = self.stem(images)
        auxiliary = None
        for k, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, drop_probability)
            if k == self.auxiliary_after and hasattr(self, "auxiliary"):
                auxiliary = self.auxiliary(s1)
        return self.classifier(s1.mean((2, 3))), auxiliary
