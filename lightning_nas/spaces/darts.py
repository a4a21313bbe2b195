"""The DARTS cell (Liu, Simonyan, Yang, ICLR 2019) and its network."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations import DARTS_OPERATIONS, OPERATIONS, drop_path
from lightning_nas.spaces.base import Architecture, Choice, Resolved, Space
from lightning_nas.spaces.cells import Cell, CellNetwork, Form, Stem, preprocess

Kind = Literal["normal", "reduce"]


class DARTSCell(Space):
    """One choice per edge, over the operations; every node keeps two incoming edges.

    States 0 and 1 of a cell are the outputs of the two cells before it, nodes follow; ``normal/0->2`` is the edge from
    state 0 to node 2 of the normal cell. All cells of a kind share their choices.

    Args:
        kinds: ``normal`` and ``reduce``, or ``normal`` alone for a stack without reductions.
        nodes: intermediate nodes of a cell, all concatenated to its output.
        operations: the candidates on every edge; ``none`` has to be among them.
    """

    start = 0  # live edges into the current node so far

    def __init__(
        self,
        kinds: Sequence[Kind] = ("normal", "reduce"),
        nodes: int = 4,
        operations: Sequence[str] = DARTS_OPERATIONS,
    ) -> None:
        if tuple(kinds) not in {("normal", "reduce"), ("normal",)}:
            raise SettingError(f"space.kinds: [normal, reduce] or [normal], got {list(kinds)}")
        if not 1 <= nodes <= 16:
            raise SettingError(f"space.nodes: between 1 and 16, got {nodes}")
        for operation in operations:
            if operation not in OPERATIONS:
                raise SettingError(f"space.operations: no operation {operation!r}; there are {', '.join(OPERATIONS)}")
        if "none" not in operations or len(operations) < 2:
            raise SettingError("space.operations: needs none (an edge that is not kept) and at least one other")
        self.kinds = tuple(kinds)
        self.nodes = nodes
        super().__init__(
            Choice(f"{kind}/{source}->{node}", tuple(operations), f"{kind}/{node}", sources=(source,))
            for kind in kinds
            for node in range(2, nodes + 2)
            for source in range(node)
        )

    def step(self, live: int, choice: Choice, option: str) -> int | None:
        live += option != "none"
        if choice.last_of_node:
            return 0 if live == 2 else None
        return live if live <= 2 else None

    def derive(self, scores: Sequence[Sequence[float]]) -> Architecture:
        """The paper's rule: an edge is as strong as its strongest operation but ``none``, and every node keeps its two
        strongest edges. Scores are softmax weights (or anything non-negative).

        With ``none`` scored zero this is the architecture of the highest total score.
        """
        return super().derive(
            [
                [0.0 if option == "none" else float(score) for option, score in zip(choice.options, row, strict=True)]
                for choice, row in zip(self.choices, scores, strict=True)
            ]
        )

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

    def graphs(self, architecture: Architecture) -> dict[str, list[tuple[str, str, str]]]:
        names = self.to_names(architecture)
        label = {0: "cell k-2", 1: "cell k-1"} | {node: str(node) for node in range(2, self.nodes + 2)}
        graphs: dict[str, list[tuple[str, str, str]]] = {}
        for kind in self.kinds:
            edges = [
                (label[source], label[node], names[f"{kind}/{source}->{node}"])
                for node in range(2, self.nodes + 2)
                for source in range(node)
            ]
            outputs = [(label[node], "output", "") for node in range(2, self.nodes + 2)]
            graphs[kind] = [edge for edge in edges if edge[2] != "none"] + outputs
        return graphs

    def network(  # type: ignore[override]  # each space names the settings of its own network
        self,
        inputs: dict[str, int],
        channels: int = 16,
        cells: int = 8,
        form: Form = "search",
        stem: Stem = "cifar",
        auxiliary: bool = False,
    ) -> CellNetwork:
        """A stack of cells; see :class:`~lightning_nas.spaces.cells.CellNetwork`.

        Args:
            inputs: ``channels``, ``image_size`` and ``num_classes`` of the data.
            channels: width of the first cells, an even number.
            cells: number of cells.
            form: ``search``: BatchNorm without scale and shift; ``final``: the network to train and report.
            stem: ``cifar`` keeps the images' resolution, ``imagenet`` divides it by 8.
            auxiliary: a second classifier at two thirds of the depth, in training.
        """
        if form not in get_args(Form):
            raise SettingError(f"form: {' or '.join(get_args(Form))}, got {form!r}")
        affine = form == "final"

        def build_cell(kind: str, before_last: int, last: int, own: int, after_reduction: bool) -> Cell:
            choices = [choice for choice in self.choices if choice.name.startswith(f"{kind}/")]
            return EdgeCell(choices, self.nodes, before_last, last, own, kind == "reduce", after_reduction, affine)

        return CellNetwork(self, inputs, build_cell, channels, cells, stem, auxiliary, self.kinds)


class EdgeCell(Cell):
    """A cell with an operation on every edge; a node is the sum of its edges, the output all nodes side by side.

    The cell goes through the *sources*: ReLU, pooling and the pools' BatchNorm are the same tensor for all edges that
    leave a state, so they are computed once, and only if an edge that runs reads them.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        nodes: int,
        before_last: int,
        last: int,
        channels: int,
        reduction: bool,
        after_reduction: bool,
        affine: bool,
    ) -> None:
        super().__init__()
        self.nodes = nodes
        self.out_channels = nodes * channels
        self.reduction = reduction
        self.preprocess = nn.ModuleList(
            [preprocess(before_last, channels, after_reduction, affine), preprocess(last, channels, False, affine)]
        )
        self.views = nn.ModuleDict()
        self.edges = nn.ModuleDict()
        self.leaving: list[list[tuple[str, int]]] = [[] for _ in range(nodes + 1)]  # source: (choice, node)
        for choice in choices:
            (source,), node = choice.sources, int(choice.node.rpartition("/")[2])
            self.leaving[source].append((choice.name, node))
            for option in choice.options:
                operation, stride = OPERATIONS[option], self._stride(source)
                if operation is None:
                    continue
                view = operation.view(stride)
                if f"{source}/{view.name}" not in self.views:
                    self.views[f"{source}/{view.name}"] = view.build(channels, stride, affine)
                body = operation.body(channels, stride, affine)
                if body is not None:
                    self.edges[f"{choice.name}/{option}"] = body

    def _stride(self, source: int) -> int:
        return 2 if self.reduction and source < 2 else 1

    def forward(self, s0: Tensor, s1: Tensor, gates: Resolved, drop_path: float) -> Tensor:
        states: list[Tensor | None] = [self.preprocess[0](s0), self.preprocess[1](s1)] + [None] * self.nodes
        for source, leaving in enumerate(self.leaving):
            state = states[source]
            if state is None:  # nothing flows into this node
                continue
            seen: dict[str, Tensor] = {}
            for name, node in leaving:
                for option, weight in gates[name]:
                    if option != "none":
                        term = self._edge(state, source, name, option, seen, drop_path)
                        term = term if weight is None else weight * term
                        total = states[node]
                        states[node] = term if total is None else total + term
        return self._concatenate(states)

    def _edge(
        self, state: Tensor, source: int, name: str, option: str, seen: dict[str, Tensor], probability: float
    ) -> Tensor:
        operation = OPERATIONS[option]
        assert operation is not None
        stride = self._stride(source)
        view = operation.view(stride).name
        if view not in seen:
            seen[view] = self.views[f"{source}/{view}"](state)
        body = f"{name}/{option}"
        out = self.edges[body](seen[view]) if body in self.edges else seen[view]
        return out if view == "state" else drop_path(out, probability)  # the identity is never dropped

    def _concatenate(self, states: list[Tensor | None]) -> Tensor:
        present = next((state for state in states[2:] if state is not None), None)
        if present is None:
            raise ValueError("no edge of the cell runs; every gate chose none")
        return torch.cat([torch.zeros_like(present) if state is None else state for state in states[2:]], 1)
