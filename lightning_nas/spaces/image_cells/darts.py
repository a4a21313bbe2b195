"""The DARTS cell (Liu, Simonyan, Yang, ICLR 2019) and its network."""

from collections.abc import Iterable, Mapping, Sequence

import torch

from lightning_nas.errors import SettingError
from lightning_nas.operations import DARTS_OPERATIONS, NORMALIZED_POOLS, OPERATIONS, Operation
from lightning_nas.spaces.base import Architecture, Choice, Resolved
from lightning_nas.spaces.cells import Drops, Edges, Form, States
from lightning_nas.spaces.graphs import Graph
from lightning_nas.spaces.image_cells.shell import Cell, CellNetwork, CellSpace, Kind, Place, Preprocess, Stem
from lightning_nas.spaces.kept_edges import KeptEdges


class DARTSCell(KeptEdges, CellSpace):
    """One choice per edge, over the operations; every node keeps two incoming edges (or ``kept``).

    States 0 and 1 of a cell are the outputs of the two cells before it, nodes follow; ``normal/0->2`` is the edge from
    state 0 to node 2 of the normal cell. All cells of a kind share their choices.

    Args:
        kinds: ``normal`` and ``reduce``, or ``normal`` alone for a stack without reductions.
        nodes: intermediate nodes of a cell, all concatenated to its output.
        operations: the candidates on every edge; ``none`` has to be among them.
        sparse: whether a node may keep fewer than two edges. Random search with weight sharing draws such cells in its
            released code, where ``none`` is one of the operations on a kept edge.
        kept: the number of edges that a node keeps, 1 or 2; None: any number, none too, so that every edge may have any
            of the operations (SNAS).
    """

    def __init__(
        self,
        kinds: Sequence[Kind] = ("normal", "reduce"),
        nodes: int = 4,
        operations: Sequence[str] = DARTS_OPERATIONS,
        sparse: bool = False,
        kept: int | None = 2,
    ) -> None:
        if kept not in (1, 2, None):
            raise SettingError(f"kept: 1, 2 or null, got {kept!r}")
        if sparse and kept is None:
            raise SettingError("sparse: changes nothing where kept is null; leave it out")
        self.sparse, self.kept = sparse, kept
        super().__init__(kinds, nodes, operations)
        if "none" not in operations or len(operations) < 2:
            raise SettingError("operations: needs none (an edge that is not kept) and at least one other")

    def node_choices(self, kind: Kind, node: int, operations: Sequence[str]) -> Iterable[Choice]:
        for source in range(node):
            yield Choice(f"{kind}/{source}->{node}", tuple(operations), f"{kind}/{node}", sources=(source,))

    def describe(self, architecture: Architecture) -> str:
        """The papers' notation: ``operation(source)``, nodes separated by a bar."""
        names = self.to_names(architecture)
        lines = []
        for kind in self.kinds:
            nodes = []
            for node in range(2, self.nodes + 2):
                edges = [(names[f"{kind}/{source}->{node}"], source) for source in range(node)]
                nodes.append(" ".join(f"{operation}({source})" for operation, source in edges if operation != "none"))
            lines.append(f"{kind}: " + " | ".join(nodes))
        return "\n".join(lines)

    def from_genotype(self, **cells: str) -> Architecture:
        """The inverse of :meth:`describe`: ``from_genotype(normal="sep_conv_3x3(0) …", reduce="…")``.

        Raises:
            ValueError: where the text is no legal cell.
        """
        names = {choice.name: "none" for choice in self.choices}
        for kind, genotype in cells.items():
            for node, text in enumerate(genotype.split("|"), start=2):
                for edge in text.split():
                    operation, _, source = edge.rstrip(")").partition("(")
                    name = f"{kind}/{source}->{node}"
                    if names.get(name) != "none":
                        raise ValueError(f"{kind}: {edge!r} names no edge of node {node}, or one twice")
                    names[name] = operation
        return self.from_names(names)

    def graph(self, architecture: Architecture) -> dict[str, Graph]:
        names = self.to_names(architecture)
        label = {0: "cell k-2", 1: "cell k-1"} | {node: str(node) for node in range(2, self.nodes + 2)}
        graphs: dict[str, Graph] = {}
        for kind in self.kinds:
            edges = [
                (label[source], label[node], names[f"{kind}/{source}->{node}"])
                for node in range(2, self.nodes + 2)
                for source in range(node)
            ]
            outputs = [(label[node], "output", "") for node in range(2, self.nodes + 2)]
            graphs[kind] = Graph.of([*(edge for edge in edges if edge[2] != "none"), *outputs], label.values())
        return graphs

    def network(  # type: ignore[override]  # each space names the settings of its own network
        self,
        inputs: dict[str, int],
        channels: int = 16,
        cells: int = 8,
        form: Form = "search",
        stem: Stem = "cifar",
        auxiliary: bool = False,
        pool_norm: bool = False,
    ) -> CellNetwork:
        """A stack of cells; see :class:`~lightning_nas.spaces.image_cells.shell.CellNetwork`.

        Args:
            inputs: ``channels``, ``image_size`` and ``num_classes`` of the data.
            channels: width of the first cells, an even number.
            cells: the number of cells in the network.
            form: ``search``: BatchNorm without scale and shift; ``final``: the network to train and report.
            stem: ``cifar`` keeps the images' resolution, ``imagenet`` divides it by 8.
            auxiliary: a second classifier at two thirds of the depth, in training.
            pool_norm: whether a BatchNorm follows the pool of every edge in final form too (SNAS, released code).
        """
        return self.stack(inputs, channels, cells, form, stem, auxiliary, pool_norm=pool_norm)

    def cell(self, choices: Sequence[Choice], place: Place, affine: bool, pool_norm: bool = False) -> Cell:
        return EdgeCell(choices, self.nodes, place, affine, NORMALIZED_POOLS if pool_norm else OPERATIONS)


class EdgeCell(Cell):
    """A cell with an operation on every edge; the output is all nodes side by side."""

    def __init__(
        self,
        choices: Sequence[Choice],
        nodes: int,
        place: Place,
        affine: bool,
        operations: Mapping[str, Operation | None] = OPERATIONS,
    ) -> None:
        super().__init__()
        self.widths = {"nodes": nodes * place.channels}
        self.preprocess = Preprocess(place, affine)
        strided = (0, 1) if place.kind == "reduce" else ()
        self.edges = Edges(choices, 2, place.channels, strided, affine, operations)

    def forward(self, s0: States, s1: States, gates: Resolved, drops: Drops) -> States:
        return States(torch.cat(self.edges(self.preprocess(s0, s1), gates, drops), 1), ("nodes",))
