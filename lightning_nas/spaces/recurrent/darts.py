"""The recurrent cell of DARTS (Liu, Simonyan, Yang, ICLR 2019, appendix A.1.2) and its language model.

Differs from the released code:
1. Its two masks of dropout on the embedded words are one of the same distribution: ``input_dropout`` is 0.8 where it
   has 0.75 in the cell and 0.2 before it, since a unit is kept with probability 0.25 · 0.8.
2. Dropout of words draws a number for each word instead of a copy of the embedding without the dropped ones (the same
   function).
"""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Architecture, Choice, Resolved
from lightning_nas.spaces.cells import Form, check_form
from lightning_nas.spaces.graphs import Graph
from lightning_nas.spaces.kept_edges import KeptEdges
from lightning_nas.spaces.recurrent.cell import PREVIOUS, Edge, RecurrentCell
from lightning_nas.spaces.recurrent.language_model import PENN_TREEBANK, RecurrentNetwork

OPERATIONS = ("none", "tanh", "relu", "sigmoid", "identity")


class DARTSRecurrentCell(KeptEdges):
    """One choice per edge, over the operations; every node keeps one incoming edge.

    State 0 is computed from a word and the output at the time step before, nodes follow; ``0->2`` is the edge from
    state 0 to node 2. All edges into a node share one matrix. The output is the mean of all nodes.

    Args:
        nodes: the number of nodes of the cell.
        operations: the candidates on every edge; ``none`` has to be among them.
    """

    kept = 1
    usual_inputs = PENN_TREEBANK

    def __init__(self, nodes: int = 8, operations: Sequence[str] = OPERATIONS) -> None:
        if not 1 <= nodes <= 16:
            raise SettingError(f"nodes: between 1 and 16, got {nodes}")
        if not set(operations) <= set(OPERATIONS) or "none" not in operations or len(operations) < 2:
            raise SettingError(
                f"operations: none (an edge that is not kept) and at least one of {', '.join(OPERATIONS[1:])}; "
                f"got {list(operations)}"
            )
        self.nodes = nodes
        super().__init__(
            Choice(f"{source}->{node}", tuple(operations), str(node), sources=(source,))
            for node in range(1, nodes + 1)
            for source in range(node)
        )

    def describe(self, architecture: Architecture) -> str:
        """``operation(source)`` for each node."""
        names = self.to_names(architecture)
        chosen = [(names[choice.name], choice.sources[0]) for choice in self.choices]
        return " ".join(f"{operation}({source})" for operation, source in chosen if operation != "none")

    def from_genotype(self, text: str) -> Architecture:
        """The inverse of :meth:`describe`.

        Raises:
            SettingError: where the text is not a cell of this space.
        """
        names = {choice.name: "none" for choice in self.choices}
        for node, edge in enumerate(text.split(), start=1):
            operation, _, source = edge.rstrip(")").partition("(")
            if f"{source}->{node}" not in names:
                raise SettingError(f"{edge[:80]!r} is not an edge into node {node}")
            names[f"{source}->{node}"] = operation
        return self.from_names(names)

    def graph(self, architecture: Architecture) -> dict[str, Graph]:
        names = self.to_names(architecture)
        edges = [(str(choice.sources[0]), str(choice.output), names[choice.name]) for choice in self.choices]
        first = [("x(t)", "0", "tanh"), ("h(t-1)", "0", "tanh")]
        outputs = [(str(node), "h(t)", "") for node in range(1, self.nodes + 1)]
        return {"cell": Graph.of([*first, *(edge for edge in edges if edge[2] != "none"), *outputs])}

    def network(  # type: ignore[override]  # each space names the settings of its own network
        self,
        inputs: dict[str, int],
        hidden: int = 300,
        form: Form = "search",
        word_dropout: float = 0.0,
        input_dropout: float = 0.8,
        hidden_dropout: float = 0.25,
        output_dropout: float = 0.75,
        compile: bool = False,
    ) -> RecurrentNetwork:
        """A language model; see :class:`~lightning_nas.spaces.recurrent.language_model.RecurrentNetwork`.

        Args:
            inputs: ``vocabulary`` of the data.
            hidden: units of a state, and of the embedding. DARTS: 300 in the search, 850 in the final network.
            form: ``search``: states are normalised; ``final``: the network to train and report.
            word_dropout: probability to drop a word of the vocabulary. DARTS: 0 in the search, 0.1 in the end.
            input_dropout: to drop a unit of the embedding.
            hidden_dropout: to drop a unit of the states that the cell reads.
            output_dropout: to drop a unit of the cell's outputs.
            compile: whether the cell is compiled for the search, about a minute at its start for a fifth of each step.
                It needs a C++ compiler, or a GPU.
        """
        check_form(form)
        cell = SharedMatrixCell(self.nodes, hidden, form, compile)
        return RecurrentNetwork(self, inputs, cell, True, word_dropout, input_dropout, hidden_dropout, output_dropout)


class SharedMatrixCell(RecurrentCell):
    """A matrix for each state, through which all edges into it go, in highway form.

    In search form one BatchNorm without scale and shift normalises all states (released code).
    """

    def __init__(self, nodes: int, hidden: int, form: Form, compile: bool) -> None:
        super().__init__(hidden, True, [[str(state)] for state in range(nodes + 1)], compile)
        if form == "search":
            self.state_norm = nn.BatchNorm1d(hidden, affine=False)

    def edges(self, state: int, gates: Resolved) -> Iterable[Edge]:
        if state == 0:
            return [Edge(PREVIOUS, "0", [("tanh", None)])]
        return [
            Edge(source, str(state), [run for run in gates[f"{source}->{state}"] if run[0] != "none"])
            for source in range(state)
        ]

    def outputs(self, gates: Resolved) -> Mapping[int, Tensor | None]:
        return dict.fromkeys(range(1, self.n_states))
