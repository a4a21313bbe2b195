"""Cells of the NASNet family (Zoph et al. 2018; AmoebaNet: Real et al. 2019): two operations on two states per node."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lightning_nas.spaces.base import Architecture, Choice, Resolved
from lightning_nas.spaces.cells import Candidates, Drops, Seen, States
from lightning_nas.spaces.graphs import Graph
from lightning_nas.spaces.image_cells.shell import Cell, CellSpace, Kind, Place, Preprocess
from lightning_nas.spaces.sums import Node

AMOEBANET_OPERATIONS = (
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "avg_pool_3x3",
    "max_pool_3x3",
    "dil_conv_3x3",
    "conv_7x1_1x7",
)


class NodePairs(CellSpace):
    """Every node adds two operations, each on one of the states before it.

    States 0 and 1 of a cell are the outputs of the two cells before it, nodes follow. Node 2 of the normal cell has the
    choices ``normal/2/input_1``, ``normal/2/input_2`` (over the names of states), ``normal/2/operation_1`` and
    ``normal/2/operation_2``. What no later node reads is a *loose end*; the loose ends are the cell's output.
    """

    def node_choices(self, kind: Kind, node: int, operations: Sequence[str]) -> Iterable[Choice]:
        name, sources = f"{kind}/{node}", tuple(range(node))
        for slot in (1, 2):
            yield Choice(f"{name}/input_{slot}", tuple(map(str, sources)), name, "input", sources=sources)
        for slot in (1, 2):
            yield Choice(f"{name}/operation_{slot}", tuple(operations), name)

    def loose_ends(self, architecture: Architecture, kind: str) -> tuple[int, ...]:
        """The states of a cell that no node reads, the cell's inputs among them."""
        read = {int(option) for option in self._read(architecture, kind)}
        return tuple(state for state in range(self.nodes + 2) if state not in read)

    def _read(self, architecture: Architecture, kind: str) -> Iterable[str]:
        chosen = zip(self.choices, architecture, strict=True)
        return [c.options[option] for c, option in chosen if c.kind == "input" and c.cell == kind]

    def describe(self, architecture: Architecture) -> str:
        """``operation(source) operation(source)``, nodes separated by a bar."""
        names = self.to_names(architecture)
        lines = []
        for kind in self.kinds:
            nodes = [
                " ".join(f"{names[f'{node}/operation_{slot}']}({names[f'{node}/input_{slot}']})" for slot in (1, 2))
                for node in (f"{kind}/{k}" for k in range(2, self.nodes + 2))
            ]
            lines.append(f"{kind}: " + " | ".join(nodes))
        return "\n".join(lines)

    def from_genotype(self, **cells: str) -> Architecture:
        """The inverse of :meth:`describe`: ``from_genotype(normal="sep_conv_3x3(0) …", reduce="…")``.

        Raises:
            ValueError: where the text is no cell.
        """
        names = {}
        for kind, genotype in cells.items():
            for node, text in enumerate(genotype.split("|"), start=2):
                for slot, term in enumerate(text.split(), start=1):
                    operation, _, source = term.rstrip(")").partition("(")
                    names[f"{kind}/{node}/input_{slot}"] = source
                    names[f"{kind}/{node}/operation_{slot}"] = operation
        return self.from_names(names)

    def graph(self, architecture: Architecture) -> dict[str, Graph]:
        names = self.to_names(architecture)
        label = {0: "cell k-2", 1: "cell k-1"} | {node: str(node) for node in range(2, self.nodes + 2)}
        graphs: dict[str, Graph] = {}
        for kind in self.kinds:
            edges = [
                (label[int(names[f"{kind}/{k}/input_{slot}"])], str(k), names[f"{kind}/{k}/operation_{slot}"])
                for k in range(2, self.nodes + 2)
                for slot in (1, 2)
            ]
            outputs = [(label[k], "output", "") for k in self._output(architecture, kind)]
            graphs[kind] = Graph.of([*edges, *outputs], label.values())
        return graphs

    def _output(self, architecture: Architecture, kind: str) -> tuple[int, ...]:
        """The states that a cell puts out."""
        return self.loose_ends(architecture, kind)


class NASNetCell(NodePairs):
    """The cells of NASNet and AmoebaNet, in the form in which DARTS compares with them.

    Differs from the papers: nodes alone are put out, also where a cell's input is a loose end; both operations of a
    node are added, never concatenated.

    Args:
        kinds: ``normal`` and ``reduce``, or ``normal`` alone for a stack without reductions.
        nodes: the number of nodes of a cell; its loose ends are concatenated.
        operations: the candidates; by default AmoebaNet's eight.
    """

    def __init__(
        self,
        kinds: Sequence[Kind] = ("normal", "reduce"),
        nodes: int = 5,
        operations: Sequence[str] = AMOEBANET_OPERATIONS,
    ) -> None:
        super().__init__(kinds, nodes, operations)

    def _output(self, architecture: Architecture, kind: str) -> tuple[int, ...]:
        return tuple(state for state in self.loose_ends(architecture, kind) if state >= 2)

    def cell(self, choices: Sequence[Choice], place: Place, affine: bool) -> Cell:
        return PairCell(choices, self.nodes, place, affine)


class NodePairsCell(Cell):
    """What a cell of :class:`NodePairs` computes before its output.

    Under weights a node is ``Σ_slot Σ_i w_i Σ_o w_o o(s_i)``, and a state is loose with weight ``Π (1 − w)`` over all
    choices that could read it; at one-hot weights both are the hard rule.

    Args:
        choices: the choices of this cell.
        nodes: the number of nodes of the cell.
        kind: ``normal`` or ``reduce``, as the choices are named.
        candidates: which operations are built here, and how.

    Attributes:
        can_be_loose: the states that some architecture does not read, the cell's inputs among them.
    """

    def __init__(self, choices: Sequence[Choice], nodes: int, kind: str, candidates: Candidates) -> None:
        super().__init__()
        self.nodes, self.kind, self.candidates = nodes, kind, candidates
        options = {choice.name: choice.options for choice in choices}
        for node, slot in self._slots():
            for source in options[f"{node}/input_{slot}"]:
                for operation in options[f"{node}/operation_{slot}"]:
                    self.candidates.add(f"{node}/{slot}/{source}", int(source), operation)
        inputs = [choice.options for choice in choices if choice.kind == "input"]
        always_read = {int(sources[0]) for sources in inputs if len(sources) == 1}
        self.can_be_loose = tuple(state for state in range(nodes + 2) if state not in always_read)

    def _slots(self) -> list[tuple[str, int]]:
        return [(f"{self.kind}/{node}", slot) for node in range(2, self.nodes + 2) for slot in (1, 2)]

    def states(self, inputs: Sequence[Tensor], gates: Resolved, drops: Drops) -> list[Tensor]:
        """The two inputs and the nodes' states."""
        states = list(inputs)
        seen: Seen = {}
        slots = self._slots()
        for first, second in zip(slots[::2], slots[1::2], strict=True):
            new = Node()
            for node, slot in (first, second):
                for source, by_source in gates[f"{node}/input_{slot}"]:
                    for option, weight in gates[f"{node}/operation_{slot}"]:
                        place, read = f"{node}/{slot}/{source}", states[int(source)]
                        both = weight if by_source is None else by_source if weight is None else by_source * weight
                        new.add(self.candidates(place, int(source), option, read, seen, drops, both))
            state = new.finish()
            states.append(self.candidates.nothing(states[0]) if state is None else state)
        return states

    def loose(self, gates: Resolved, states: Iterable[int]) -> Mapping[int, Tensor | None]:
        """:func:`loose_weights` of some of the cell's states."""
        return loose_weights(gates, [f"{node}/input_{slot}" for node, slot in self._slots()], states)


class PairCell(NodePairsCell):
    """Inputs preprocessed as in DARTS; the output is the loose ends among the nodes, side by side."""

    def __init__(self, choices: Sequence[Choice], nodes: int, place: Place, affine: bool) -> None:
        strided = (0, 1) if place.kind == "reduce" else ()
        super().__init__(choices, nodes, place.kind, Candidates(place.channels, strided, affine))
        self.preprocess = Preprocess(place, affine)
        self.widths = {str(state): place.channels for state in self.can_be_loose if state >= 2}

    def forward(self, s0: States, s1: States, gates: Resolved, drops: Drops) -> States:
        states = self.states(self.preprocess(s0, s1), gates, drops)
        return side_by_side(states, self.loose(gates, range(2, self.nodes + 2)))


def side_by_side(states: Sequence[Tensor], loose: Mapping[int, Tensor | None]) -> States:
    """The loose ends, each times its weight, named by their numbers."""
    parts = [states[k] if weight is None else weight * states[k] for k, weight in loose.items()]
    return States(torch.cat(parts, 1), tuple(map(str, loose)))


def loose_weights(gates: Resolved, inputs: Sequence[str], states: Iterable[int]) -> Mapping[int, Tensor | None]:
    """With what weight each of ``states`` is a loose end, None for one, absent for zero.

    Args:
        gates: the options that run, with their weights.
        inputs: the names of the choices that read states.
        states: the numbers in question.
    """
    loose: dict[int, Tensor | None] = dict.fromkeys(states)
    for name in inputs:
        chosen = gates[name]
        for source, weight in chosen:
            if len(chosen) == 1:  # taken for certain
                loose.pop(int(source), None)
            elif int(source) in loose:
                before = loose[int(source)]
                assert weight is not None  # hard gates have one option
                loose[int(source)] = 1 - weight if before is None else before * (1 - weight)
    return loose
